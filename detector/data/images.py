"""Decodes the image files of a split."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from detector.data.coco.index import CocoIndex
from detector.errors import DataError
from detector.storage.retry import retry


def open_image(index: CocoIndex, position: int) -> Image.Image:
    """Decode one image as RGB. Raises DataError naming the file where it is missing, broken or of another size."""
    path = index.image_path(position)
    try:
        decoded = retry(lambda: _decode(path), f"reading {path}")
    except (OSError, SyntaxError) as error:
        raise DataError(
            f"{path} (image id {index.image_ids[position]}) cannot be read: {error}. "
            f"Run 'harness data verify {index.root}'."
        ) from error
    if decoded.size != (index.widths[position], index.heights[position]):
        raise DataError(
            f"{path} (image id {index.image_ids[position]}) is {decoded.width}x{decoded.height} pixels; its annotation "
            f"says {index.widths[position]}x{index.heights[position]}. Run 'harness data verify {index.root}'."
        )
    return decoded


def _decode(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
