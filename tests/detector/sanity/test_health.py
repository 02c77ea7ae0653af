"""Healthy trainings are healthy; each thing that can be wrong is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from detector.runs.job import EvalJob, TrainJob
from detector.runs.record import Record
from detector.sanity.health import LEAST_LINES, evaluation_health, numbers, training_health

PROJECT = Path(__file__).parents[3]
# Means of tenths of tiny trainings, 400 iterations: classification of DR at its flattest, of focal, and regression.
FLATTEST = (2.173, 2.072, 1.839, 1.748, 1.692, 1.665, 1.644, 1.608, 1.566, 1.558, 1.535)
FOCAL = (1.085, 0.812, 0.505, 0.435, 0.397, 0.364, 0.354, 0.333, 0.31, 0.302, 0.297)
BOXES = (1.062, 0.948, 0.815, 0.755, 0.717, 0.693, 0.684, 0.656, 0.629, 0.62, 0.61)


def lines(classification: tuple[float, ...], boxes: tuple[float, ...] = BOXES) -> list[dict[str, float]]:
    pairs = enumerate(zip(classification, boxes, strict=True))
    return [
        {"classification": value, "bbox_regression": box, "gradient_backbone": 1 / (1 + i), "gradient_boxes": 2.0 + i}
        for i, (value, box) in pairs
    ]


@pytest.fixture
def train(job: EvalJob) -> TrainJob:
    return job.train


@pytest.mark.parametrize("classification", [FLATTEST, FOCAL])
def test_nothing_is_wrong_with_the_tiny_trainings(classification: tuple[float, ...], train: TrainJob) -> None:
    assert training_health(lines(classification), train) == ()


def test_nothing_is_wrong_with_the_golden_curves(train: TrainJob) -> None:
    """Of 50 iterations each: a rate that still rises, and a loss that has fallen by some percent only."""
    golden = msgspec.json.decode((PROJECT / "tests" / "data" / "golden_tiny.json").read_bytes())
    for curve in golden.values():
        found = lines(tuple(curve["classification"]), tuple(curve["bbox_regression"]))
        assert training_health(found, train) == ()


def test_a_loss_that_ends_where_it_began_is_told(train: TrainJob) -> None:
    (health,) = training_health(lines((2.032, *[2.033] * 10)), train)
    assert health.name == "no learning"
    assert health.message == "the classification loss is 2.033 at the end, 2.032 in the first iteration"


def test_a_loss_that_fell_to_that_of_scores_that_are_all_alike_is_told(train: TrainJob) -> None:
    """The worst case of the tiny profile: its first loss is higher."""
    (health,) = training_health(lines((2.84, *[2.033] * 10)), train, 2.032)
    assert health.message == "the classification loss is 2.033 at the end, 2.032 where all scores are alike"
    assert training_health(lines(FLATTEST), train, 2.032) == training_health(lines(FOCAL), train, 1.1) == ()


def test_a_training_from_a_detectors_weights_may_begin_where_it_ends(train: TrainJob) -> None:
    model = replace(train.model, weights=f"sha256:{'0' * 64}")
    assert training_health(lines((0.3,) * 11), replace(train, model=model)) == ()


def test_a_regression_loss_that_rises_is_told(train: TrainJob) -> None:
    (health,) = training_health(lines(FOCAL, (*BOXES[:8], 0.8, 1.1, 1.4)), train)
    assert (health.name, health.message) == ("diverging boxes", "the regression loss rose from 0.656 to 1.4")


@pytest.mark.parametrize("norm", [0.0, 0.25])
def test_gradients_that_are_zero_or_do_not_change_are_told(norm: float, train: TrainJob) -> None:
    found = lines(FOCAL)
    for line in found[3:]:
        line["gradient_boxes"] = norm
    (health,) = training_health(found, train)
    assert (health.name, health.message) == (
        "dead gradients",
        f"boxes: the norm of its gradients stays at {norm:g}",
    )
    found[-1]["gradient_boxes"] = 0.5
    assert training_health(found, train) == ()


def test_a_log_of_few_lines_is_not_judged(train: TrainJob) -> None:
    assert training_health(lines((2.0,) * 11)[: LEAST_LINES - 1], train) == ()


def test_of_the_committed_tiny_records_only_those_that_learned_nothing_are_collapsed() -> None:
    files = sorted((PROJECT / "results" / "records" / "tiny").glob("*.json"))
    records = [msgspec.json.decode(path.read_bytes(), type=Record) for path in files]
    collapsed = [record.metrics["AP"] for record in records if evaluation_health(1, record.metrics)]
    healthy = [record.metrics["AP"] for record in records if not evaluation_health(1, record.metrics)]
    assert len(collapsed) >= 2
    assert max(collapsed) < 0.5 < 1 < min(healthy)


def test_an_evaluation_without_a_detection_is_told() -> None:
    assert [health.name for health in evaluation_health(0, {})] == ["no detections"]
    assert evaluation_health(1, {"positive_score": None, "negative_score": 0.1}) == ()


def test_only_finite_numbers_are_taken_of_a_line() -> None:
    assert numbers({"loss": 1.5, "lr": float("inf"), "note": "slow", "done": True}) == {"loss": 1.5}
