"""Differences between two sides with both kinds of noise: the seeds', and the test set's images'."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detector.errors import DataError
from harness.registry.declarations import METRICS
from harness.report.compare.operands import Measured, Side
from harness.verdicts.estimates import paired, t_quantile, welch
from harness.verdicts.images import RESAMPLES, mean_of, resampled, same_images, standard_errors

if TYPE_CHECKING:
    from detector.evaluation.matches import Matches

SHOWN = (*METRICS, "positive_score", "negative_score")
AGREE = 1e-6  # AP points: how near the AP of the matches must be to the record's for them to be of one evaluation


@dataclass(frozen=True)
class Difference:
    """b - a in the metric's units; half widths of 95% intervals, None where unknown."""

    value: float
    seeds: float | None
    images: float | None


@dataclass(frozen=True)
class Contrast:
    """One side against the first. seeds_by, images_by: how each noise was found, or why it is unknown."""

    a: str
    b: str
    differences: dict[str, Difference]
    seeds_by: str
    images_by: str


def contrast(a: Side, b: Side, images: Mapping[str, Mapping[int, Any]]) -> Contrast:
    """``b`` minus ``a``, over the seeds that both have; over all where they share none, or one of several.

    images: as ``image_draws``.
    """
    found = pairing(a, b)
    errors = {}
    if {a.name, b.name} <= images.keys():
        draws_a, draws_b = (
            mean_of([images[side.name][seed] for seed in seeds])
            for side, seeds in ((a, found.seeds_a), (b, found.seeds_b))
        )
        errors = standard_errors(draws_b - draws_a)
    differences = {}
    for metric in SHOWN:
        values_a, values_b = _values(a, metric, found.seeds_a), _values(b, metric, found.seeds_b)
        if values_a and values_b:
            error = errors.get(metric)
            half_images = None if error is None else t_quantile(0.975, math.inf) * error
            differences[metric] = difference(values_a, values_b, half_images, by_seed=found.by_seed)
    images_by = f"{RESAMPLES} resamples, the same for both" if errors else "unknown, see below"
    return Contrast(a.name, b.name, differences, _seeds_by(a, b, found.common), images_by)


@dataclass(frozen=True)
class Pairing:
    """Which seeds of two sides are compared. by_seed: one by one. common: all that both sides have."""

    seeds_a: Sequence[int]
    seeds_b: Sequence[int]
    by_seed: bool
    common: Sequence[int]


def pairing(a: Side, b: Side) -> Pairing:
    """The seeds that both sides have; all where they share none, or one of several."""
    common = sorted(set(a.seeds) & set(b.seeds))
    over_common = len(common) > 1 or (len(common) == 1 and min(len(a.seeds), len(b.seeds)) == 1)
    seeds_a, seeds_b = (common if over_common else side.seeds for side in (a, b))
    return Pairing(seeds_a, seeds_b, over_common, common)


def _seeds_by(a: Side, b: Side, common: Sequence[int]) -> str:
    """How the seeds' noise was found, or why it is unknown."""
    if [item.record.eval_id for item in a.measured] == [item.record.eval_id for item in b.measured]:
        return "none, these are the same trainings"
    if len(common) > 1:
        return f"paired by seed, {len(common)} seeds"
    if min(len(a.seeds), len(b.seeds)) > 1:
        return "the seeds differ: Welch's test"
    few = " and ".join(side.name for side in (a, b) if len(side.seeds) < 2)
    shared = f"; the difference is of seed {common[0]} alone" if common else ""
    return f"unknown, fewer than two seeds of {few}{shared}"


def _values(side: Side, metric: str, seeds: Collection[int]) -> dict[int, float]:
    """By seed; without the records that have none."""
    found = ((item.record.job.train.seed, item.record.metrics.get(metric)) for item in side.measured)
    return {seed: value for seed, value in found if value is not None and seed in seeds}


def difference(
    a: Mapping[int, float], b: Mapping[int, float], images: float | None = None, *, by_seed: bool
) -> Difference:
    """b - a of values by seed, with their noise. images: half width of the other noise. by_seed: as in ``Pairing``."""
    value = statistics.fmean(b.values()) - statistics.fmean(a.values())
    if min(len(a), len(b)) < 2:
        return Difference(value, None, images)
    if by_seed and a.keys() == b.keys():
        estimate = paired([b[seed] for seed in a], list(a.values()))
    else:
        estimate = welch(list(b.values()), list(a.values()))
    half = estimate.half_width() if estimate.df > 0 else None
    return Difference(value, half, images)


def image_draws(sides: list[Side]) -> tuple[dict[str, dict[int, Any]], dict[str, str]]:
    """By side's name and seed, the resamples of its AP; and why each other side has none."""
    evaluations: dict[str, list[Matches]] = {}
    missing: dict[str, str] = {}
    for side in sides:
        read = [_matches(item) for item in side.measured]
        wrong = [reason for reason in read if isinstance(reason, str)]
        if not read:
            missing[side.name] = "it was not run"
        elif wrong:
            missing[side.name] = f"{wrong[0]} ({len(wrong)} of {len(read)} seeds)"
        else:
            evaluations[side.name] = [matches for matches in read if not isinstance(matches, str)]
    flat = [matches for many in evaluations.values() for matches in many]
    if flat and not same_images(flat):
        return {}, dict.fromkeys(evaluations, "the sides were tested on different images") | missing
    draws = iter(resampled(flat)) if flat else iter(())
    seeds = {side.name: side.seeds for side in sides}
    found = {name: {seed: next(draws) for seed in seeds[name]} for name in evaluations}
    return found, missing


def _matches(item: Measured) -> Matches | str:
    """The matches per image of a record, or why there are none."""
    if not item.matches.exists():
        return "no matches per image beside the run"
    import numpy as np

    from detector.evaluation.matches import read_matches
    from detector.evaluation.reweighted import reweighted_ap

    try:
        matches = read_matches(item.matches)
    except DataError as error:
        return str(error).rstrip(".")
    (found,) = reweighted_ap(matches, np.ones((1, len(matches.image_ids)), np.int64))
    recorded = item.record.metrics["AP"]
    if recorded is None or not abs(float(found[0]) - recorded) < AGREE:
        return "the matches beside the run are of another evaluation than the record"
    return matches
