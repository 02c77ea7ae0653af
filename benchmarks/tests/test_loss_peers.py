"""The benchmark of the losses: what is timed against each other computes the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.losses import make_input, report, step, subjects


@pytest.mark.parametrize("name", subjects())
def test_peer_computes_the_same_loss_and_gradient(name: str) -> None:
    given = make_input([(6, 5), (3, 3)], 2, every=50)
    ours, theirs = (step(loss, given) for loss in (subjects()[name].ours, subjects()[name].theirs))
    assert len(ours) == len(theirs) == 3
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.slow
def test_report_has_every_loss_and_curve() -> None:
    found = report(quick=True)
    assert [row.work.split(", forward")[0] for row in found.rows][: len(subjects())] == list(subjects())
    assert all(row.seconds > 0 and row.peer_seconds > 0 and row.limit_seconds for row in found.rows)
    assert [curve.x for curve in found.curves] == ["anchors", "positives", "images", "threads"]
    assert all(len(ys) == len(curve.xs) for curve in found.curves for ys in curve.series.values())
    assert any("gradient at" in name for name in found.facts)
