"""Fig. 2: the drift of Gaussian points by the loss's weights, against what can be computed on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
import torch

from drloss.functional import expected_value
from harness.figures import fig2


@pytest.fixture(scope="module")
def normal() -> Any:
    return fig2.normal_points(200_000)


@pytest.mark.parametrize("lambda_", [0.16, 0.08, 0.04])
def test_densities_are_those_of_an_exponentially_tilted_gaussian(lambda_: float, normal: Any) -> None:
    """exp(p / lambda) times the density of N(m, v) is, but for a constant, the density of N(m + v / lambda, v)."""
    found = fig2.drift(normal, fig2.LARGE)
    tilted = NormalDist(fig2.MEAN + fig2.LARGE**2 / lambda_, fig2.LARGE)
    peak = 1 / (fig2.LARGE * math.sqrt(2 * math.pi))
    for low, high, density in zip(found.edges, found.edges[1:], found.density[lambda_], strict=False):
        wanted = (tilted.cdf(high) - tilted.cdf(low)) / (high - low)
        assert density == pytest.approx(wanted, abs=0.1 * peak)
    assert found.mean[lambda_] == pytest.approx(tilted.mean, abs=0.05 * fig2.LARGE)


def test_means_are_the_losss_own_expectations_whatever_the_chunks(normal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig2, "CHUNK", 30_000)
    found = fig2.drift(normal, fig2.SMALL)
    points = torch.from_numpy(fig2.MEAN + fig2.SMALL * normal).unsqueeze(0)
    for lambda_ in fig2.LAMBDAS:
        wanted = expected_value(points, torch.ones_like(points, dtype=torch.bool), lambda_).item()
        assert found.mean[lambda_] == pytest.approx(wanted, rel=1e-5)
        # Nearly all of the distribution is drawn.
        width = found.edges[1] - found.edges[0]
        assert sum(found.density[lambda_]) * width == pytest.approx(1.0, abs=1e-3)
    assert found.largest == pytest.approx(points.max().item(), rel=1e-5)


def test_what_the_paper_states_holds_and_would_be_seen_to_fail(normal: Any) -> None:
    small, large = fig2.drift(normal, fig2.SMALL), fig2.drift(normal, fig2.LARGE)
    assert [statement.holds for statement in fig2.check(small, large)] == [True, True]
    assert not fig2.check(large, small)[1].holds
    still = replace(large, mean=dict.fromkeys(fig2.LAMBDAS, fig2.MEAN))
    assert not fig2.check(small, still)[1].holds
    falling = replace(large, mean=dict(zip(fig2.LAMBDAS, sorted(large.mean.values(), reverse=True), strict=True)))
    sentence = fig2.check(small, falling)[0].sentence
    assert sentence.endswith("This does not hold here.")
