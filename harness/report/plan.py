"""What ``harness plan`` prints: as data for --json, and as text for a person."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from msgspec import to_builtins

from harness.console.layout import table, text_width
from harness.console.legend import legend
from harness.planning.costs import plan_costs
from harness.planning.gpus import GpuSet
from harness.planning.plan import Plan
from harness.planning.selection import Selection, missing, unusable
from harness.report.costs import costs_as_data, costs_as_lines
from harness.report.gpu_costs import gpu_costs_as_data, gpu_plan_as_lines
from harness.verdicts.estimates import POOLED_ROWS, resolvable_effect, seeds_needed
from harness.verdicts.runs import ProfileRuns

# The seed's part of the variance within the DR rows of the committed records of the profile tiny (results/tables/tiny).
COMMON_AT_TINY = 0.7


def plan_as_data(
    selection: Selection, plan: Plan, wall_time: float | None = None, gpus: GpuSet | None = None
) -> dict[str, Any]:
    """Trainings with their rows, state and job, what is left to do costs, and which differences the seeds can show.

    wall_time: seconds that one start may take, which gives the number of requeues; None leaves them out. gpus: those of
    ``--gpus``; None for those that finished runs had.
    """
    to_do = missing(plan, selection.store)
    broken = unusable(plan, selection.store)
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
                "done": train_id not in to_do and train_id not in broken,
                **({"unusable": broken[train_id]} if train_id in broken else {}),
                "evaluations": [item.id for item in plan.evaluations[train_id]],
                "job": to_builtins(job),
            }
            for train_id, job in plan.trainings.items()
        ],
        "identity_is_open": selection.identity_is_open,
        "costs": costs_as_data(costs, wall_time) | ({} if gpus is None else {"gpus": gpu_costs_as_data(costs, gpus)}),
        "resolution": _resolution(selection, plan, max(cell.seed for cell in plan.cells) + 1),
    }


def plan_as_text(
    selection: Selection,
    plan: Plan,
    seeds: int,
    wall_time: float | None = None,
    gpus: GpuSet | None = None,
    width: int | None = None,
) -> str:
    """One line per training, what is left to do costs, and which differences the seeds can show.

    wall_time, gpus: as ``plan_as_data``. width: of the terminal, if it is one. With ``gpus`` no line is longer than 80
    characters.
    """
    to_do, broken = missing(plan, selection.store), unusable(plan, selection.store)
    costs = plan_costs(plan, selection.rates(gpus), selection.store, to_do)
    if gpus is not None:
        notes = _rescaled(plan, selection.batch_size) if selection.batch_size is not None else []
        notes += [
            line for why in broken.values() for line in textwrap.wrap(why, text_width(width), break_on_hyphens=False)
        ]
        notes += _seeds_as_lines(_resolution(selection, plan, seeds))
        text = "\n".join(gpu_plan_as_lines(plan, costs, gpus, wall_time, notes, width))
        return "\n".join([text, *textwrap.wrap(legend(text, _WORDS), text_width(width), break_on_hyphens=False)])
    states = {
        train_id: "broken record" if train_id in broken else "to do" if train_id in to_do else "done"
        for train_id in plan.trainings
    }
    if selection.identity_is_open:
        states = dict.fromkeys(states, "planned")
    lines = [
        _trainings(plan, states, width),
        "",
        f"{len(plan.cells)} cells -> {len(plan.trainings)} trainings, {len(to_do)} to do "
        f"(profile {plan.profile.name}: {plan.profile.title}).",
    ]
    lines += broken.values()
    if selection.batch_size is not None:
        lines += _rescaled(plan, selection.batch_size)
    if selection.identity_is_open:
        lines.append("The data is a folder: with --data DIR the ids above become those of its runs.")
    lines += costs_as_lines(costs, wall_time, width)
    text = "\n".join([*lines, *_seeds_as_lines(_resolution(selection, plan, seeds))])
    words = legend(text, _WORDS)
    return f"{text}\n{words}" if words else text


_WORDS = {
    "s/it": "seconds per iteration",
    "GPU-h": "hours of one GPU",
    "=": "rows that are one training",
    "80% power": "the difference is found four times out of five",
    "-": "unknown",
}


def _trainings(plan: Plan, states: dict[str, str], width: int | None) -> str:
    """One line per training; where that is too wide, the backbone stands below the rows."""
    rows, narrow = [], []
    for train_id, job in plan.trainings.items():
        refs, state = plan.refs_of(train_id), states[train_id]
        size = f"{job.schedule.iterations:,} x {job.batch.images}"
        rows.append([train_id, job.seed, " = ".join(refs), job.model.backbone, size, f"{job.optimizer.lr:g}", state])
        below = "\n".join([" =\n".join(refs), job.model.backbone])
        narrow.append([train_id, job.seed, below, size, job.optimizer.lr, state])
    return table(
        rows,
        ["training", "seed", "rows", "backbone", "iterations x images", "learning rate", "state"],
        width,
        narrow=(narrow, ["training", "seed", "rows, backbone", "iterations x images", "learning rate", "state"]),
        maxcolwidths=[None, None, 46],
    )


def _seeds_as_lines(seeds: dict[str, Any]) -> list[str]:
    """Which differences so many seeds can show, from ``_resolution``; in brackets the other bound, if there is one."""
    known = "measured" if seeds["measured"] else "assumed"
    lines = [f"Seed deviation {known}: {seeds['sd']:.2g} AP."]
    needed_if_common = seeds.get("seeds_needed_if_common", {})
    if needed_if_common:
        lines.append(
            "How much of its variance rows of one seed have in common was not measured at this "
            f"profile: below, if nothing; in brackets, if {100 * COMMON_AT_TINY:.0f}%, as at the profile tiny."
        )
    else:
        lines.append(
            f"{100 * seeds['share']:.0f}% of its variance is the seed's: below, rows of one loss at the same seeds."
        )
    if seeds["resolvable"] is None:
        lines.append("With 1 seed per row no difference can be tested: one seed decides only whether All collapses.")
    else:
        other = f" [{seeds['resolvable_if_common']:.2f}]" if needed_if_common else ""
        shown = f"{seeds['resolvable']:.2f}{other}"
        lines.append(f"With {seeds['seeds']} seeds per row a difference of {shown} AP is seen with 80% power.")
    wanted = ", ".join(
        f"{effect} AP: {count}" + (f" [{needed_if_common[effect]}]" if needed_if_common else "")
        for effect, count in seeds["seeds_needed"].items()
    )
    return [*lines, f"Seeds per row for 80% power (one-sided test, alpha 0.05): {wanted}."]


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


def _resolution(selection: Selection, plan: Plan, seeds: int) -> dict[str, Any]:
    """What ``seeds`` per row can show of a difference of two rows at the same seeds.

    ``share``: the seed's part of the variance; None where it was not measured. Then ``seeds_needed`` and ``resolvable``
    are for 0, the upper bound, and the same ``_if_common`` for the share of the tiny profile.
    """
    runs = ProfileRuns(selection.runs(), selection.profile.assumed_sd).without(selection.registry.own_rows)
    of_rows = [found for ref in selection.refs if ref in runs.rows and (found := runs.blocks(ref, "AP")) is not None]
    blocks = max(of_rows, key=lambda found: found.df_residual, default=None)
    measured = blocks is not None and blocks.total > 0
    assumed = plan.profile.assumed_sd.get("AP", 1.0)
    sd, share = (blocks.total**0.5, blocks.share) if blocks is not None and measured else (assumed, None)
    resolvable, needed = _at_share(share or 0.0, sd, seeds)
    shown = {
        "assumed_sd": assumed,
        "sd": sd,
        "measured": measured,
        "share": share,
        "seeds": seeds,
        "resolvable": resolvable,
        "seeds_needed": needed,
    }
    if share is None:
        resolvable, needed = _at_share(COMMON_AT_TINY, sd, seeds)
        shown |= {"resolvable_if_common": resolvable, "seeds_needed_if_common": needed}
    return shown


def _at_share(share: float, sd: float, seeds: int) -> tuple[float | None, dict[str, int]]:
    """The difference that ``seeds`` resolve (None for one), and the seeds that some differences need."""
    apart = sd * math.sqrt(2 * (1 - min(share, 0.99)))
    rows = POOLED_ROWS - 1  # of their degrees of freedom per seed, one goes to the seed itself
    needed = {str(effect): seeds_needed(effect, apart, arms=1, num_rows=rows) for effect in (0.2, 0.5, 1.0, 2.0)}
    return resolvable_effect(seeds, apart, arms=1, num_rows=rows) if seeds > 1 else None, needed
