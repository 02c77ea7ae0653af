"""The measurements as one table, and as a page with plots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from tabulate import tabulate

from benchmarks.measure import Curve, Report, Row

HEADERS = ("work", "peer", "peer's time", "ours", "ratio", "goal", "limit", "share of the limit")
PLOT_INCHES = (5.5, 3.6)

INTRODUCTION = """\
# What it costs

Measured by `make bench` on {device} ({versions}), {day}. Peers and ours run in turn in one process, and the times are
medians. What counts are the ratios: the peer's time / ours. A limit is the least time that this machine needs, measured
in the same run; the share is limit / ours. No test asserts a time. Numbers: [{results}]({results}).
"""


class Measured(Struct, frozen=True, kw_only=True):
    """All reports of one device, by module."""

    device: str
    versions: dict[str, str]
    day: str
    reports: dict[str, Report]


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


def write_page(path: Path, measured: Measured) -> None:
    """The page at ``path``, its plots in a folder beside it of the same name."""
    versions = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    results = f"../benchmarks/results/{slug(measured.device)}.json"
    parts = [INTRODUCTION.format(device=measured.device, versions=versions, day=measured.day, results=results)]
    parts.append(as_table(measured.reports, style="github"))
    facts = [
        f"- {name}: {_fact(value)}" for report in measured.reports.values() for name, value in report.facts.items()
    ]
    if facts:
        parts.append("\n".join(["## Beside times", "", *facts]))
    folder = path.with_suffix("")
    plots = [_plot(curve, folder) for report in measured.reports.values() for curve in report.curves]
    if plots:
        parts.append("\n\n".join(["## How the cost grows", *plots]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


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


def _plot(curve: Curve, folder: Path) -> str:
    """A PNG in ``folder``; returns the line that shows it."""
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
    return f"![{curve.title}]({folder.name}/{name})" + (f"\n\n{curve.note}" if curve.note else "")
