"""The benchmark of all pairs: what is timed against each other computes the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.pairs import SURROGATES, broadcast, make_work, ours, report, tiled


@pytest.mark.parametrize("name", SURROGATES)
def test_peers_compute_the_same_value_and_gradients(name: str) -> None:
    work = make_work(3_000, 50, 3_000)
    found, *peers = (way(work.negatives, work.positives, SURROGATES[name]) for way in (ours, tiled, broadcast))
    for peer in peers:
        for part, expected in zip(found, peer, strict=True):
            torch.testing.assert_close(part, expected.to(part.dtype), rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_report_has_every_surrogate_and_curve() -> None:
    found = report(quick=True)
    assert [sum(f", {name}, " in row.work for row in found.rows) for name in SURROGATES] == [3, 2, 2]
    assert all(row.seconds > 0 and row.peer_seconds > 0 and row.limit_seconds for row in found.rows)
    assert [curve.x for curve in found.curves] == ["negatives", "positives", "L"]
    assert all(0 <= float(error) < 1e-6 for error in found.facts.values())
