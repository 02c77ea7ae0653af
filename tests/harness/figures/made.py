"""Made records of rows of the paper's tables, written where commands find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from detector.runs.findings import Curves, LostAP
from detector.runs.record import Record, content_hash
from detector.runs.timing import StepTiming
from harness.planning.selection import Selection
from support.records import record_of


def made_records(profile: str, values: Mapping[str, Mapping[int, float]], **fields: Any) -> dict[str, list[Record]]:
    """Per row a record per seed of that AP; the other metrics follow from it. fields: of every record."""
    made: dict[str, list[Record]] = {}
    for ref, by_seed in values.items():
        (cell,) = Selection(ref, profile, [], None).plan(1).cells
        for seed, ap in by_seed.items():
            job = replace(cell.job, train=replace(cell.job.train, seed=seed))
            record = record_of(job)
            metrics = record.metrics | {
                "AP": ap,
                "AP50": ap + 18,
                "AP75": ap + 2,
                "APS": max(0.0, ap - 16),
                "APM": ap + 4,
            }
            metrics |= {"APL": ap + 13, "positive_score": 0.6 + ap / 1000, "negative_score": 0.08}
            record = replace(record, profile=profile, metrics=metrics, **fields)
            made.setdefault(ref, []).append(_sealed(record))
    return made


def _sealed(record: Record) -> Record:
    later = (record.curves, record.lost_ap, record.scores, record.health)
    if all(field is None for field in later):
        return record
    record = replace(record, format=2)
    return replace(record, sha256=content_hash(record))


def write(results: Path, made: Mapping[str, list[Record]]) -> None:
    """As committed records."""
    for records in made.values():
        for record in records:
            path = results / "records" / record.profile / f"{record.eval_id}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.encode(record))


def curves_of(seed: int, points: int = 5, scale: float = 1.0) -> Curves:
    """Falling losses that depend on the seed."""
    iterations = tuple(range(1, points + 1))
    losses = tuple(scale * (1.0 / i + 0.01 * seed) for i in iterations)
    return Curves(
        iterations=iterations,
        values={"classification": losses, "bbox_regression": tuple(x / 2 for x in losses), "lr": (0.1,) * points},
    )


def lost(seed: int, background: float = 5.0) -> LostAP:
    """Lost AP that depends on the seed."""
    return LostAP(
        classification=1.0 + seed, localisation=8.0, both=2.0, duplicate=0.5, background=background, missed=0.1
    )


def timing(seconds: float, data: float) -> StepTiming:
    """Of a training of so many seconds, of which it waited so many for data."""
    return StepTiming(iterations=10, seconds=seconds, data_seconds=data, host_seconds=1.0, images_per_second=10.0)
