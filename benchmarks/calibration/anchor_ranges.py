"""How many anchors per image match on a data set: the source of the profiles' ``anchor_ranges``.

    python -m benchmarks.calibration.anchor_ranges --profile paper --data COCO [--split train2017] [--images 80]

Counts, over the first images of the split, the anchors per image that are positive and those whose IoU lies between 0.4
and that of the positives, and the means over 2,000 random batches of the profile's size. Beside them it counts the same
with boxes that are read wrongly, which shows the mistakes that a range can see.
Results: benchmarks/results/anchor_ranges.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.data.coco.index import load_index
from detector.sanity.anchor_counts import Change, anchor_counts, batch_means
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve

RESULTS = Path(__file__).parents[1] / "results" / "anchor_ranges.json"

MISTAKES: dict[str, Change] = {
    "right": lambda boxes, _: boxes,
    "in 0..1": lambda boxes, shape: boxes / np.tile(shape[::-1], 2),
    "xywh": lambda boxes, _: np.concatenate(
        [boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], boxes[:, :2] + 1)], axis=1
    ),
}


def summary(counts: NDArray[np.int64], batch: int) -> dict[str, list[float]]:
    """Mean per image, and the lowest and highest mean of a batch."""
    means = batch_means(counts, batch)
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
    looked_at = range(min(arguments.images, index.num_images))
    found = {
        name: summary(anchor_counts(job, index, looked_at, mistake), job.batch.images)
        for name, mistake in MISTAKES.items()
    }
    results = msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {}
    results[arguments.profile] = {"images": arguments.images, "batch": job.batch.images, "[mean, low, high]": found}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(msgspec.json.format(msgspec.json.encode(results[arguments.profile]), indent=2).decode())


if __name__ == "__main__":
    main()
