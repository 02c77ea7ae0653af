"""The training losses of the sides, at iterations that all of them logged, and as a line of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detector.errors import RecordError
from harness.report.compare.operands import Side
from harness.store.curves import read_curve

CURVES = ("classification", "bbox_regression")
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40
POINTS = 5


@dataclass(frozen=True)
class SideCurve:
    """One curve of a side's first seed. points: iteration -> value; empty where it is unknown."""

    side: str
    curve: str
    points: Mapping[int, float]


def side_curves(sides: Sequence[Side]) -> list[SideCurve]:
    """Each curve of each side: of its record, else of its run's folder."""
    return [SideCurve(side.name, curve, _points(side, curve)) for curve in CURVES for side in sides]


def _points(side: Side, curve: str) -> dict[int, float]:
    if not side.measured:
        return {}
    record, run = side.measured[0].record, side.measured[0].run
    if record.curves is not None:
        values = record.curves.values.get(curve, ())
        pairs = zip(record.curves.iterations, values, strict=False)
        return {iteration: value for iteration, value in pairs if value is not None}
    try:
        return {int(point["iteration"]): point[curve] for point in read_curve(run) if curve in point}
    except RecordError:
        return {}


def common_iterations(curves: Sequence[SideCurve]) -> list[int]:
    """At most ``POINTS`` iterations that all known curves have, the first and the last among them."""
    known = [curve.points.keys() for curve in curves if curve.points]
    shared = sorted(set.intersection(*map(set, known))) if known else []
    if len(shared) <= POINTS:
        return shared
    return [shared[round(i * (len(shared) - 1) / (POINTS - 1))] for i in range(POINTS)]


def sparkline(points: Mapping[int, float]) -> str:
    """The curve from its lowest to its highest value, in at most ``WIDTH`` blocks of equal numbers of points."""
    values = [value for _, value in sorted(points.items())]
    size = min(WIDTH, len(values))
    cells = [values[i * len(values) // size : (i + 1) * len(values) // size] for i in range(size)]
    means = [sum(cell) / len(cell) for cell in cells]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)
