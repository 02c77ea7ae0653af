"""The optimiser's parameter groups and the learning rate of every iteration."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from torch import nn

from detector.runs.job import OptimizerSettings, ScheduleSettings


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Weights, and biases with a learning rate and weight decay of their own (base codebase); frozen ones left out.

    Each group carries ``lr_factor``, by which ``set_learning_rate`` multiplies the schedule's value.
    """
    biases = [p for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
    weights = [p for name, p in model.named_parameters() if p.requires_grad and not name.endswith("bias")]
    return [
        {"params": weights, "weight_decay": settings.weight_decay, "lr_factor": 1.0},
        {"params": biases, "weight_decay": settings.bias_weight_decay, "lr_factor": settings.bias_lr_factor},
    ]


def learning_rate(iteration: int, lr: float, schedule: ScheduleSettings) -> float:
    """Learning rate of ``iteration`` (from 0): linear warm-up from ``warmup_factor``, ``gamma`` at each milestone."""
    rate = lr * schedule.gamma ** bisect_right(schedule.milestones, iteration)
    if iteration < schedule.warmup_iterations:
        done = iteration / schedule.warmup_iterations
        rate *= schedule.warmup_factor * (1 - done) + done
    return rate


def set_learning_rate(groups: list[dict[str, Any]], rate: float) -> None:
    """Give every parameter group its share of ``rate``."""
    for group in groups:
        group["lr"] = rate * group["lr_factor"]
