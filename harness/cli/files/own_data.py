"""``harness data fix`` and ``harness data import``: people's own data, made usable."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from detector.errors import UsageError
from harness.cli import completion
from harness.cli.files.data import SplitsOption
from harness.cli.options import AsJson, finite, print_json, put, say


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``harness data``."""
    app.command(short_help="Write a mended copy of a COCO root.")(fix)
    app.command("import", short_help="Make a COCO root of another tool's export.")(import_)


def fix(
    source: Annotated[Path, typer.Argument(metavar="IN", help="COCO root to mend; it is only read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the mended copy.")],
    splits: SplitsOption = None,
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


def import_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FORM] IN",
            help="Folder (or file) of the export. FORM: auto, voc, yolo, cvat, label-studio, via or roboflow.",
            autocompletion=completion.choices(("auto", "voc", "yolo", "cvat", "label-studio", "via", "roboflow")),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="ROOT", help="New folder for the COCO root.")],
    val: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            callback=finite,
            help="Share of the images to hold out. Default: the export's splits, else 0.2.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="auto|video|folder|none|PATTERN",
            help="What stays together: images whose names differ in their last number only (auto, video), a folder's, "
            "none, or those for which a regular expression finds the same.",
            autocompletion=completion.choices(("auto", "video", "folder", "none")),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Each seed draws another split.")] = 0,
    zero_based: Annotated[
        bool, typer.Option("--zero-based", help="VOC: corners are edges of pixels from 0. Default: pixels from 1.")
    ] = False,
    attribute: Annotated[
        str | None, typer.Option("--label-attribute", metavar="NAME", help="VIA: which attribute is the class.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Hard links to the images in place of copies.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a COCO root of an export of Pascal VOC, YOLO, CVAT, Label Studio, VIA or Roboflow.

    Whatever is left out or changed is told by kind; ROOT/import.json has the whole list.
    """
    from detector.data.imports.write import LIST, import_data

    if len(words) > 2:
        raise UsageError(f"Give a form and one folder, or the folder alone, not {shlex.join(words)}.")
    form, source = ("auto", words[0]) if len(words) == 1 else (words[0], words[1])
    made = import_data(
        Path(source),
        out,
        form=form,
        val=val,
        group=group,
        seed=seed,
        zero_based=zero_based,
        attribute=attribute,
        link=link,
    )
    if as_json:
        counts = {"images": made.images, "boxes": made.boxes}
        about = {"form": made.form, "split": made.split, "names": made.names}
        print_json({**about, **counts, "told": made.told.as_json()})
    else:
        put(f"form: {made.form}{' (detected)' if form == 'auto' else ''}")
        _print("told", made.told.lines())
        put(f"split: {made.split}")
    say(_counts(out, made.images, made.boxes))
    say(f"The whole list: {out / LIST}. Next:")
    for command in _next(out, made.images):
        say(f"  {command}")


def _next(out: Path, splits: Iterable[str]) -> list[str]:
    """The commands from a root to a training."""
    from harness.scaffold.places import experiments_place

    name = re.sub(r"[^a-z0-9]+", "-", out.resolve().name.lower()).strip("-") or "mine"
    commands = [shlex.join(["harness", "data", "verify", str(out)])]
    if "train" in splits and {"val", "test"} & set(splits):
        place = experiments_place(None)
        commands += [shlex.join(["harness", "new", "profile", name, "--data", str(out)])]
        commands += [place.export] if place.export is not None else []
        commands += [shlex.join(["harness", "run", "table2/L6", "--profile", name, "--data", str(out)])]
    return commands


def _print(what: str, lines: Iterable[str]) -> None:
    for line in lines:
        put(f"{what}: {line}")


def _counts(out: Path, images: dict[str, int], annotations: dict[str, int]) -> str:
    parts = [f"{split}: {images[split]:,} images, {annotations[split]:,} boxes" for split in images]
    return f"{out}: {'; '.join(parts)}"
