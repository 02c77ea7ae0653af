"""Small COCO roots of a user's own, with one thing odd in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (40, 30)


def root_of(
    root: Path,
    *,
    boxes: Sequence[dict[str, Any]] = ({},),
    names: dict[str, Sequence[str]] | None = None,
    orientation: int = 1,
    size: tuple[int, int] = SIZE,
    first_id: int = 1,
    images: int = 2,
) -> Path:
    """train and val: ``images`` images of 40 x 30 pixels, whose annotations say ``size``, each with the same boxes."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        ids = range(first_id, first_id + images)
        plain = {"category_id": 1, "bbox": [4, 5, 10, 8], "area": 80, "iscrowd": 0}
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]} for i in ids],
            "annotations": [
                {**plain, **box, "id": 9 * i + k, "image_id": i} for i in ids for k, box in enumerate(boxes)
            ],
            "categories": [{"id": k, "name": n} for k, n in enumerate((names or {}).get(split, ("a", "b")), 1)],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (root / split).mkdir()
        for i in ids:
            Image.new("RGB", SIZE, (i % 200, 90, 90)).save(root / split / f"{i}.jpg", exif=exif)
    return root
