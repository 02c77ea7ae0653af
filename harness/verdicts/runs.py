"""The finished runs of each row at one profile, and the deviation between seeds that is pooled over rows."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.verdicts.estimates import Spread, assumed_spread, pooled_spread

COLLAPSE_RATIO = 0.5


@dataclass(frozen=True)
class RowRuns:
    """The finished runs of one row, one per seed, in the order of ``seeds``.

    ``pool``: rows of the same pool (backbone and schedule) share a deviation. ``runs``: AP..APL in percent and the mean
    scores (0..1); None or absent where there is nothing to measure. ``train_ids``: the training behind each run; two
    rows may share one. ``split``: what the metrics were measured on, ``test-dev`` only for the server's answer.
    """

    ref: str
    pool: str
    seeds: tuple[int, ...]
    runs: tuple[Mapping[str, float | None], ...]
    train_ids: tuple[str, ...]
    split: str = "minival"

    def by_training(self, metric: str) -> dict[str, float]:
        """Training id -> value, without the runs that have none."""
        pairs = ((train_id, run.get(metric)) for train_id, run in zip(self.train_ids, self.runs, strict=True))
        return {train_id: value for train_id, value in pairs if value is not None}

    def values(self, metric: str) -> list[float]:
        """The measured values, one per seed."""
        return list(self.by_training(metric).values())


@dataclass(frozen=True)
class ProfileRuns:
    """All rows that were run at one profile, by ref.

    ``assumed_sd``: per metric, the deviation to assume until two seeds of a row have measured it.
    """

    rows: Mapping[str, RowRuns]
    assumed_sd: Mapping[str, float]

    def without(self, refs: Collection[str]) -> ProfileRuns:
        """The other rows. What is said of the paper is said without the user's own rows."""
        return ProfileRuns({ref: row for ref, row in self.rows.items() if ref not in refs}, self.assumed_sd)

    def values(self, ref: str, metric: str) -> list[float]:
        """Values of a row, one per seed; empty where it has no run."""
        return self.rows[ref].values(metric) if ref in self.rows else []

    @cached_property
    def collapsed(self) -> frozenset[str]:
        """Rows whose mean AP is below half of their pool's median: their deviation is not that of the others.

        The upper median, so that of two rows the collapsed one is seen.
        """
        found = set()
        for pool in {row.pool for row in self.rows.values()}:
            means = [statistics.fmean(values) for values in self._distinct(pool, "AP").values()]
            if means:
                limit = COLLAPSE_RATIO * statistics.median_high(means)
                for ref, row in self.rows.items():
                    values = row.values("AP")
                    if row.pool == pool and values and statistics.fmean(values) < limit:
                        found.add(ref)
        return frozenset(found)

    def spread(self, pool: str, metric: str) -> Spread | None:
        """The pool's deviation; the assumed one while no row has two seeds; None where neither exists."""
        if (pool, metric) not in self._spreads:
            rows = self._distinct(pool, metric)
            measured = pooled_spread(values for ref, values in rows.items() if ref not in self.collapsed)
            assumed = assumed_spread(self.assumed_sd[metric]) if metric in self.assumed_sd else None
            self._spreads[pool, metric] = measured or assumed
        return self._spreads[pool, metric]

    @cached_property
    def _spreads(self) -> dict[tuple[str, str], Spread | None]:
        return {}

    def _distinct(self, pool: str, metric: str) -> dict[str, list[float]]:
        """Values by row, each training counted once: for the row with most seeds, then the first by name."""
        seen: set[str] = set()
        distinct: dict[str, list[float]] = {}
        for row in sorted(self.rows.values(), key=lambda row: (-len(row.runs), row.ref)):
            fresh = {k: v for k, v in row.by_training(metric).items() if k not in seen}
            if row.pool == pool and fresh:
                seen |= fresh.keys()
                distinct[row.ref] = list(fresh.values())
        return distinct
