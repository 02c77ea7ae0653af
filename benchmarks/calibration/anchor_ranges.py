"""How many anchors per image match on a data set: the source of the profiles' ``anchor_ranges``.

    python benchmarks/calibration/anchor_ranges.py --profile paper --data COCO [--split train2017] [--images 80]

Counts, over the first images of the split, the anchors per image that are positive and those whose IoU lies between 0.4
and that of the positives, and the means over 2,000 random batches of the profile's size. Beside them it counts the same
with boxes that are read wrongly, which shows the mistakes that a range can see.
Results: benchmarks/results/anchor_ranges.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex, load_index
from detector.data.transforms import resized_size
from detector.geometry.boxes import trainable_corners
from detector.geometry.padding import padded_shape
from detector.model.anchors import AnchorSettings, grid_anchors
from detector.model.assign import assign_anchors
from detector.runs.job import TrainJob
from detector.sanity.first_batch import BORDERLINE_IOU
from drloss.labels import IGNORED
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve

RESULTS = Path(__file__).parents[1] / "results" / "anchor_ranges.json"
Boxes = NDArray[np.float64]
Shape = tuple[int, int]

MISTAKES: dict[str, Callable[[Boxes, Shape], Boxes]] = {
    "right": lambda boxes, _: boxes,
    "in 0..1": lambda boxes, shape: boxes / np.tile(shape[::-1], 2),
    "xywh": lambda boxes, _: np.concatenate(
        [boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], boxes[:, :2] + 1)], axis=1
    ),
}


def count(job: TrainJob, index: CocoIndex, images: int, mistake: Callable[[Boxes, Shape], Boxes]) -> NDArray[np.int64]:
    """[images with boxes, 2]: positive and borderline anchors of each."""
    matching = replace(job.matching, background_iou=BORDERLINE_IOU)
    first, last = job.model.fpn_levels
    strides = tuple(2**level for level in range(first, last + 1))
    found = []
    for i in range(min(images, index.num_images)):
        rows = index.annotations_of(i)
        width, height = int(index.widths[i]), int(index.heights[i])
        boxes, kept = trainable_corners(index.boxes[rows][~index.crowd[rows]], width, height, job.box_convention)
        if not kept.any():
            continue
        side = job.augmentation.short_sides[-1]
        resized = resized_size(width, height, short_side=side, max_size=job.augmentation.max_size)
        scaled = mistake(boxes[kept] * np.tile([resized[0] / width, resized[1] / height], 2), resized[::-1])
        padded = padded_shape([resized[::-1]])
        shapes = tuple((-(-padded[0] // stride), -(-padded[1] // stride)) for stride in strides)
        settings = AnchorSettings.of(job.model, job.box_convention)
        anchors = torch.cat(grid_anchors(shapes, strides, settings, image_shape=padded))
        tensor = torch.from_numpy(scaled.astype(np.float32))
        labels, _ = assign_anchors(
            anchors, tensor, torch.zeros(len(tensor), dtype=torch.int64), matching, job.box_convention
        )
        found.append((int((labels >= 0).sum()), int((labels == IGNORED).sum())))
    return np.array(found)


def summary(counts: NDArray[np.int64], batch: int) -> dict[str, list[float]]:
    """Mean per image, and the lowest and highest mean of a batch."""
    draw = np.random.default_rng(0)
    means = np.array([counts[draw.choice(len(counts), batch)].mean(axis=0) for _ in range(2000)])
    return {
        name: [round(float(value), 1) for value in (counts[:, k].mean(), means[:, k].min(), means[:, k].max())]
        for k, name in enumerate(("positives", "borderline"))
    }


def main() -> None:
    """Measure one profile and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--images", type=int, default=80)
    arguments = parser.parse_args()
    registry = Registry()
    job = eval_job(resolve(registry, "table2/L6", registry.profile(arguments.profile)), 0).train
    index = load_index(arguments.data, arguments.split)
    found = {
        name: summary(count(job, index, arguments.images, mistake), job.batch.images)
        for name, mistake in MISTAKES.items()
    }
    results = msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {}
    results[arguments.profile] = {"images": arguments.images, "batch": job.batch.images, "[mean, low, high]": found}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(msgspec.json.format(msgspec.json.encode(results[arguments.profile]), indent=2).decode())


if __name__ == "__main__":
    main()
