"""Boxes on images: what ``harness detect`` draws and writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from detector.errors import DataError, UsageError
from detector.evaluation.load import Found, load_run, open_upright
from detector.runs.folder import RunDir
from detector.runs.job import TestSettings
from detector.storage.files import write_atomic, write_json
from detector.storage.outputs import claim_file

RESULT_FILE = "detections.json"
# Okabe and Ito's colours, told apart by the colour-blind too.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def detect_files(
    run: RunDir,
    images: Sequence[Path],
    out: Path,
    *,
    test: TestSettings | None,
    min_score: float,
    device: str,
    force: bool = False,
) -> list[tuple[Path, int]]:
    """Detect on every file, draw what scores at least ``min_score`` into ``out``, and write all of it as JSON.

    force: replace drawings that are there, but none of ``images``. Returns the drawn files with their numbers of
    boxes. Raises DataError for a file that is no image, or two files of one name, and UsageError for a drawing that is
    there, before anything is written.
    """
    opened = [open_upright(path) for path in images]
    names = [path.stem for path in images]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"Two images are called {sorted(twice)[0]!r}; their drawings would overwrite each other.")
    targets = [out / f"{name}.png" for name in names]
    _claim([*targets, out / RESULT_FILE], images, force=force)
    trained = load_run(run.root, device=device, test=test)
    written, results = [], {}
    for path, image, target in zip(images, opened, targets, strict=True):
        every = [_rounded(entry) for entry in trained.detect(image)]
        found = [entry for entry in every if entry.score >= min_score]
        write_atomic(target, partial(draw(image, found).save, format="PNG"))
        written.append((target, len(found)))
        results[str(path)] = found
    write_json(out / RESULT_FILE, results)
    return written


def _claim(targets: Sequence[Path], images: Sequence[Path], *, force: bool) -> None:
    for target in targets:
        if claim_file(target, force=force).exists() and any(target.samefile(image) for image in images):
            raise UsageError(f"{target} is one of the images; its drawing does not replace it. Give another --out.")


def draw(image: Image.Image, found: Sequence[Found]) -> Image.Image:
    """A copy of the image with boxes, names and scores; the best are drawn last, on top."""
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(min(drawn.size) / 200))
    font = ImageFont.load_default(size=max(11, round(min(drawn.size) / 32)))
    names = sorted({entry.name for entry in found})
    for entry in sorted(found, key=lambda entry: entry.score):
        colour = COLOURS[names.index(entry.name) % len(COLOURS)]
        pen.rectangle(entry.box, outline=colour, width=width)
        text = f"{entry.name} {entry.score:.2f}"
        x1, y1, _, _ = entry.box
        left, _, right, bottom = pen.textbbox((0, 0), text, font=font)
        y = max(0, y1 - bottom - 2)
        pen.rectangle((x1, y, x1 + right - left + 4, y + bottom + 2), fill=colour)
        pen.text((x1 + 2, y), text, fill="black", font=font)
    return drawn


def _rounded(found: Found) -> Found:
    x1, y1, x2, y2 = (round(side, 2) for side in found.box)
    return Found(found.name, round(found.score, 4), (x1, y1, x2, y2))
