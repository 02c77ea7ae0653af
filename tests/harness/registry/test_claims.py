"""The texts of the shipped claims."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import msgspec
import pytest

from detector.runs.record import Record
from harness.registry.claims import Claim
from harness.registry.load import Registry

RECORDS = Path(__file__).resolve().parents[3] / "results" / "records" / "tiny"
BY_ID = [pytest.param(claim, id=claim.id) for claim in Registry().claims]


@pytest.mark.parametrize("claim", BY_ID)
def test_no_measured_number_stands_in_a_claims_text(claim: Claim) -> None:
    """Numbers that were measured are computed, or they go stale: means of the committed records are the likely ones."""
    by_job: dict[object, list[float]] = {}
    for path in RECORDS.glob("*.json"):
        record = msgspec.json.decode(path.read_bytes(), type=Record)
        key = msgspec.structs.replace(record.job, train=msgspec.structs.replace(record.job.train, seed=0))
        by_job.setdefault(key, []).append(record.metrics["AP"] or 0.0)
    means = {f"{sum(values) / len(values):.1f}" for values in by_job.values()} - {"0.0"}
    texts = [claim.text, *claim.reasons.values()]
    numbers = set(itertools.chain.from_iterable(re.findall(r"\d+\.\d", text) for text in texts))
    assert len(means) > 10
    rows = [row for table in Registry().tables.values() for row in table.rows]
    settings = {cell for row in rows for cell in row.cells}  # such as h- of 5.5, which may be some AP too
    assert not (numbers - settings) & means
    assert not any(re.search(r"AP (of|at) \d*[1-9]|reach(es)? \d", text) for text in texts)
