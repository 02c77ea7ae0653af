"""What is wrong with a training although it goes on to its end, from the lines of its log. Free of torch.

The thresholds are far from what healthy trainings show: at the ends of the tiny profile's, the classification loss is
at 0.27 to 0.71 of its first value, the regression loss at its lowest, and positive entries score 1.1 times (at an AP of
2) to 150 times what negative ones do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean

from detector.runs.findings import Health
from detector.runs.job import TrainJob

Line = Mapping[str, float]

GRADIENT = "gradient_"  # of the names of the columns with gradients' norms
LEAST_LINES = 10  # of a log, before which nothing is judged
UNCHANGED = 0.97  # of its first value: a classification loss that fell less has learned nothing
EQUAL = 0.01  # relative, from the loss of scores that are all alike: there, too
RISEN = 1.5  # times its lowest mean: a regression loss that diverges
SAME_LINES = 5  # whose gradients have one and the same norm, though each is of other images
SEPARATED = 1.02  # times the mean score of the negative entries: less tells nothing apart


def training_health(lines: Sequence[Line], job: TrainJob, untrained: float | None = None) -> tuple[Health, ...]:
    """What the lines of a training's log show, the last its newest; empty for too few of them.

    untrained: the classification loss where all scores are alike (``anchor_counts.loss_of_equal_scores``).
    A training from a file named by its content may begin with a loss that is low already.
    """
    lines = [line for line in lines if "classification" in line and "bbox_regression" in line]
    if len(lines) < LEAST_LINES:
        return ()
    fresh = not job.model.weights.startswith("sha256:")
    found = [_no_learning(lines, untrained) if fresh else None, _diverging(lines), *_dead_gradients(lines)]
    return tuple(health for health in found if health is not None)


def evaluation_health(detections: int, metrics: Mapping[str, float | None]) -> tuple[Health, ...]:
    """What an evaluation shows. detections: their number. metrics: with both mean scores, 0..1."""
    found = []
    if detections == 0:
        found.append(
            Health(
                name="no detections",
                message="no image has a detection; see the test's score_threshold: harness explain",
            )
        )
    positive, negative = metrics.get("positive_score"), metrics.get("negative_score")
    if positive is not None and negative is not None and positive <= SEPARATED * negative:
        found.append(
            Health(
                name="collapsed",
                message=f"positive entries score {positive:.4g} on average, negative ones {negative:.4g}: "
                "the classifier tells nothing apart",
            )
        )
    return tuple(found)


def _no_learning(lines: Sequence[Line], untrained: float | None) -> Health | None:
    first = lines[0]["classification"]
    last = fmean(line["classification"] for line in _newest(lines))
    if untrained is not None and abs(last - untrained) <= EQUAL * untrained:
        compared = f"{untrained:.4g} where all scores are alike"
    elif last >= UNCHANGED * first:
        compared = f"{first:.4g} in the first iteration"
    else:
        return None
    return Health(name="no learning", message=f"the classification loss is {last:.4g} at the end, {compared}")


def _diverging(lines: Sequence[Line]) -> Health | None:
    width = max(1, len(lines) // 10)
    means = [fmean(line["bbox_regression"] for line in lines[i : i + width]) for i in range(0, len(lines), width)]
    last, lowest = fmean(line["bbox_regression"] for line in _newest(lines)), min(means)
    if last <= RISEN * lowest:
        return None
    return Health(name="diverging boxes", message=f"the regression loss rose from {lowest:.4g} to {last:.4g}")


def _dead_gradients(lines: Sequence[Line]) -> list[Health]:
    """Of each part of the network: its newest gradients are zero, or all of the same size."""
    newest = lines[-SAME_LINES:]
    found = []
    for column in newest[-1]:
        norms = {line.get(column) for line in newest}
        if column.startswith(GRADIENT) and len(norms) == 1 and None not in norms:
            part, norm = column.removeprefix(GRADIENT), newest[-1][column]
            found.append(
                Health(name="dead gradients", message=f"{part}: the norm of its gradients stays at {norm:.4g}")
            )
    return found


def _newest(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[-max(1, len(lines) // 10) :]


def numbers(line: Mapping[str, object]) -> dict[str, float]:
    """The columns of a log's line that are finite numbers."""
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    }
