"""A comparison for a terminal of 80 columns, or of fewer: letters for the sides, then block by block."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from harness.console.layout import table, text_width
from harness.console.legend import legend
from harness.report.compare.comparison import Comparison, SideMean, SideView
from harness.report.compare.conditions import Unequal
from harness.report.compare.curves import CURVES, SideCurve, common_iterations, sparkline
from harness.report.compare.errors_text import errors_text
from harness.report.compare.noise import SHOWN, Contrast, Difference

WHAT_NOISE_IS = (
    "Noise as half of a 95% interval. seeds: how far the difference would move with other seeds; images: how far that "
    "of these very trainings would move on other test images (a bootstrap)."
)

_WORDS = {
    "positive_score": "mean score of the entries of objects, 0 to 1",
    "negative_score": "the same of background",
    "-": "no object of that size, or no such setting there",
    "?": "not known, for the reason given",
}


def comparison_text(view: Comparison, width: int | None = None) -> str:
    """Numbers, differences with both kinds of noise, then what may explain them. width: of the terminal."""
    letters = dict(enumerate(ascii_uppercase))
    marks = [letters.get(i, str(i + 1)) for i in range(len(view.sides))]
    run = [i for i, side in enumerate(view.sides) if side.seeds]
    run_marks = [marks[i] for i in run]
    blocks = [_heading(view, marks, width)]
    if run:
        blocks.append(_metrics(view.sides, marks, width))
    by_name = dict(zip((side.name for side in view.sides), marks, strict=True))
    blocks += [_contrast(item, marks[0], by_name[item.b], width) for item in view.contrasts]
    if view.contrasts:
        blocks.append(_wrap(WHAT_NOISE_IS, width))
    blocks += _images_unknown(view, marks, width)
    blocks += errors_text(view, marks, width)
    same = "Settings: all the same but for the seed."
    blocks.append(_unequal("Settings that differ", view.settings, marks, same, width))
    if len(run) > 1:
        same = "Inputs: the same, as far as is recorded."
        blocks.append(_unequal("Inputs that differ", view.inputs, run_marks, same, width))
        same = "Code, versions and device: the same."
        blocks.append(_unequal("Code, versions and device that differ", view.conditions, run_marks, same, width))
    if run:
        blocks.append(_curves(view.curves, by_name, width))
    text = "\n\n".join(block for block in blocks if block)
    words = legend(text, _WORDS)
    return f"{text}\n\n{_wrap(words, width)}" if words else text


def _wrap(text: str, width: int | None) -> str:
    return textwrap.fill(text, text_width(width), break_long_words=False, break_on_hyphens=False)


def _listed(marks: Sequence[str]) -> str:
    return ", ".join(marks[:-1]) + (" and " if len(marks) > 1 else "") + marks[-1]


def _heading(view: Comparison, marks: Sequence[str], width: int | None) -> str:
    lines = [f"Compared at profile {view.profile}"]
    for mark, side in zip(marks, view.sides, strict=True):
        seeds = ", ".join(map(str, side.seeds))
        what = f"seed{'s' if len(side.seeds) > 1 else ''} {seeds}" if side.seeds else "not run"
        how = f"; to run it: {side.command}" if not side.seeds and side.command else ""
        lines.append(_hang(f"  {mark}  {side.name}: {what}{how}", "     ", width))
    if view.elsewhere:
        lines.append(_wrap(view.elsewhere, width))
    return "\n".join(lines)


def _hang(text: str, indent: str, width: int | None) -> str:
    return textwrap.fill(
        text, text_width(width), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _digits(metric: str) -> int:
    return 3 if metric.endswith("score") else 1


def _metrics(sides: Sequence[SideView], marks: Sequence[str], width: int | None) -> str:
    rows = [[name, *(_mean(side.metrics.get(name), _digits(name)) for side in sides)] for name in SHOWN]
    right = ["left", *["right"] * len(marks)]
    lines = [
        table(rows, ["", *marks], width, disable_numparse=True, colalign=right),
        "Means of the seeds ± the deviation between them.",
    ]
    found = [(mark, side.metrics["AP"].images) for mark, side in zip(marks, sides, strict=True) if "AP" in side.metrics]
    known = ", ".join(f"{mark} {error:.1f}" for mark, error in found if error is not None)
    if known:
        lines.append(f"Standard error of AP from the test set's images: {known}.")
    return "\n".join(lines)


def _mean(value: SideMean | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.{digits}f}" + (f" ± {value.sd:.{digits}f}" if value.sd is not None else "")


def _contrast(item: Contrast, a: str, b: str, width: int | None) -> str:
    rows = [[name, *_difference(found, _digits(name))] for name, found in item.differences.items()]
    heads = [f"{b} - {a}", "difference", "seeds", "images"]
    listed = table(rows, heads, width, disable_numparse=True, colalign=("left", "right", "right", "right"))
    return f"{listed}\n{_wrap(f'seeds: {item.seeds_by}; images: {item.images_by}.', width)}"


def _difference(found: Difference, digits: int) -> list[str]:
    # AP of single seeds lie tenths apart, a bootstrap's noise in a difference may be hundredths.
    halves = (f"± {half:.{digits + 1}f}" if half is not None else "?" for half in (found.seeds, found.images))
    return [f"{found.value:+z.{digits + 1}f}", *halves]


def _images_unknown(view: Comparison, marks: Sequence[str], width: int | None) -> list[str]:
    reasons: dict[str, list[int]] = {}
    for i, side in enumerate(view.sides):
        if side.images_unknown is not None and side.seeds:
            reasons.setdefault(side.images_unknown, []).append(i)
    paragraphs = []
    for reason, which in reasons.items():
        names = _listed([marks[i] for i in which])
        lines = [_wrap(f"The noise of the test set's images is unknown for {names}: {reason}.", width)]
        commands = [
            f"  {view.sides[i].command} --seeds {max(view.sides[i].seeds) + 1}"
            for i in which
            if view.sides[i].command is not None
        ]
        if commands:
            lines.append("Every evaluation writes them now. To have them, run on this machine:")
            lines += dict.fromkeys(commands)
            lines.append(
                _wrap(
                    "(Where a run here was evaluated before, move its evals folder away first: the weights are then "
                    "evaluated again, without training.)",
                    width,
                )
            )
        paragraphs.append("\n".join(lines))
    return paragraphs


def _unequal(title: str, rows: Sequence[Unequal], marks: Sequence[str], none: str, width: int | None) -> str:
    if not rows:
        return none
    return table([[row.name, *row.values] for row in rows], [title, *marks], text_width(width), disable_numparse=True)


def _curves(curves: Sequence[SideCurve], marks: Mapping[str, str], width: int | None) -> str:
    known = [curve for curve in curves if curve.points]
    unknown = [marks[name] for name in dict.fromkeys(curve.side for curve in curves if not curve.points)]
    lines = []
    for kind in CURVES:
        of_kind = [curve for curve in known if curve.curve == kind]
        if of_kind:
            lines += [f"{kind} loss, first seed; each line from its own lowest to its highest"]
            lines += [_curve(curve, marks[curve.side], common_iterations(of_kind)) for curve in of_kind]
            shared = common_iterations(of_kind)
            lines.append(f"   at iterations {', '.join(map(str, shared))}" if shared else "   no common iterations")
    if unknown:
        lines.append(
            _wrap(
                f"Curves are unknown for {_listed(unknown)}: the record has none, and its run's folder is not here.",
                width,
            )
        )
    return "\n".join(lines)


def _curve(curve: SideCurve, mark: str, shared: Sequence[int]) -> str:
    values = " ".join(f"{curve.points[i]:6.3f}" for i in shared)
    return f"{mark}  {sparkline(curve.points)}  {values}"
