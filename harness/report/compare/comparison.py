"""Everything that ``harness compare`` says, as data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from detector.runs.findings import LostAP
from harness.planning.selection import Selection
from harness.report.compare.conditions import Unequal, unequal_conditions, unequal_inputs, unequal_settings
from harness.report.compare.curves import SideCurve, common_iterations, side_curves
from harness.report.compare.errors import Errors, side_errors
from harness.report.compare.noise import SHOWN, Contrast, contrast, image_draws
from harness.report.compare.operands import Side, find_sides, sides_elsewhere
from harness.verdicts.images import mean_of, standard_errors


@dataclass(frozen=True)
class SideMean:
    """A metric's mean over the seeds, their deviation, and the standard error of the mean from the images."""

    mean: float
    sd: float | None
    images: float | None


@dataclass(frozen=True)
class SideView:
    """One side with its numbers. lost_ap: means by kind of error; None where a record does not have them.

    images_unknown: why the test set's noise is unknown; None where it is known.
    """

    name: str
    seeds: tuple[int, ...]
    trainings: tuple[str, ...]
    metrics: dict[str, SideMean]
    lost_ap: dict[str, float] | None
    images_unknown: str | None
    command: str | None


@dataclass(frozen=True)
class Comparison:
    """All sides, each but the first against the first, and in what they differ.

    elsewhere: which other profiles have records, where no side has one.
    """

    profile: str
    sides: tuple[SideView, ...]
    contrasts: tuple[Contrast, ...]
    errors: Errors
    settings: tuple[Unequal, ...]
    inputs: tuple[Unequal, ...]
    conditions: tuple[Unequal, ...]
    curves: tuple[SideCurve, ...]
    elsewhere: str = ""


def compare(names: Sequence[str], profile: str, data: Path | None) -> Comparison:
    """Everything about the named things, in their order. Raises as ``find_sides``."""
    sides = find_sides(names, profile, data)
    draws, missing = image_draws(sides)
    run = [side for side in sides if side.measured]
    return Comparison(
        profile=profile,
        sides=tuple(_view(side, draws.get(side.name), missing.get(side.name)) for side in sides),
        contrasts=tuple(contrast(run[0], side, draws) for side in run[1:] if run[0] is sides[0]),
        errors=side_errors(sides, data),
        settings=tuple(unequal_settings(sides)),
        inputs=tuple(unequal_inputs(run)),
        conditions=tuple(unequal_conditions(run)),
        curves=tuple(side_curves(run)),
        elsewhere="" if run else sides_elsewhere(names, Selection("all", profile, [], data)),
    )


def _view(side: Side, draws: Any, missing: str | None) -> SideView:
    errors = standard_errors(mean_of(list(draws.values()))) if draws is not None else {}
    metrics = {}
    for name in SHOWN:
        found = [item.record.metrics.get(name) for item in side.measured]
        values = [value for value in found if value is not None]
        if values:
            sd = statistics.stdev(values) if len(values) > 1 else None
            metrics[name] = SideMean(statistics.fmean(values), sd, errors.get(name))
    return SideView(
        name=side.name,
        seeds=side.seeds,
        trainings=tuple(item.record.train_id for item in side.measured),
        metrics=metrics,
        lost_ap=_lost(side),
        images_unknown=missing,
        command=side.command,
    )


def _lost(side: Side) -> dict[str, float] | None:
    found = [item.record.lost_ap for item in side.measured]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    return {name: statistics.fmean(getattr(one, name) for one in known) for name in LostAP.__struct_fields__}


def as_data(view: Comparison) -> dict[str, Any]:
    """For JSON. Of the curves, the iterations that all sides share."""
    data: dict[str, Any] = to_builtins(view)
    shared = common_iterations(view.curves)
    curves = [
        {"side": curve.side, "curve": curve.curve, "points": {str(i): curve.points[i] for i in shared}}
        for curve in view.curves
        if curve.points
    ]
    return data | {"curves": curves}
