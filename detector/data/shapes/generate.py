"""The generated set as a COCO root: the same pixels for the same job with any number of workers. Free of torch.

Each image is a pure function of (version, seed, split, position). Bytes are equal on one installation; numpy's
and Pillow's rounding may differ between releases, which is why records carry the sha256 of the annotations.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.data.coco.files import annotation_file
from detector.data.shapes.draw import SHAPES, DrawnObject, draw_image
from detector.errors import DataError
from detector.runs.job import Shapes
from detector.storage.staging import staged_folder

GENERATOR_VERSION = 1
SPEC_FILE = "shapes.json"
SPLITS = ("train2017", "val2017")
# Per pixel, measured: 2.2 in a file (the noise leaves little to compress), 59 to 62 while an image is drawn.
BYTES_ON_DISK, BYTES_IN_MEMORY = 2, 60


def shapes_folder_name(spec: Shapes) -> str:
    """A folder name that no other spec has."""
    numbers = f"v{spec.version}-s{spec.seed}-{spec.size}px-{spec.num_classes}c-{spec.num_train}-{spec.num_test}"
    return f"shapes-{numbers}"


def generate_shapes(
    root: Path, spec: Shapes, *, workers: int = 1, progress: Callable[[int], None] | None = None
) -> None:
    """Write the set to ``root``, whole or not at all; a finished set of the same spec is left as it is.

    progress: called with the number of images just finished. Several processes may generate one set at the same time:
    the first to finish is kept. Raises DataError for a version that this generator does not draw, and where ``root``
    holds anything else, or where disk or memory are too small.
    """
    if spec.version != GENERATOR_VERSION:
        raise DataError(f"Generator version {spec.version} is not known here. Known: {GENERATOR_VERSION}.")
    if _finished(root, spec):
        return
    require_room(root, spec, workers)
    try:
        with staged_folder(root) as staging:
            for split, count in zip(SPLITS, (spec.num_train, spec.num_test), strict=True):
                _write_split(staging, spec, split, count, workers, progress)
            (staging / SPEC_FILE).write_bytes(msgspec.json.encode(spec))
    except OSError:
        if not _finished(root, spec):  # else another process was faster
            raise


def require_room(root: Path, spec: Shapes, workers: int) -> None:
    """Raise DataError where the images do not fit on the disk, or the processes that draw them into memory."""
    if lack := lack_of_disk(root, spec):
        raise DataError(f"{lack} Give fewer, or smaller ones.")
    needed, memory = workers * spec.size**2 * BYTES_IN_MEMORY, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise DataError(
            f"{workers} processes that draw images of {spec.size} px take {needed / 1e9:,.0f} GB of memory; this "
            f"machine has {memory / 1e9:,.0f} GB. Give smaller images."
        )


def lack_of_disk(root: Path, spec: Shapes) -> str:
    """A sentence where the images do not fit on the disk of their folder; else empty."""
    place = next((folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir()), Path("/"))
    count = spec.num_train + spec.num_test
    needed, free = count * spec.size**2 * BYTES_ON_DISK, shutil.disk_usage(place).free
    if needed <= free:
        return ""
    return f"{count:,} images of {spec.size} px take {_size(needed)}; {place} has {_size(free)} free."


def _size(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e6:,.0f} MB"


def _finished(root: Path, spec: Shapes) -> bool:
    """Whether ``root`` is the finished set. Raises DataError where it is something else."""
    if not os.path.lexists(root) or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / SPEC_FILE).is_file():
        raise DataError(f"{root} is not a generated set (it has no {SPEC_FILE}). Give a new folder.")
    try:
        found = msgspec.json.decode((root / SPEC_FILE).read_bytes(), type=Shapes)
    except msgspec.DecodeError as error:
        raise DataError(f"{root / SPEC_FILE}: {error}. Remove the folder and generate the set again.") from error
    if found != spec:
        raise DataError(f"{root} holds another generated set, {found}, not {spec}. Give a new folder.")
    return True


def _write_split(
    root: Path, spec: Shapes, split: str, count: int, workers: int, progress: Callable[[int], None] | None
) -> None:
    """Images of one split and, from what was drawn, its annotations."""
    (root / split).mkdir()
    write = partial(_write_image, root, spec, split)
    drawn: list[list[dict[str, Any]]] = []

    def collect(rows: list[dict[str, Any]]) -> None:
        drawn.append(rows)
        if progress is not None:
            progress(1)

    if workers <= 1:
        for index in range(count):
            collect(write(index))
    else:
        # Fresh interpreters: forking a process that runs threads is unsafe.
        try:
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                with _interrupts_blocked():
                    results = pool.map(write, range(count), chunksize=min(32, -(-count // workers)))
                for rows in results:
                    collect(rows)
        except BrokenProcessPool as error:
            raise DataError(
                f"{root / split}: a process that drew images was ended from outside, mostly by the system for lack of "
                "memory. Run the same command again when memory is free."
            ) from error
    content = {
        "info": {"description": f"Generated shapes, version {spec.version}, seed {spec.seed}", "version": "1.0"},
        "licenses": [],
        "images": [
            {"id": index + 1, "file_name": _file_name(index), "width": spec.size, "height": spec.size}
            for index in range(count)
        ],
        "annotations": [{"id": key, **row} for key, row in enumerate(chain.from_iterable(drawn), start=1)],
        "categories": [
            {"id": label + 1, "name": name, "supercategory": "shape"}
            for label, (name, _, _) in enumerate(SHAPES[: spec.num_classes])
        ],
    }
    path = annotation_file(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(content))


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """The terminal's Ctrl-C is for this process alone: processes that begin here never see it, and end with this one.

    For this process it waits until the block is left.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write_image(root: Path, spec: Shapes, split: str, index: int) -> list[dict[str, Any]]:
    """Draw and write one image; its annotations without ids."""
    seeds = np.random.SeedSequence([spec.version, spec.seed, SPLITS.index(split), index])
    pixels, objects = draw_image(np.random.Generator(np.random.Philox(seeds)), spec.size, spec.num_classes)
    # The noise leaves nothing to compress: level 1 is three times as fast and hardly larger.
    Image.fromarray(pixels).save(root / split / _file_name(index), compress_level=1)
    return [_annotation(drawn, index + 1) for drawn in objects]


def _file_name(index: int) -> str:
    return f"{index + 1:012d}.png"


def _annotation(drawn: DrawnObject, image_id: int) -> dict[str, Any]:
    """COCO's fields: the tight box (x, y, width, height) of the visible pixels and their number as the area."""
    rows, columns = (np.flatnonzero(drawn.mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "image_id": image_id,
        "category_id": drawn.label + 1,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(drawn.mask.sum()),
        "iscrowd": int(drawn.crowd),
        "segmentation": {"size": list(drawn.mask.shape), "counts": run_lengths(drawn.mask)},
    }


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run-length code: lengths of alternating runs, zeros first, down the columns."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], changes, [flat.size]])
    runs: list[int] = np.diff(bounds).tolist()
    return [0, *runs] if flat[0] else runs
