"""``harness data``: make, shrink, download and check COCO-format data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detector.errors import UsageError
from detector.runs.job import LARGEST, MAX_IMAGES, MAX_PIXELS, Shapes
from harness.cli import completion
from harness.cli.options import AsJson, print_json, put, say

app = typer.Typer(help="Make, shrink, download and check COCO-format data sets.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the new data set.")]
SplitsOption = Annotated[
    list[str] | None,
    typer.Option("--split", help="Only this split (repeatable).", autocompletion=completion.splits),
]


@app.command(short_help="Draw a set of shapes.")
def synth(
    out: OutOption,
    size: Annotated[int, typer.Option(min=32, max=MAX_PIXELS, help="Side of the images in pixels.")] = 96,
    train: Annotated[int, typer.Option(min=1, max=MAX_IMAGES, help="Training images.")] = 2000,
    test: Annotated[int, typer.Option(min=1, max=MAX_IMAGES, help="Test images.")] = 300,
    classes: Annotated[int, typer.Option(min=1, max=12, help="Classes of shapes.")] = 6,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Each seed gives another set.")] = 0,
) -> None:
    """Draw a set of shapes with clutter, crowds and empty images, the same each time.

    The defaults are those of the tiny profile.
    """
    from detector.data.shapes.generate import GENERATOR_VERSION, generate_shapes
    from harness.console.bars import count_bar
    from harness.machine import usable_cores

    spec = Shapes(version=GENERATOR_VERSION, seed=seed, size=size, num_train=train, num_test=test, num_classes=classes)
    with count_bar("drawing", train + test) as advance:
        generate_shapes(out, spec, workers=usable_cores(), progress=advance)
    say(f"{train} training and {test} test images in {out}")


@app.command(short_help="Copy some images of a COCO root.")
def subset(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="COCO root to take images from.")],
    out: OutOption,
    images: Annotated[int, typer.Option(min=1, help="Images per split.")] = 64,
    splits: SplitsOption = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST, help="Choose at random with this seed. Default: the first by id."),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Copy also files that are only linked in the root and lie elsewhere.")
    ] = False,
) -> None:
    """Copy some images of a COCO root, with all their annotations as they are."""
    from detector.data.coco.files import known_splits
    from detector.data.coco.subset import write_subset

    chosen = splits or known_splits(source)
    if not chosen:
        raise UsageError(f"{source} has no annotations/instances_*.json. Run 'harness data verify {source}'.")
    write_subset(source, out, images, splits=chosen, seed=seed, follow_links=follow_links)
    say(f"{images} images of {', '.join(chosen)} in {out}")


@app.command()
def download(
    out: OutOption,
    images: Annotated[
        int | None, typer.Option(min=1, help="Only this many images per split. Default: the whole release, 20 GB.")
    ] = None,
    splits: SplitsOption = None,
    annotations_zip: Annotated[
        Path | None,
        typer.Option("--annotations-zip", metavar="FILE", help="annotations_trainval2017.zip, already downloaded."),
    ] = None,
) -> None:
    """Download COCO 2017, or a few of its images. After an interruption the same command goes on."""
    from detector.data.coco.download import download_coco
    from harness.console.bars import download_bar

    with download_bar() as progress:
        download_coco(
            out,
            images=images,
            splits=splits or ["train2017", "val2017"],
            annotations_zip=annotations_zip,
            progress=progress,
        )
    say(f"done: {out}. Check it with: harness data verify {out}")


@app.command(short_help="Check a COCO root.")
def verify(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="COCO root: annotations/, train2017/, val2017/.")],
    splits: SplitsOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Read the images' headers only; do not decode them.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="What is read though it is odd, such as boxes that overhang, is wrong.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a COCO root: files, images, sizes, boxes, categories, ids, counts. Exits with 1 if something is wrong.

    Where nothing is, a training on the root starts. Notes say what is read though it is odd.
    """
    from dataclasses import asdict, replace

    from detector.data.coco.problems import report_lines
    from detector.data.coco.verify import verify_root

    report = verify_root(root, splits, decode=not quick, strict=strict)
    if report.ok and not quick:
        report = replace(report, notes=(*report.notes, *_anchor_notes(root, [part.split for part in report.splits])))
    if as_json:
        print_json({**asdict(report), "root": str(report.root), "ok": report.ok, "num_problems": report.num_problems})
    else:
        for split in report.splits:
            put(
                f"{split.split}: {split.num_images:,} images, {split.num_boxes:,} boxes, {split.num_categories} "
                f"categories, {split.num_crowd:,} crowd regions, {split.num_images_without_boxes:,} images without "
                f"boxes, {split.num_boxes_without_area:,} boxes without area"
            )
        for note in report.notes:
            put(f"note: {note}")
        for line in report_lines(report.problems):
            put(f"wrong: {line}")
        put("ok" if report.ok else f"{report.num_problems:,} problems")
    if not report.ok:
        raise typer.Exit(1)


def _anchor_notes(root: Path, splits: list[str]) -> list[str]:
    """What a first batch is held to on a data set of the user's; COCO and the generated sets have their profiles'."""
    from harness.scaffold.data_set import anchor_note, has_own_ranges

    found = [split for split in splits if split.startswith("train") and has_own_ranges(root, split)]
    if not found:
        return []
    from harness.registry.load import Registry

    registry = Registry()
    return [anchor_note(registry, root, split) for split in found]
