"""What ``harness plan`` prints: as data for --json, and as text for a person."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins
from tabulate import tabulate

from harness.planning.costs import plan_costs
from harness.planning.gpus import GpuSet
from harness.planning.plan import Plan
from harness.planning.selection import Selection, missing
from harness.report.costs import costs_as_data, costs_as_lines
from harness.report.gpu_costs import gpu_costs_as_data, gpu_plan_as_lines
from harness.verdicts.estimates import resolvable_effect, seeds_needed


def plan_as_data(
    selection: Selection, plan: Plan, wall_time: float | None = None, gpus: GpuSet | None = None
) -> dict[str, Any]:
    """Trainings with their rows, state and job, what is left to do costs, and which differences the seeds can show.

    wall_time: seconds that one start may take, which gives the number of requeues; None leaves them out. gpus: those of
    ``--gpus``; None for those that finished runs had.
    """
    to_do = missing(plan, selection.store)
    costs = plan_costs(plan, selection.rates(gpus), selection.store, to_do)
    return {
        "target": selection.target,
        "profile": plan.profile.name,
        "cells": len(plan.cells),
        "trainings": [
            {
                "id": train_id,
                "rows": plan.refs_of(train_id),
                "seed": job.seed,
                "done": train_id not in to_do,
                "evaluations": [item.id for item in plan.evaluations[train_id]],
                "job": to_builtins(job),
            }
            for train_id, job in plan.trainings.items()
        ],
        "identity_is_open": selection.identity_is_open,
        "costs": costs_as_data(costs, wall_time) | ({} if gpus is None else {"gpus": gpu_costs_as_data(costs, gpus)}),
        "resolution": _resolution(plan, max(cell.seed for cell in plan.cells) + 1),
    }


def plan_as_text(
    selection: Selection, plan: Plan, seeds: int, wall_time: float | None = None, gpus: GpuSet | None = None
) -> str:
    """One line per training, what is left to do costs, and which differences the seeds can show.

    wall_time, gpus: as ``plan_as_data``. With ``gpus`` no line is longer than 80 characters.
    """
    to_do = missing(plan, selection.store)
    costs = plan_costs(plan, selection.rates(gpus), selection.store, to_do)
    if gpus is not None:
        notes = _rescaled(plan, selection.batch_size) if selection.batch_size is not None else []
        return "\n".join(gpu_plan_as_lines(plan, costs, gpus, wall_time, [*notes, *_seeds_as_lines(plan, seeds)]))
    rows = []
    for train_id, job in plan.trainings.items():
        state = "planned" if selection.identity_is_open else ("to do" if train_id in to_do else "done")
        size = f"{job.schedule.iterations:,} x {job.batch.images}"
        rate = f"{job.optimizer.lr:g}"
        rows.append([train_id, job.seed, " = ".join(plan.refs_of(train_id)), job.model.backbone, size, rate, state])
    lines = [
        tabulate(
            rows,
            ["training", "seed", "rows", "backbone", "iterations x images", "learning rate", "state"],
            maxcolwidths=[None, None, 46],
        ),
        "",
        f"{len(plan.cells)} cells -> {len(plan.trainings)} trainings, {len(to_do)} to do "
        f"(profile {plan.profile.name}: {plan.profile.title}).",
    ]
    if selection.batch_size is not None:
        lines += _rescaled(plan, selection.batch_size)
    if selection.identity_is_open:
        lines.append("The data is a folder: with --data DIR the ids above become those of its runs.")
    lines += costs_as_lines(costs, wall_time)
    return "\n".join([*lines, *_seeds_as_lines(plan, seeds)])


def _seeds_as_lines(plan: Plan, seeds: int) -> list[str]:
    """Which differences so many seeds can show."""
    resolution = _resolution(plan, seeds)
    shown = (
        f"Seed deviation assumed {resolution['assumed_sd']} AP. With {seeds} seed{'s' if seeds > 1 else ''} per row "
        + (
            f"a difference of {resolution['resolvable']:.2f} AP is seen with 80% power."
            if resolution["resolvable"] is not None
            else "no difference can be tested: one seed decides only whether All collapses."
        )
    )
    wanted = ", ".join(f"{effect} AP: {count}" for effect, count in resolution["seeds_needed"].items())
    return [shown, f"Seeds per row for 80% power (one-sided test, alpha 0.05): {wanted}."]


def _rescaled(plan: Plan, batch_size: int) -> list[str]:
    """The schedules that Remark 2 gives, each once."""
    found = dict.fromkeys((job.optimizer.lr, job.schedule) for job in plan.trainings.values())
    lines = [f"With --batch-size {batch_size}, by Remark 2 of the paper (the same epochs):"]
    for rate, schedule in found:
        milestones = ", ".join(f"{milestone:,}" for milestone in schedule.milestones)
        lines.append(
            f"  learning rate {rate:g}, {schedule.iterations:,} iterations, warm-up {schedule.warmup_iterations:,}, "
            f"milestones {milestones}"
        )
    return [*lines, "Such runs are not the paper's and fill no table's cell."]


def _resolution(plan: Plan, seeds: int) -> dict[str, Any]:
    sd = plan.profile.assumed_sd.get("AP", 1.0)
    return {
        "assumed_sd": sd,
        "seeds": seeds,
        "resolvable": resolvable_effect(seeds, sd) if seeds > 1 else None,
        "seeds_needed": {str(effect): seeds_needed(effect, sd) for effect in (0.2, 0.5, 1.0, 2.0)},
    }
