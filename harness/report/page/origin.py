"""Where the numbers were made and at what cost: environments, times, and the kinds of error in the records."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from msgspec import to_builtins

from detector.runs.record import Record
from harness.report.costs import rough_duration
from harness.report.page.evidence import code_text
from harness.report.page.grids import Cell, Grid, Line, number
from harness.report.page.scales import Scale
from harness.report.page.tables import evidence_anchor


def environment_grid(scales: Sequence[Scale]) -> Grid:
    """Every combination of versions and hardware that runs had, and how many."""
    found: Counter[tuple[str, ...]] = Counter()
    for scale in scales:
        for record in scale.records:
            environment = dict(record.environment)
            device = environment.pop("device", "unknown")
            others = ", ".join(f"{name} {value}" for name, value in sorted(environment.items()))
            found[(scale.name, device, code_text(record), others)] += 1
    lines = tuple(
        Line((*(Cell(text) for text in key), Cell(str(count), float(count)))) for key, count in sorted(found.items())
    )
    headings = ("profile", "device", "code", "environment", "runs")
    return Grid("What the runs were made with", headings, lines, frozenset({0, 1, 2, 3}))


def costs_grid(scales: Sequence[Scale]) -> Grid:
    """What the finished trainings took, by backbone and device."""
    groups: dict[tuple[str, str, str, str], dict[str, Record]] = {}
    for scale in scales:
        for record in scale.records:
            environment = record.environment
            key = (
                scale.name,
                record.job.train.model.backbone,
                environment.get("device", "unknown"),
                environment.get("processes", "1"),
            )
            groups.setdefault(key, {}).setdefault(record.train_id, record)
    lines = []
    for (profile, backbone, device, processes), trainings in sorted(groups.items()):
        train = [record.train_seconds for record in trainings.values()]
        test = [record.eval_seconds for record in trainings.values()]
        hours = sum(train + test) * int(processes if processes.isdigit() else 1) / 3600
        lines.append(
            Line(
                (
                    *(Cell(text) for text in (profile, backbone, device)),
                    Cell(processes, float(processes) if processes.isdigit() else None),
                    Cell(str(len(train)), float(len(train))),
                    Cell(rough_duration(statistics.median(train)), statistics.median(train)),
                    Cell(rough_duration(statistics.median(test)), statistics.median(test)),
                    number(hours, 2),
                )
            )
        )
    headings = ("profile", "backbone", "device", "processes", "trainings", "median training", "median test", "hours")
    note = "Hours: of all processes together, training and test. A training that several rows share counts once."
    return Grid("What the finished trainings took", headings, tuple(lines), frozenset({0, 1, 2}), notes=(note,))


def errors_grid(scale: Scale) -> Grid | None:
    """By row, the AP lost to each kind of error, the mean of its seeds; None where no record has it."""
    names: dict[str, None] = {}
    lines = []
    for ref, chosen in scale.chosen.items():
        found = [to_builtins(record.lost_ap) for record in chosen.kept if record.lost_ap is not None]
        if not found:
            continue
        names |= dict.fromkeys(name for name, value in found[0].items() if isinstance(value, float | int))
        means = [statistics.fmean(item[name] for item in found) for name in names]
        count = Cell(str(len(found)), float(len(found)))
        lines.append(Line((Cell(ref, href=evidence_anchor(scale, ref)), count, *(number(mean) for mean in means))))
    if not lines:
        return None
    note = (
        "AP at IoU 0.5, in percent, that would be won if all errors of this kind were mended (the mean over a row's "
        "seeds). The kinds do not add up: mending one changes what the others cost."
    )
    headings = ("row", "n", *names)
    return Grid(f"AP lost by kind of error, profile {scale.name}", headings, tuple(lines), notes=(note,))


def without_later_fields(scale: Scale) -> str:
    """Once per page and scale, what its records of format 1 do not have, and how to get it; "" where there are none."""
    old = sum(record.format == 1 for record in scale.records)
    if not old:
        return ""
    return (
        f"{old} of {len(scale.records)} records at profile {scale.name} are of format 1. They have no starts, no "
        "digests of weights and images, no scores by bin, no curves and no kinds of error; what needs them is not "
        f"shown. Runs that are made anew have all of it: harness run {scale.selection.target} --profile {scale.name}"
    )
