"""Random truth and detections with every kind of error, for our count of lost AP and for tidecv's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEEDS = range(12)
IMAGES = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]
CATEGORIES = [3, 7, 20, 90]
SIDE = 640
Box = list[float]


@dataclass(frozen=True)
class Problem:
    """truth: id, image, category, x y w h, area, crowd. found: image, category, x y w h, score."""

    truth: list[tuple[int, int, int, Box, float, int]]
    found: list[tuple[int, int, Box, float]]

    def ranked(self) -> list[tuple[int, int, Box, float]]:
        """``found`` with scores that all differ, in the order of COCO: of equal ones, the first image's first."""
        order = sorted(range(len(self.found)), key=lambda i: (-self.found[i][3], self.found[i][0], i))
        score = {i: 1 - rank / (1 + len(order)) for rank, i in enumerate(order)}
        return [(*row[:3], score[i]) for i, row in enumerate(self.found)]


def problem(seed: int) -> Problem:
    """Odd seeds have tied scores; of every third, category 90 has no truth. Image 10 has no truth, 120 no detections.

    Images have from 1 to some 16 boxes of all sizes, some of them crowds; each is found up to four times, well, badly,
    under another name, or not at all.
    """
    rng = np.random.default_rng(seed)
    truth: list[tuple[int, int, int, Box, float, int]] = []
    found: list[tuple[int, int, Box, float]] = []

    def score() -> float:
        drawn = float(np.float32(rng.random()))
        return round(drawn, 1) if seed % 2 else drawn

    for image in IMAGES[1:]:
        for _ in range(int(rng.choice([1, 1, 2, 3, 4, 6, 9, 16]))):
            size = np.exp(rng.uniform(2.2, 5.6, 2)).round(2)
            corner = (rng.random(2) * (SIDE - size)).round(2)
            category = int(rng.choice(CATEGORIES[: 3 if seed % 3 == 0 else 4]))
            box = [*corner.tolist(), *size.tolist()]
            crowd = int(rng.random() < 0.12)
            truth.append((len(truth) + 1, image, category, box, float(size.prod()) * 0.9, crowd))
            for _ in range(int(rng.integers(0, 5)) if image != IMAGES[-1] else 0):
                spread = rng.choice([0.02, 0.15, 0.4])
                moved = np.array(box) + rng.normal(0, spread, 4) * np.array([*size, *size])
                guess = category if rng.random() < 0.75 else int(rng.choice(CATEGORIES))
                found.append((image, guess, [*moved[:2].tolist(), *np.abs(moved[2:]).tolist()], score()))
    for _ in range(25):
        size = np.exp(rng.uniform(2.2, 5, 2))
        corner = rng.random(2) * (SIDE - size)
        image = int(rng.choice(IMAGES[:-1]))
        found.append((image, int(rng.choice(CATEGORIES)), [*corner.tolist(), *size.tolist()], score()))
    return Problem(truth, found)
