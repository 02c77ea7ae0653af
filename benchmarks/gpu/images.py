"""A COCO root of generated images with the sizes that COCO has, for machines without the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.coco_sizes import drawn
from detector.data.coco.files import annotation_file

NUM_CLASSES = 80
PARTS = {"train2017": 80, "val2017": 16}  # images


def make_images(root: Path) -> Path:
    """Write train2017 and val2017 under ``root``: JPEGs of patches and noise, 1 to 14 boxes in each."""
    for number, (split, count) in enumerate(PARTS.items()):
        random, generator = np.random.default_rng(number), torch.Generator().manual_seed(number)
        (root / split).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, (width, height) in enumerate(drawn(count, generator), 1000 * number + 1):
            name = f"{index:012d}.jpg"
            patches = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
            pixels = np.asarray(patches.resize((width, height)), dtype=np.int16)
            pixels = pixels + random.integers(-20, 21, (height, width, 1), dtype=np.int16)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name, quality=90)
            images.append({"id": index, "file_name": name, "width": width, "height": height})
            annotations += _boxes(random, index, width, height, first=len(annotations) + 1)
        categories = [{"id": number, "name": f"class {number}"} for number in range(1, NUM_CLASSES + 1)]
        file = annotation_file(root, split)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


def _boxes(random: np.random.Generator, image: int, width: int, height: int, *, first: int) -> list[dict[str, Any]]:
    boxes = []
    for number in range(int(random.integers(1, 15))):
        w, h = width * random.uniform(0.05, 0.5), height * random.uniform(0.05, 0.5)
        x, y = random.uniform(0, width - w), random.uniform(0, height - h)
        boxes.append(
            {
                **{"id": first + number, "image_id": image, "iscrowd": 0, "area": round(w * h, 2)},
                **{
                    "category_id": int(random.integers(1, NUM_CLASSES + 1)),
                    "bbox": [round(v, 2) for v in (x, y, w, h)],
                },
            }
        )
    return boxes
