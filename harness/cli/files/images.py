"""``harness images``: the best and worst images of a run, or those that changed most between two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detector.errors import UsageError
from harness.cli import completion
from harness.cli.options import DataOption, ForceOption, ProfileOption, finite, put, say
from harness.units import MAX_SEEDS

if TYPE_CHECKING:
    from harness.figures.images.scenes import Scene
    from harness.planning.selection import Selection
    from harness.report.compare.operands import Measured, Side

MOST_IMAGES = 500


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Show a run's best and worst images, or what changed between two.")(images)


def images(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A row (table2/L6), a training's id, a run's folder, or a record's file, as for compare.",
            autocompletion=completion.rows,
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="Another: shows the images that changed most between the two.",
            autocompletion=completion.rows,
        ),
    ] = None,
    profile: ProfileOption = "paper",
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="New folder for the page. Default: images-A-B.")
    ] = None,
    count: Annotated[
        int, typer.Option("--images", min=1, max=MOST_IMAGES, help="How many of the best, and of the worst.")
    ] = 6,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            max=MAX_SEEDS - 1,
            help="Which runs. Default: the lowest seed that is here.",
            autocompletion=completion.seeds,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0,
            max=1,
            callback=finite,
            help="Draw boxes with at least this score. Default: where the run's F1 is largest.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a page of a run's best and worst images, or of the images that changed most between two runs.

    True, false and missed boxes are told by colour, by line and by a letter. Images are ordered by their AP50: COCO's
    matching at IoU 0.5, all categories of the image in one ranking. It needs the run's folder (its detections) and the
    data set; where one is missing, it says how to get it. FOLDER/index.html opens in a browser.
    """
    from harness.figures.images.gallery import claim_gallery, write_gallery
    from harness.figures.images.runs import gallery_of_one, gallery_of_two
    from harness.planning.selection import Selection
    from harness.report.compare.operands import find_side

    every = Selection("all", profile, [], data)
    sides = [find_side(name, every, data) for name in (a, b) if name is not None]
    found = _matching(sides, seed, every)
    target = claim_gallery(out or Path(_folder_name(sides)), force=force)
    scenes = [_scene(side, item, every, data, min_score) for side, item in zip(sides, found, strict=True)]
    gallery = gallery_of_one(scenes[0], count) if b is None else gallery_of_two(scenes[0], scenes[1], count)
    written = write_gallery(target, gallery)
    put(written.page)
    for line in gallery.text[: 1 if b is None else 2]:
        say(line)
    if written.unread:
        say(written.note(scenes[0].index.root))


def _matching(sides: list[Side], seed: int | None, every: Selection) -> list[Measured]:
    """One evaluation of each side: of the seed asked for, else of the lowest that all have here, else the first ones.

    Raises UsageError where a side was never run, or not with this seed.
    """
    for side in sides:
        if not side.measured:
            raise UsageError(_never_run(side, every))
    by_seed = [{item.record.job.train.seed: item for item in reversed(side.measured)} for side in sides]
    if seed is not None:
        for side, known in zip(sides, by_seed, strict=True):
            if seed not in known:
                raise UsageError(
                    f"{side.name} has no run with seed {seed}. It has: {', '.join(map(str, sorted(known)))}."
                )
        return [known[seed] for known in by_seed]
    common = sorted(set.intersection(*(set(known) for known in by_seed)))
    here = [key for key in common if all(_detections(known[key]).is_file() for known in by_seed)]
    if here or common:
        return [known[(here or common)[0]] for known in by_seed]
    return [known[min(known)] for known in by_seed]


def _never_run(side: Side, every: Selection) -> str:
    """With the profiles that have records of the row, where others have some."""
    from harness.report.compare.operands import sides_elsewhere

    parts = [
        f"No finished run of {side.name} is here at profile {every.profile.name}.",
        sides_elsewhere([side.name], every),
        f"Train it: {side.command}" if side.command else "",
    ]
    return " ".join(part for part in parts if part)


def _detections(item: Measured) -> Path:
    """Beside the record or, where a record's file was given alone, in the folder of its run."""
    from harness.figures.images.scenes import DETECTIONS

    beside = item.matches.parent / DETECTIONS
    return beside if beside.is_file() else item.run.evaluation(item.record.eval_id) / DETECTIONS


def _scene(side: Side, item: Measured, every: Selection, data: Path | None, min_score: float | None) -> Scene:
    from harness.figures.images.scenes import open_scene, scene_data

    root = scene_data(item.record, data, every.store.runs)
    return open_scene(side.name, item.record, _detections(item), root, least=min_score, command=side.command)


def _folder_name(sides: list[Side]) -> str:
    names = "-".join(["images", *(side.name for side in sides)])
    return re.sub(r"[^A-Za-z0-9._]+", "-", names).strip("-.")[:80]
