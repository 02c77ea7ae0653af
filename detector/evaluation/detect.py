"""Boxes on images: what ``harness detect`` draws and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from detector.errors import DataError, UsageError
from detector.evaluation.load import Found, load_run, open_upright
from detector.evaluation.pictures.draw import Drawn, draw
from detector.evaluation.pictures.marks import COLOURS, LINES, Mark, short_name
from detector.runs.folder import RunDir
from detector.runs.job import TestSettings
from detector.storage.files import write_atomic, write_json
from detector.storage.outputs import claim_file

RESULT_FILE = "detections.json"


@dataclass(frozen=True)
class Drawing:
    """A file with the boxes of one image.

    factor: how many of its pixels stand for one of the image's. unlabelled: boxes whose label found no place.
    """

    path: Path
    objects: int
    factor: float
    unlabelled: int


def detect_files(
    run: RunDir,
    images: Sequence[Path],
    out: Path,
    *,
    test: TestSettings | None,
    min_score: float,
    device: str,
    force: bool = False,
) -> list[Drawing]:
    """Detect on every file, draw what scores at least ``min_score`` into ``out``, and write all of it as JSON.

    Small images are drawn enlarged; the boxes in the JSON are in pixels of the image itself. force: replace drawings
    that are there, but none of ``images``, by whatever path or link. Raises DataError for a file that is no image, or
    two files of one name, and UsageError for a drawing that is there, before anything is written.
    """
    opened = [open_upright(path) for path in images]
    names = [path.stem for path in images]
    folded = [name.casefold() for name in names]  # some file systems know no case
    twice = {name for name in names if folded.count(name.casefold()) > 1}
    if twice:
        raise DataError(f"Two images are called {sorted(twice)[0]!r}; their drawings would overwrite each other.")
    targets = [out / f"{name}.png" for name in names]
    _claim([*targets, out / RESULT_FILE], images, force=force)
    trained = load_run(run.root, device=device, test=test)
    written, results = [], {}
    for path, image, target in zip(images, opened, targets, strict=True):
        every = [_rounded(entry) for entry in trained.detect(image)]
        found = [entry for entry in every if entry.score >= min_score]
        drawn = draw_found(image, found)
        write_atomic(target, partial(drawn.picture.save, format="PNG"))
        written.append(Drawing(target, len(found), drawn.factor, drawn.unlabelled))
        results[str(path)] = found
    write_json(out / RESULT_FILE, results)
    return written


def _claim(targets: Sequence[Path], images: Sequence[Path], *, force: bool) -> None:
    for target in targets:
        if claim_file(target, force=force).exists() and any(target.samefile(image) for image in images):
            raise UsageError(f"{target} is one of the images; its drawing does not replace it. Give another --out.")


def draw_found(image: Image.Image, found: Sequence[Found]) -> Drawn:
    """The image with boxes, names and scores; the best are drawn last, on top. A category has one colour and line."""
    names = sorted({entry.name for entry in found})
    marks = []
    for entry in sorted(found, key=lambda entry: -entry.score):
        turn, number = divmod(names.index(entry.name), len(COLOURS))
        text = f"{short_name(entry.name)} {entry.score:.2f}"
        marks.append(Mark(entry.box, text, COLOURS[number], LINES[turn % len(LINES)]))
    return draw(image.convert("RGB"), marks)


def _rounded(found: Found) -> Found:
    x1, y1, x2, y2 = (round(side, 2) for side in found.box)
    return Found(found.name, round(found.score, 4), (x1, y1, x2, y2))
