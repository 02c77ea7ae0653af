"""The finished runs of each row at one profile, and the deviations between seeds of what is alike."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.verdicts.blocks import Blocks, blocks
from harness.verdicts.estimates import Spread, assumed_spread

COLLAPSE_RATIO = 0.5


@dataclass(frozen=True)
class RowRuns:
    """The finished runs of one row, one per seed, in the order of ``seeds``.

    ``pool``: backbone, schedule and data; what collapsed is seen among the rows of a pool. ``family``: rows of one pool
    and family are alike in everything but the parameters of one loss, so that they share a deviation. ``runs``: AP..APL
    in percent and the mean scores (0..1); None or absent where there is nothing to measure. ``train_ids``: the training
    behind each run; two rows may share one. ``split``: what the metrics were measured on, ``test-dev`` only for the
    server's answer.
    """

    ref: str
    pool: str
    seeds: tuple[int, ...]
    runs: tuple[Mapping[str, float | None], ...]
    train_ids: tuple[str, ...]
    split: str = "minival"
    family: str = ""

    def by_training(self, metric: str) -> dict[str, float]:
        """Training id -> value, without the runs that have none."""
        pairs = ((train_id, run.get(metric)) for train_id, run in zip(self.train_ids, self.runs, strict=True))
        return {train_id: value for train_id, value in pairs if value is not None}

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed -> value, without the runs that have none."""
        pairs = ((seed, run.get(metric)) for seed, run in zip(self.seeds, self.runs, strict=True))
        return {seed: value for seed, value in pairs if value is not None}

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
            of_pool = [row for row in self.rows.values() if row.pool == pool]
            means = [statistics.fmean(row.values()) for row in _distinct(of_pool, "AP")]
            if means:
                limit = COLLAPSE_RATIO * statistics.median_high(means)
                for row in of_pool:
                    values = row.values("AP")
                    if values and statistics.fmean(values) < limit:
                        found.add(row.ref)
        return frozenset(found)

    def family(self, ref: str) -> tuple[str, ...]:
        """What a row's deviation is shared by: its pool and family; the row alone where it collapsed."""
        row = self.rows[ref]
        return (row.pool, row.family, ref) if ref in self.collapsed else (row.pool, row.family)

    def family_rows(self, ref: str, metric: str) -> list[dict[int, float]]:
        """The rows of the family of ``ref``, each a value by seed and each training once; its own is among them."""
        return self._families(metric).get(self.family(ref), [])

    def blocks(self, ref: str, metric: str) -> Blocks | None:
        """Variances within the family of ``ref``; None where none of its rows has two seeds."""
        key = (*self.family(ref), metric)
        if key not in self._blocks:
            self._blocks[key] = blocks(self.family_rows(ref, metric))
        return self._blocks[key]

    def spread(self, ref: str | None, metric: str) -> Spread | None:
        """The deviation between the seeds of a row that is known best; None where none is, not even an assumed one.

        That of its family; else, of another family of its pool, as borrowed; else the profile's assumed one. ``ref``
        may have no run, or be None.
        """
        if ref is not None and ref in self.rows:
            own = self.blocks(ref, metric)
            pool = self.rows[ref].pool
            found = own or self._blocks_of_pool(pool, metric)
            if found:
                df = found.combined(1.0, 0.0)[1]
                return Spread(found.total**0.5, df, found.num_rows, borrowed=own is None, share=found.share)
        return assumed_spread(self.assumed_sd[metric]) if metric in self.assumed_sd else None

    def _blocks_of_pool(self, pool: str, metric: str) -> Blocks | None:
        """Of the rows of a pool that did not collapse, whatever their family."""
        families = self._families(metric)
        return blocks(row for key, rows in families.items() if key[0] == pool and len(key) == 2 for row in rows)

    def _families(self, metric: str) -> dict[tuple[str, ...], list[dict[int, float]]]:
        if metric not in self._rows_by_family:
            by_family: dict[tuple[str, ...], list[RowRuns]] = {}
            for ref, row in self.rows.items():
                by_family.setdefault(self.family(ref), []).append(row)
            self._rows_by_family[metric] = {key: _distinct(rows, metric) for key, rows in by_family.items()}
        return self._rows_by_family[metric]

    @cached_property
    def _rows_by_family(self) -> dict[str, dict[tuple[str, ...], list[dict[int, float]]]]:
        return {}

    @cached_property
    def _blocks(self) -> dict[tuple[str, ...], Blocks | None]:
        return {}


def _distinct(rows: Collection[RowRuns], metric: str) -> list[dict[int, float]]:
    """Values by seed, each training counted once: for the row with most seeds, then the first by name."""
    seen: set[str] = set()
    distinct = []
    for row in sorted(rows, key=lambda row: (-len(row.runs), row.ref)):
        fresh = {
            seed: value
            for seed, train_id, run in zip(row.seeds, row.train_ids, row.runs, strict=True)
            if train_id not in seen and (value := run.get(metric)) is not None
        }
        if fresh:
            seen |= set(row.train_ids)
            distinct.append(fresh)
    return distinct
