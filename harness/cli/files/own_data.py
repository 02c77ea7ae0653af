"""``harness data fix`` and ``harness data import``: people's own data, made usable."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.options import AsJson, print_json, say


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``harness data``."""
    app.command(short_help="Write a mended copy of a COCO root.")(fix)


def fix(
    source: Annotated[Path, typer.Argument(metavar="IN", help="COCO root to mend; it is only read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the mended copy.")],
    splits: Annotated[list[str] | None, typer.Option("--split", help="Only this split (repeatable).")] = None,
    boxes: Annotated[
        Literal["xywh", "xyxy", "cxcywh"] | None,
        typer.Option(metavar="xywh|xyxy|cxcywh", help="What a box's four numbers are. Default: COCO's xywh."),
    ] = None,
    categories: Annotated[
        Literal["names", "ids"] | None,
        typer.Option(metavar="names|ids", help="What decides where splits give an id different names."),
    ] = None,
    exif: Annotated[
        Literal["upright", "stored"] | None,
        typer.Option(metavar="upright|stored", help="What boxes were drawn on, for images that EXIF turns."),
    ] = None,
    merge_images: Annotated[
        bool, typer.Option("--merge-images", help="Entries of one file become one, with the annotations of all.")
    ] = False,
    drop_unclear: Annotated[
        bool, typer.Option("--drop-unclear", help="Leave out images whose annotations contradict each other.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Hard links to the images in place of copies.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a mended copy of a COCO root, and say what was done; OUT/fixes.json has the whole list.

    What only you can know is told with the option that decides it; then nothing is written, and the exit code is 1.
    """
    from detector.data.fix.draft import Choices
    from detector.data.fix.fix import LIST, fix_root

    choices = Choices(boxes, categories, exif, merge_images, drop_unclear, link)
    fixes = fix_root(source, out, splits=splits, choices=choices)
    if as_json:
        counts = {"images": fixes.images, "annotations": fixes.annotations}
        print_json({"ok": fixes.ok, **counts, "done": fixes.done.as_json(), "unclear": fixes.unclear.as_json()})
    else:
        _print("mended", fixes.done.lines())
        _print("not mended", fixes.unclear.lines())
    if not fixes.ok:
        say("Nothing was written. Say how it is meant, or mend these in the source, and run again.")
        raise typer.Exit(1)
    say(_counts(out, fixes.images, fixes.annotations))
    say(f"The whole list: {out / LIST}. Check it with: {shlex.join(['harness', 'data', 'verify', str(out)])}")


def _print(what: str, lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(f"{what}: {line}")


def _counts(out: Path, images: dict[str, int], annotations: dict[str, int]) -> str:
    parts = [f"{split}: {images[split]:,} images, {annotations[split]:,} boxes" for split in images]
    return f"{out}: {'; '.join(parts)}"
