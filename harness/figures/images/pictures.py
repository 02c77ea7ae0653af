"""A few pictures of each row for the report, where its runs' folders and their data are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from detector.errors import DataError, HarnessError
from detector.runs.job import Shapes
from detector.runs.record import Record
from harness.figures.images.choose import Change, best_and_worst, changed, image_aps
from harness.figures.images.panels import SMALL, Shown, counts, pair, panel
from harness.figures.images.scenes import DETECTIONS, Scene, open_data, open_scene, scene_data, synth_command
from harness.planning.selection import Selection
from harness.planning.unequal import choose

MOST_BYTES: Final = 14_000  # aimed at, of a picture; a pair has half as many again; the least quality may need more
_HOW: Final = "'harness images ROW' says what is wrong, and the command that mends it."


@dataclass(frozen=True)
class Picture:
    """A picture of a report. jpeg: the file's bytes, the same for the same runs; alt: for who does not see it.

    row: the row that it is of; "" where that is not known.
    """

    title: str
    caption: str
    jpeg: bytes
    width: int
    height: int
    alt: str
    row: str = ""


def pictures_of(selection: Selection) -> list[Picture]:
    """Of each row its worst image, its best, and the one that changed most against the first row of its table.

    Of one seed, the lowest that is here. Empty where no run's folder is here, or not the data: ``why_none``. A
    training that fills several rows is shown once.
    """
    records, shown = selection.row_records(), set[str]()
    firsts: dict[tuple[str, int], Scene | None] = {}
    pictures: list[Picture] = []
    for ref in selection.refs:
        scene = _scene(selection, ref, records.get(ref, []))
        if scene is None or scene.record.eval_id in shown:
            continue
        shown.add(scene.record.eval_id)
        first = selection.registry.table(ref.partition("/")[0]).refs(selection.profile.name)[0]
        key = (first, scene.record.job.train.seed)
        if key not in firsts:
            firsts[key] = scene if first == ref else _scene(selection, first, records.get(first, []), seed=key[1])
        pictures += _extremes(scene)
        reference = firsts[key]
        if reference is not None and reference.record.eval_id != scene.record.eval_id:
            pictures += _most_changed(scene, reference)
    return pictures


def why_none(selection: Selection) -> str:
    """Why there are no pictures, and the command that would give some; "" where there are."""
    command = f"harness run {selection.target} --profile {selection.profile.name}"
    records = selection.row_records()
    every = [record for ref in selection.refs for record in records.get(ref, ())]
    if not every:
        return f"No finished run of {selection.target} is here at profile {selection.profile.name}. Train it: {command}"
    here = [record for record in every if _detections(selection, record).is_file()]
    if not here:
        if any(_detections(selection, record).parent.is_dir() for record in every):
            return f"The runs' folders are here, but not their detections. {_HOW}"
        return (
            "Images are drawn from the detections in a run's folder, which a record does not hold, and the folders of "
            f"these runs are not here. Set HARNESS_RUNS to the folder that has them, or make them again: {command}"
        )
    try:
        open_data(here[0], scene_data(here[0], selection.given_data, selection.store.runs))
    except HarnessError:
        source = here[0].job.train.data
        how = "Set HARNESS_DATA to its folder."
        if isinstance(source, Shapes):
            folder = f'"$HARNESS_RUNS/data/{_folder(source)}"'
            how = f"Make it again: {synth_command(source, folder)}"
        return f"The folders of the runs are here, but not the data set that their images are of. {how}"
    if all(_scene(selection, ref, records.get(ref, [])) is None for ref in selection.refs):
        return f"The detections of these runs cannot be read. {_HOW}"
    return ""


def _folder(source: Shapes) -> str:
    from detector.data.shapes.generate import shapes_folder_name

    return shapes_folder_name(source)


def _detections(selection: Selection, record: Record) -> Path:
    return selection.store.run_dir(record.train_id).evaluation(record.eval_id) / DETECTIONS


def _scene(selection: Selection, ref: str, records: Sequence[Record], *, seed: int | None = None) -> Scene | None:
    """The row's evaluation of the lowest seed, or of this one, that can be opened here."""
    for record in sorted(choose(records).kept, key=lambda record: record.job.train.seed):
        path = _detections(selection, record)
        if seed not in (None, record.job.train.seed) or not path.is_file():
            continue
        with suppress(HarnessError):  # ``harness images`` says what is wrong
            return open_scene(ref, record, path, scene_data(record, selection.given_data, selection.store.runs))
    return None


def _extremes(scene: Scene) -> Iterator[Picture]:
    best, worst = best_and_worst(scene, 1)
    values = image_aps(scene)
    for which, positions in (("worst", worst), ("best", best)):
        for position in positions:
            ap = f"AP50 {100 * values[position]:.1f}"
            name = f"image {scene.index.image_ids[position]}"
            picture = panel(scene, position, [f"{scene.name}, {which}: {name}, {ap}"], SMALL)
            caption = (
                f"The {which} image of {_run(scene)}, {name}: {ap}; {counts(scene, position)}. "
                f"Drawn are {scene.threshold}."
            )
            yield _picture(scene, f"{scene.name}: {which} image", caption, picture, MOST_BYTES)


def _most_changed(scene: Scene, reference: Scene) -> Iterator[Picture]:
    with suppress(DataError):  # of other images
        one = max((found[0] for found in changed(scene, reference, 1) if found), key=_change, default=None)
        if one is not None:
            both = ((scene, one.ap), (reference, one.other))
            titles = [[f"{each.name}: AP50 {100 * ap:.1f}"] for each, ap in both]
            name = f"image {scene.index.image_ids[one.position]}"
            said = "; ".join(
                f"{_run(each)}: {counts(each, one.position)}, at {each.least:.2f} or more" for each, _ in both
            )
            caption = f"The image that changed most between {scene.name} and {reference.name}, {name}. {said}."
            picture = pair((scene, reference), one.position, (titles[0], titles[1]), SMALL)
            title = f"{scene.name} and {reference.name}: most changed"
            yield _picture(scene, title, caption, picture, MOST_BYTES * 3 // 2)


def _change(one: Change) -> float:
    return abs(one.ap - one.other)


def _run(scene: Scene) -> str:
    return f"{scene.name} (seed {scene.record.job.train.seed})"


def _picture(scene: Scene, title: str, caption: str, shown: Shown, most: int) -> Picture:
    from detector.evaluation.pictures.frame import jpeg

    picture, words = shown.picture, f"{caption}{shown.note}"
    return Picture(title, words, jpeg(picture, most=most), picture.width, picture.height, words, scene.name)
