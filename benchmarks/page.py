"""The measurements as one table, and as a page with plots.

    python -m benchmarks.page docs/performance.md

writes the page from what is kept, without measuring.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace
from tabulate import tabulate

from benchmarks.measure import Curve, Report, Row
from benchmarks.modules import MODULES

HEADERS = ("work", "peer", "peer's time", "ours", "ratio", "goal", "limit", "share of the limit")
GOAL_HEADERS = ("what", "value", "goal", "")
PLOT_INCHES = (5.5, 3.6)

INTRODUCTION = """\
# What it costs

Measured by `make bench`. Peers and ours run in turn in one process, and the times are medians. What counts are the
ratios: the peer's time / ours. A limit is the least time that this machine needs, measured in the same run; the share
is limit / ours. No test asserts a time.
"""
NO_GPU = "No GPU has been measured with this version: `make bench` on a machine with one adds its section here."
RESULTS = Path(__file__).parent / "results"
CPU = "cpu "  # how a CPU's name begins


class Measured(Struct, frozen=True, kw_only=True):
    """All reports of one device, by module."""

    device: str
    versions: dict[str, str]
    day: str
    reports: dict[str, Report]


class ManyRecords(Struct, frozen=True):
    """Of each command: ``seconds`` of processor time, the same over a tenth of the records, and their ratio."""

    records: int
    seconds: dict[str, dict[str, float]] = field(name="processor seconds")


def as_table(reports: Mapping[str, Report], *, style: str = "simple") -> str:
    """All rows of all modules as one table."""
    notes = _notes(reports)
    rows = [_cells(row, notes) for report in reports.values() for row in report.rows]
    table = tabulate(rows, HEADERS, tablefmt=style, disable_numparse=True)
    bullet = "- " if style == "github" else ""
    return "\n".join([table, *([""] if notes else []), *(f"{bullet}[{n}] {note}" for note, n in notes.items())])


def _notes(reports: Mapping[str, Report]) -> dict[str, int]:
    """Every note once, with its number."""
    found = dict.fromkeys(row.note for report in reports.values() for row in report.rows if row.note)
    return {note: number for number, note in enumerate(found, 1)}


def goal_lines(reports: Mapping[str, Report], *, style: str = "simple") -> list[str]:
    """All goals as one table, after an empty line; nothing where none was set."""
    goals = [goal for report in reports.values() for goal in report.goals]
    rows = [
        (goal.what, f"{goal.value:.3g} {goal.unit}", goal.aim, "reached" if goal.is_met else "not reached")
        for goal in goals
    ]
    return ["", tabulate(rows, GOAL_HEADERS, tablefmt=style, disable_numparse=True)] if rows else []


def kept(folder: Path) -> list[Measured]:
    """What is kept for every device, CPUs first."""
    found = []
    for path in sorted(folder.glob("*.json")):
        # Other benchmarks keep their results in the same folder, in another form.
        if isinstance(value := msgspec.json.decode(path.read_bytes()), dict) and "reports" in value:
            measured = msgspec.convert(value, Measured)
            reports = {name: measured.reports[name] for name in MODULES if name in measured.reports}
            found.append(replace(measured, reports=reports))
    return sorted(found, key=lambda measured: (not measured.device.startswith(CPU), measured.device))


def write_page(path: Path, devices: Sequence[Measured]) -> None:
    """The page at ``path``, a section per device; plots in a folder beside it of the same name."""
    parts = [INTRODUCTION]
    if all(measured.device.startswith(CPU) for measured in devices):
        parts.append(NO_GPU)
    parts += _many_records(RESULTS / "many_records.json")
    parts += _side_by_side(devices)
    for measured in devices:
        parts += _section(measured, path.with_suffix(""))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


def _many_records(path: Path) -> list[str]:
    """What ``benchmarks.speed.many_records`` measured, the dearest command first; nothing where it was not run."""
    if not path.is_file():
        return []
    found = msgspec.json.decode(path.read_bytes(), type=ManyRecords)
    lines = sorted(found.seconds.items(), key=lambda item: -item[1]["seconds"])
    rows = [(f"`harness {name}`", f"{each['seconds']:.1f} s", f"{each['ratio']:.1f}") for name, each in lines]
    heads = (f"over {found.records:,} records", "processor time", "times that over a tenth of them")
    return ["## Many records", tabulate(rows, heads, tablefmt="github", disable_numparse=True)]


def _section(measured: Measured, folder: Path) -> list[str]:
    """What one device did. A CPU's plots are in ``folder``, a GPU's in a folder of its own there."""
    versions = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    results = f"../benchmarks/results/{slug(measured.device)}.json"
    parts = [
        f"## {measured.device}",
        f"Measured {measured.day} ({versions}). Numbers: [{results}]({results}).",
        as_table(measured.reports, style="github"),
    ]
    goals = goal_lines(measured.reports, style="github")
    parts += ["### Goals", *goals[1:]] if goals else []
    facts = [
        f"- {name}: {_fact(value)}" for report in measured.reports.values() for name, value in report.facts.items()
    ]
    parts += ["### Beside times", "\n".join(facts)] if facts else []
    places = folder if measured.device.startswith(CPU) else folder / slug(measured.device)
    plots = [_plot(curve, places, folder.parent) for report in measured.reports.values() for curve in report.curves]
    return [*parts, "### How the cost grows", *plots] if plots else parts


def _side_by_side(devices: Sequence[Measured]) -> list[str]:
    """Work that several devices did: a table with a column of our times per device."""
    times: dict[str, dict[str, float]] = {}
    for measured in devices:
        for row in (row for report in measured.reports.values() for row in report.rows):
            times.setdefault(_work_alone(row.work, measured.device), {}).setdefault(measured.device, row.seconds)
    shared = {work: found for work, found in times.items() if len(found) > 1}
    if not shared:
        return []
    names = [measured.device for measured in devices]
    rows = [
        (work, *(_seconds(found[name]) if name in found else "" for name in names)) for work, found in shared.items()
    ]
    table = tabulate(rows, ("work, ours", *names), tablefmt="github", disable_numparse=True)
    return ["## Side by side", "On a CPU with one thread.", table]


def _work_alone(work: str, device: str) -> str:
    """What was done, without where."""
    return ", ".join(part for part in work.split(", ") if part not in (device, "one thread"))


def _cells(row: Row, notes: Mapping[str, int]) -> tuple[str, ...]:
    share = f"{row.limit_seconds / row.seconds:.0%}" if row.limit_seconds else ""
    limit = f"{_seconds(row.limit_seconds)} ({row.limit})" if row.limit_seconds else row.limit
    return (
        row.work + (f" [{notes[row.note]}]" if row.note else ""),
        row.peer,
        _seconds(row.peer_seconds),
        _seconds(row.seconds),
        f"{row.ratio:.3g}",
        row.goal,
        limit,
        share,
    )


def _seconds(value: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _fact(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def slug(text: str) -> str:
    """A name for a file, from any text."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def _plot(curve: Curve, folder: Path, page: Path) -> str:
    """A PNG in ``folder``; returns the line that shows it on a page in the folder ``page``."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=PLOT_INCHES, layout="constrained")
    for name, values in curve.series.items():
        axes.plot(curve.xs, values, marker="o", label=name)
    ys = [value for values in curve.series.values() for value in values]
    if min(curve.xs) > 0 and max(curve.xs) / min(curve.xs) > 20:
        axes.set_xscale("log")
    else:
        axes.set_xticks(curve.xs)
    if min(ys) > 0 and max(ys) / min(ys) > 10:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(ys))
    axes.set(title=curve.title, xlabel=curve.x, ylabel=curve.unit)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{slug(curve.title)}.png"
    figure.savefig(folder / name, dpi=110)
    pyplot.close(figure)
    return f"![{curve.title}]({(folder / name).relative_to(page)})" + (f"\n\n{curve.note}" if curve.note else "")


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), kept(RESULTS))
