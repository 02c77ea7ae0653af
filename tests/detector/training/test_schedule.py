"""Learning rates of the paper's schedule, and the parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.runs.job import OptimizerSettings, ScheduleSettings
from detector.training.schedule import learning_rate, parameter_groups, set_learning_rate

ONE_X = ScheduleSettings(
    iterations=90_000, warmup_iterations=500, warmup_factor=1 / 3, milestones=(60_000, 80_000), gamma=0.1
)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, 0.01 / 3),
        (250, 0.01 * 2 / 3),  # half-way from 1/3 to 1
        (500, 0.01),
        (59_999, 0.01),
        (60_000, 0.001),
        (79_999, 0.001),
        (80_000, 0.0001),
        (89_999, 0.0001),
    ],
)
def test_learning_rate_of_the_1x_schedule(iteration: int, expected: float) -> None:
    assert learning_rate(iteration, 0.01, ONE_X) == pytest.approx(expected, rel=1e-12)


def test_parameter_groups_leave_out_frozen_and_single_out_biases() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Linear(2, 2))
    model[2].weight.requires_grad_(False)
    settings = OptimizerSettings(lr=0.01, momentum=0.9, weight_decay=1e-4, bias_lr_factor=2.0, bias_weight_decay=0.0)
    weights, biases = parameter_groups(model, settings)
    assert [id(p) for p in weights["params"]] == [id(model[0].weight), id(model[1].weight)]
    assert [id(p) for p in biases["params"]] == [id(model[0].bias), id(model[1].bias), id(model[2].bias)]
    assert (weights["weight_decay"], biases["weight_decay"]) == (1e-4, 0.0)
    optimizer = torch.optim.SGD([weights, biases], lr=1.0)
    set_learning_rate(optimizer.param_groups, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
