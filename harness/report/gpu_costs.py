"""What ``plan --gpus`` prints: the cost of each kind of run on those GPUs, and where each figure comes from."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from harness.console.layout import table, text_width
from harness.planning.costs import START_UP_SECONDS, RunCost, wall_seconds_on
from harness.planning.gpus import GpuSet
from harness.planning.plan import Plan
from harness.planning.rates import Figure
from harness.report.costs import alike, costs_as_data, or_unknown, rough_duration, sum_text
from harness.units import byte_size


def gpu_costs_as_data(costs: Sequence[RunCost], gpus: GpuSet) -> dict[str, Any]:
    """The GPUs, and the seconds until the last run ends there; null where one is unknown."""
    return {
        "count": gpus.count,
        "name": gpus.name,
        "kind": to_builtins(gpus.kind),
        "wall_seconds": wall_seconds_on(costs, gpus.count),
    }


def gpu_plan_as_lines(
    plan: Plan,
    costs: Sequence[RunCost],
    gpus: GpuSet,
    wall_time: float | None,
    notes: Sequence[str],
    width: int | None = None,
) -> list[str]:
    """Kinds of runs with their cost, totals, the basis of each figure, then ``notes``; at most 80 characters wide."""
    within = text_width(width)
    done = len(plan.trainings) - len(costs)
    lines = _wrapped(
        within,
        f"{len(plan.cells)} cells -> {len(plan.trainings)} trainings, {len(costs)} to do, {done} done "
        f"(profile {plan.profile.name}: {plan.profile.title}), on {gpus.text()}.",
    )
    if costs:
        lines += ["", _table(plan, costs, width), "", *_totals(costs, gpus, wall_time, within)]
        for key, value in _bases(plan, costs).items():
            lines += ["", *_wrapped(within, f"{key}: {value.text()}.")]
            lines += [line for rule in value.rules for line in _wrapped(within, rule, first="  - ", rest="    ")]
        lines += [""]
    return [*lines, *(line for note in notes for line in _wrapped(within, note))]


def _table(plan: Plan, costs: Sequence[RunCost], width: int | None) -> str:
    rows = []
    for same in alike(costs):
        one = same[0]
        row = [
            f"{_first(plan, same)}\n{one.backbone}",
            str(len(same)),
            str(one.devices),
            or_unknown(one.seconds_per_iteration.value, "{:.3f}"),
            rough_duration(one.wall_seconds),
            or_unknown(None if one.device_hours is None else one.device_hours * len(same), "{:,.1f}"),
        ]
        rows.append(row)
    headers = ["trainings", "runs", "GPUs", "s/it", "per run", "GPU-h"]
    return table(rows, headers, width, disable_numparse=True)


def _totals(costs: Sequence[RunCost], gpus: GpuSet, wall_time: float | None, width: int) -> list[str]:
    data = costs_as_data(costs, wall_time)
    hours = wall_seconds_on(costs, gpus.count)
    each = max(cost.devices for cost in costs)
    side_by_side = max(1, min(len(costs), gpus.count // each))
    lines = [
        f"GPU-hours in all: {sum_text(data['gpu_hours'], '{:,.1f}')}. Wall time on {gpus.text()}, {side_by_side} "
        f"run{'s' if side_by_side > 1 else ''} at a time: {rough_duration(hours)}."
    ]
    idle = gpus.count - side_by_side * each
    if idle and len(costs) > side_by_side:
        lines.append(f"{idle} of the GPUs stay idle: a run takes {each} of them (its groups are divided evenly).")
    kept, peak = byte_size(data["final_bytes"]), byte_size(max(data["checkpoint_bytes_while_training"]))
    lines.append(f"Disk: {kept} of final weights; up to {peak} more for each run in training.")
    if wall_time is not None:
        most = max((cost.requeues(wall_time) or 0 for cost in costs), default=0)
        lines.append(
            f"Requeues with {rough_duration(wall_time)} per start ({START_UP_SECONDS:.0f} s of it for starting up, "
            f"stated): {sum_text(data['requeues'], '{:,.0f}')}, at most {most} of one run."
        )
    return [line for text in lines for line in _wrapped(width, text)]


def _bases(plan: Plan, costs: Sequence[RunCost]) -> dict[str, Figure]:
    """By what it is of, the figures of training and of testing; of runs that differ, each."""
    found: dict[str, Figure] = {}
    groups = alike(costs)
    for same in groups:
        name = same[0].backbone if len({cost.backbone for cost in costs}) == len(groups) else _first(plan, same)
        found |= {f"Training, {name}": same[0].seconds_per_iteration, f"Testing, {name}": same[0].test_seconds}
    return found


def _first(plan: Plan, same: Sequence[RunCost]) -> str:
    more = f" and {len(same) - 1} more" if len(same) > 1 else ""
    return plan.refs_of(same[0].train_id)[0] + more


def _wrapped(width: int, text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
