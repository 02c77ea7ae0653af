"""``harness data browse``: images of a data set with their boxes and anchors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from detector.errors import UsageError
from harness.cli import completion
from harness.cli.options import ForceOption, ProfileOption, put, refuse, say

MOST_IMAGES = 2000


def add_to(app: typer.Typer) -> None:
    """Add the command to ``harness data``."""
    app.command(short_help="Draw images of a COCO root with boxes and anchors.")(browse)


def browse(
    context: typer.Context,
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="COCO root: annotations/, train2017/, val2017/.")],
    split: Annotated[
        str | None,
        typer.Option("--split", help="Default: the one that is trained on.", autocompletion=completion.splits),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="New folder for the page. Default: browse-SPLIT.")
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, max=MOST_IMAGES, help="How many, spread evenly over the split.")
    ] = 24,
    ids: Annotated[
        list[str] | None, typer.Option("--ids", metavar="ID", help="These images instead (repeatable, or with commas).")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--classes", metavar="NAME", help="Only images with a box of this category (repeatable)."),
    ] = None,
    row: Annotated[
        str,
        typer.Option(
            "--row",
            metavar="TABLE/ROW",
            help="Match anchors as this row's training does.",
            autocompletion=completion.rows,
        ),
    ] = "table2/L6",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Match anchors as this recipe does.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    profile: ProfileOption = "paper",
    force: ForceOption = False,
) -> None:
    """Write a page of images with their boxes, and what a training's matching makes of them.

    Each box shows how many anchors learn it; boxes that no anchor learns are called out, crowds are hatched, and an
    image that cannot be read is shown as such. FOLDER/index.html opens in a browser.
    """
    from harness.figures.images.browse import browse as browsed
    from harness.figures.images.browse import chosen_split
    from harness.figures.images.gallery import claim_gallery, write_gallery
    from harness.registry.load import Registry
    from harness.registry.resolve import eval_job, resolve, resolve_recipe

    if recipe is not None:
        refuse(context, ["row"], f"and --recipe {recipe} are two settings. Give one of them.")
    if ids:
        refuse(context, ("images", "classes"), "chooses images; --ids names them. Leave it out.")
    wanted = _numbers(ids or [])
    registry = Registry()
    at = registry.profile(profile)
    found = resolve(registry, row, at) if recipe is None else resolve_recipe(registry, recipe, at)
    name = chosen_split(root, split)
    target = claim_gallery(out or Path(f"browse-{name}"), force=force)
    gallery = browsed(
        eval_job(found, 0).train,
        root,
        name,
        ids=wanted,
        classes=classes or [],
        count=images,
        setting=f"{row if recipe is None else recipe} at profile {profile}",
    )
    written = write_gallery(target, gallery)
    put(written.page)
    say(f"Images of {name}: {gallery.count:,}. {gallery.sections[0].text}")
    if written.unread:
        say(written.note(root))


def _numbers(texts: list[str]) -> list[int]:
    """Raises UsageError for what is no id."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(r"-?\d{1,18}", part):
            raise UsageError(f"--ids {part!r}: an image's id is a whole number, such as 139.")
    return [int(part) for part in parts]
