"""What ``plan`` prints of costs and budgets: as data for --json, and as text for a person."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import to_builtins

from harness.console.layout import table
from harness.console.legend import legend
from harness.planning.budget import BudgetPlan
from harness.planning.costs import START_UP_SECONDS, RunCost
from harness.units import byte_size


def costs_as_data(costs: Sequence[RunCost], wall_time: float | None) -> dict[str, Any]:
    """Each run with its figures and their bases, and totals: null where a part is unknown, with what is known beside.

    wall_time: seconds of a limit; None leaves requeues out.
    """
    runs = []
    for cost in costs:
        entry: dict[str, Any] = to_builtins(cost)
        entry |= {
            "device_hours": cost.device_hours,
            "final_bytes": cost.size.final_bytes,
            "checkpoint_bytes": cost.size.checkpoint_bytes,
        }
        del entry["size"]
        runs.append(entry | ({} if wall_time is None else {"requeues": cost.requeues(wall_time)}))
    return {
        "runs": runs,
        "gpu_hours": _total(cost.device_hours for cost in costs if cost.unit == "GPU"),
        "cpu_process_hours": _total(cost.device_hours for cost in costs if cost.unit == "CPU"),
        "wall_seconds": _total(cost.wall_seconds for cost in costs),
        "longest_run_seconds": max((cost.wall_seconds for cost in costs if cost.wall_seconds), default=None),
        "final_bytes": sum(cost.size.final_bytes for cost in costs),
        "checkpoint_bytes_while_training": [2 * cost.size.checkpoint_bytes for cost in costs],
        "wall_time_limit": wall_time,
        "start_up_seconds": None if wall_time is None else START_UP_SECONDS,
        "requeues": None if wall_time is None else _total(cost.requeues(wall_time) for cost in costs),
    }


def _total(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """The sum, null where a part is unknown; the known part; and how many are unknown."""
    given = list(values)
    known = [value for value in given if value is not None]
    unknown = len(given) - len(known)
    return {"value": None if unknown else sum(known), "known": sum(known), "unknown_runs": unknown}


def costs_as_lines(costs: Sequence[RunCost], wall_time: float | None, width: int | None = None) -> list[str]:
    """One line per kind of run, then totals of time and disk. width: of the terminal, if it is one."""
    if not costs:
        return []
    rows = [_backbone_row(same, wall_time) for same in alike(costs)]
    headers = ["backbone", "runs", "on each", "s/iteration", "training per run", "testing per run", "device-hours"]
    listed = table(rows, [*headers, *(["requeues"] if wall_time else [])], width, disable_numparse=True)
    lines = ["", "What is left to do costs (times scaled to the images of each row):", listed]
    lines += [f"  {backbone}: {text}" for backbone, text in _sources(costs).items()]
    data = costs_as_data(costs, wall_time)
    for key, name, device in (("gpu_hours", "GPU-hours", "GPU"), ("cpu_process_hours", "CPU-process-hours", "CPU")):
        if any(cost.unit == device for cost in costs):
            lines.append(f"{name}: {sum_text(data[key], '{:,.1f}')}.")
    longest = data["longest_run_seconds"]
    lines.append(
        f"Wall time, one run after another: {sum_text(data['wall_seconds'])}"
        + (f"; the longest run {rough_duration(longest)}." if longest else ".")
    )
    peak = byte_size(max(data["checkpoint_bytes_while_training"]))
    lines.append(
        f"Disk: {byte_size(data['final_bytes'])} of final weights stay; a run in training holds up to {peak} more in "
        "two checkpoints. Logs and detections come on top."
    )
    if wall_time is not None:
        lines.append(
            f"Requeues with {rough_duration(wall_time)} per start "
            f"({START_UP_SECONDS:.0f} s of it for starting up, stated): "
            f"{sum_text(data['requeues'], '{:,.0f}')}."
        )
    return lines


def alike(costs: Sequence[RunCost]) -> list[list[RunCost]]:
    """Costs that fill one line: of one backbone, devices, and the same seconds."""
    groups: dict[Any, list[RunCost]] = {}
    for cost in costs:
        key = (
            cost.backbone,
            cost.devices,
            cost.seconds_per_iteration,
            cost.train_seconds.value,
            cost.test_seconds.value,
        )
        groups.setdefault(key, []).append(cost)
    return list(groups.values())


def _backbone_row(costs: Sequence[RunCost], wall_time: float | None) -> list[str]:
    one = costs[0]
    device = "CPU process" if one.unit == "CPU" else "GPU"
    plural = "es" if one.unit == "CPU" else "s"
    row = [
        one.backbone,
        str(len(costs)),
        f"{one.devices} {device}{plural if one.devices > 1 else ''}",
        or_unknown(one.seconds_per_iteration.value, "{:.3f}"),
        rough_duration(one.train_seconds.value),
        rough_duration(one.test_seconds.value),
        or_unknown(None if one.device_hours is None else one.device_hours * len(costs), "{:,.1f}"),
    ]
    if wall_time is not None:
        row.append(or_unknown(one.requeues(wall_time), "{:,.0f} each"))
    return row


def _sources(costs: Sequence[RunCost]) -> dict[str, str]:
    """By backbone, where its times come from."""
    found: dict[str, str] = {}
    for cost in costs:
        train, test = cost.seconds_per_iteration.whole_text(), cost.test_seconds.whole_text()
        found[cost.backbone] = f"training {train}" + ("; testing likewise" if test == train else f"; testing {test}")
    return found


def budget_as_data(plan: BudgetPlan) -> dict[str, Any]:
    """The whole plan."""
    data: dict[str, Any] = to_builtins(plan)
    return data


_UNKNOWN_SHARE = (
    "How much of the variance between seeds is common to rows of one seed was not measured for all of them at this "
    "profile: the seeds are those of independent runs, the most that it takes. 'harness plan TARGET' has both bounds."
)


_BUDGET_WORDS = {
    "80% power": "found four times out of five",
    "Holm's correction": "the more claims are tested, the smaller p must be",
    "CPU-process-hours": "hours of one training process on a CPU",
    "GPU-hours": "hours of one GPU",
    "=": "rows that are one training",
}


def budget_as_text(plan: BudgetPlan, width: int | None = None) -> str:
    """Rows and seeds, the claims that they decide and those that they do not, and the commands to type.

    width: of the terminal, if it is one.
    """
    hours = f"{plan.unit}-hours" if plan.unit == "GPU" else "CPU-process-hours"
    rows = [[" = ".join(line.refs), line.seeds, line.done, f"{line.hours:,.2f}"] for line in plan.lines]
    lines = [
        table(rows, ["rows", "seeds", "done", hours], width, maxcolwidths=[60], colalign=("left", *["right"] * 3))
        if rows
        else "Nothing: no claim can be decided within it.",
        "",
        f"Runs to do: {plan.num_runs}, {plan.spent:,.2f} of {plan.budget:,g} {hours} (profile {plan.profile}).",
        *(f"  {backbone}: {text}" for backbone, text in plan.speed.items()),
        "",
        f"Claims decided: {len(plan.decided)}, each with 80% power or more if the paper's differences are the truth, "
        "in the hardest case of Holm's correction.",
        *([_UNKNOWN_SHARE] if plan.unknown_share else []),
    ]
    for claim_id, power in plan.decided.items():
        how = "by the ratio of one seed per row, provisional" if claim_id in plan.provisional else f"{100 * power:.1f}%"
        lines.append(f"  {claim_id}: {how}")
    if plan.open:
        lines += ["", "Does not decide; on top of this plan each would take:"]
        lines += [
            f"  {item.id}: {item.extra_hours:,.2f} more {hours} (seeds per row: {item.seeds})" for item in plan.open
        ]
        following = plan.open[0]
        total = math.ceil(100 * (plan.spent + following.extra_hours)) / 100
        lines.append(f"The next, {following.id}, is within reach of --budget {total:.2f}{plan.unit.lower()}h.")
    if plan.impossible:
        lines += ["", "No number of seeds can be named for:"]
        lines += [f"  {claim_id}: {reason}" for claim_id, reason in plan.impossible.items()]
    if plan.elsewhere:
        lines += ["", f"Not decidable at this profile at all: {', '.join(plan.elsewhere)}."]
    if plan.recorded:
        lines += [
            "",
            f"{plan.recorded} of these evaluations are recorded in the results folder, but not in the runs folder: "
            "'harness run' would repeat them.",
        ]
    if plan.commands:
        lines += ["", "To type:", *(f"  {command}" for command in plan.commands)]
    text = "\n".join(lines)
    words = legend(text, _BUDGET_WORDS)
    return f"{text}\n\n{words}" if words else text


def rough_duration(seconds: float | None) -> str:
    """``12.1 h``, ``35 min``, ``41 s``, or ``unknown``."""
    if seconds is None:
        return "unknown"
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def or_unknown(value: float | None, form: str) -> str:
    """The formatted value, or the word."""
    return "unknown" if value is None else form.format(value)


def sum_text(total: dict[str, Any], form: str = "") -> str:
    """The sum, or what is known of it and how many runs are not in it."""
    known = form.format(total["known"]) if form else rough_duration(total["known"])
    if total["value"] is not None:
        return known
    rest = f"unknown for {total['unknown_runs']} runs"
    return f"at least {known} ({rest})" if total["known"] else rest
