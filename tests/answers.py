"""Answers of the evaluation server in its several wordings."""

from __future__ import annotations

import json

from detector.evaluation.scoring import METRICS
from detector.evaluation.test_dev.answer import KEYS

TEST_DEV = "test-dev2017"
# The paper's R-101 row, and recalls, as fractions.
NUMBERS = (0.417, 0.609, 0.448, 0.235, 0.449, 0.531, 0.333, 0.541, 0.572, 0.371, 0.612, 0.727)
PERCENT = dict(zip(METRICS, (41.7, 60.9, 44.8, 23.5, 44.9, 53.1, 33.3, 54.1, 57.2, 37.1, 61.2, 72.7), strict=True))


def summary_text(numbers: tuple[float, ...] = NUMBERS) -> str:
    """The twelve lines in pycocotools' wording."""
    kinds = [("Precision", "AP")] * 6 + [("Recall", "AR")] * 6
    ious = ["0.50:0.95", "0.50", "0.75", *["0.50:0.95"] * 9]
    areas = ["all", "all", "all", "small", "medium", "large"] * 2
    limits = [100, 100, 100, 100, 100, 100, 1, 10, 100, 100, 100, 100]
    return "".join(
        f" {f'Average {long}':<18} ({short}) @[ IoU={iou:<9} | area={area:>6} | maxDets={limit:>3} ] = {value:0.3f}\n"
        for (long, short), iou, area, limit, value in zip(kinds, ious, areas, limits, numbers, strict=True)
    )


def scores_text(numbers: tuple[float, ...] = NUMBERS) -> str:
    return "".join(f"{key}: {value}\n" for key, value in zip(KEYS, numbers, strict=True))


def json_text(numbers: tuple[float, ...] = NUMBERS, split: str = TEST_DEV) -> str:
    return json.dumps([{split: dict(zip(KEYS, numbers, strict=True))}])
