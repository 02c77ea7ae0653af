"""A forest plot of claims: each contrast with its interval, the paper's own difference, and the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from harness.figures import style
from harness.figures.figure import INCHES, Figure, Numbers, Width
from harness.figures.rows.contrasts import COLUMNS, JudgedClaim, Line, judged_claims
from harness.figures.rows.panels import cut, width_of
from harness.figures.rows.shown import empty, labels, seeds_text
from harness.planning.selection import Selection
from harness.verdicts.judge import ClaimOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MINUS: Final = "\u2212"
SYMBOLS: Final[dict[ClaimOutcome, str]] = {
    "supported": "✓",
    "contradicted": "✗",
    "undecided": "?",
    "not decidable here": "\u2013",
}
# Panels by what a value is of: metrics of other units, and other quantities, have axes of their own.
PANELS: Final = {
    "AP": f"a {MINUS} b, AP points",
    "collapse": f"a {MINUS} b / 2, AP points",
    "score": "score, or difference of scores",
    "ratio": "ratio of deviations",
}
_SCORES: Final = ("positive_score", "negative_score", "foreground_gap", "low_score_share", "negative_evenness")
_LINE: Final = 0.135  # inches of height
_LETTER: Final = 0.054  # inches of width, on average
_AXIS, _TOP, _GAP = 0.36, 0.04, 0.1  # inches: below a panel, above the first, between two
_RIGHT: Final = 0.1  # inches
_BESIDE: Final[dict[str, Any]] = {
    "xycoords": ("axes fraction", "data"),
    "textcoords": "offset points",
    "annotation_clip": False,
}
_INSIDE: Final[dict[str, Any]] = {"xycoords": ("axes fraction", "data")}
MOST_LETTERS: Final = 40  # of a contrast's name
_REASON_LINES: Final[dict[Width, int]] = {"column": 3, "page": 2}


def figure(selection: Selection) -> Figure:
    """The claims that name a row of the target; all of them where the target is ``all``.

    Empty where the profile can decide none of them.
    """
    judged = judged_claims(selection)
    title = f"Claims at profile {selection.profile.name}"
    if not judged:
        missing = f"No claim names a row of {selection.target}. Next: harness check all"
        return empty("claims", title, COLUMNS, missing)
    profile = selection.profile.name
    if not any(item.decidable for item in judged):
        missing = f"No claim about these rows can be decided at profile {profile}."
        missing += f" Why: harness check {selection.target} --profile {profile}"
        return empty("claims", title, COLUMNS, missing)
    return Figure(
        name="claims",
        title=title,
        caption=_caption(selection, judged),
        numbers=Numbers(COLUMNS, [row for item in judged for row in item.rows()]),
        draw=lambda canvas: _draw(canvas, judged, profile),
        height={"column": _height(judged, "column"), "page": _height(judged, "page")},
        claims=tuple(item.claim.id for item in judged),
    )


def _caption(selection: Selection, judged: Sequence[JudgedClaim]) -> str:
    decidable = [item for item in judged if item.decidable]
    counts = [n for item in decidable for line in item.lines for n in ((line.n_a, line.n_b) if line.b else (line.n_a,))]
    have = seeds_text(n for n in counts if n) if any(counts) else "no finished run of their rows yet"
    of_paper = (
        "The diamond is the paper's own difference"
        if selection.profile.compare_with_paper
        else "The diamond is the paper's own difference, which is of its own scale: compare its side, not its size"
    )
    return (
        f"Claims at profile {selection.profile.name} ({have}), a line per contrast of rows: the difference of the "
        "means and its 95% interval, without correction for the number of claims; where it ends in an arrow, it goes "
        f"on. The shaded part is where the claim holds. {of_paper}; a triangle is a difference that the paper states "
        "as the smallest of several. Verdicts are at 5%, corrected over all claims that the profile can decide (Holm): "
        "✓ supported, ✗ contradicted, ? undecided. Provisional: by too few seeds for a test. The claims listed below "
        "cannot be decided at this profile, for the reasons in grey."
    )


def panels(judged: Sequence[JudgedClaim]) -> dict[str, list[JudgedClaim]]:
    """The decidable claims by panel, in the order of ``PANELS``; none without claims."""
    found: dict[str, list[JudgedClaim]] = {name: [] for name in PANELS}
    for item in judged:
        if item.decidable:
            found[_panel(item)].append(item)
    return {name: items for name, items in found.items() if items}


def _panel(item: JudgedClaim) -> str:
    if item.claim.metric == "score_deviation_ratio":
        return "ratio"
    if item.claim.metric in _SCORES:
        return "score"
    return "collapse" if item.claim.kind == "collapses" else "AP"


def _num_lines(items: Sequence[JudgedClaim]) -> int:
    return sum(1 + len(item.lines) for item in items)


def _reasons(judged: Sequence[JudgedClaim], width: Width) -> list[tuple[list[str], list[str]]]:
    """Lines on the claims that cannot be decided here: the names that share a reason, and the reason, shortened."""
    by_reason: dict[str, list[str]] = {}
    for item in judged:
        if not item.decidable:
            by_reason.setdefault(item.verdict.reason, []).append(item.claim.id)
    letters, most = int(INCHES[width] / _LETTER) - 2, _REASON_LINES[width]
    found = []
    for reason, names in by_reason.items():
        short = textwrap.shorten(reason, letters * most - 10, placeholder=" …")
        listed = textwrap.wrap(", ".join(names), letters, break_on_hyphens=False)
        found.append((listed, textwrap.wrap(short, letters)[:most]))
    return found


def _height(judged: Sequence[JudgedClaim], width: Width) -> float:
    plots = panels(judged).values()
    away = sum(len(names) + len(lines) for names, lines in _reasons(judged, width))
    heights = [_num_lines(items) * _LINE + _AXIS for items in plots]
    return _TOP + sum(heights) + _GAP * len(heights) + ((away + 1.5) * _LINE if away else 0.0)


def _draw(canvas: Canvas, judged: Sequence[JudgedClaim], profile: str) -> None:
    canvas.set_layout_engine("none")
    wide, high = canvas.get_size_inches()
    width = width_of(canvas)
    names = labels(dict.fromkeys(ref for item in judged if item.decidable for ref in item.claim.refs()))
    longest = max(
        (
            len(_label(line, names, item.claim.kind == "collapses"))
            for item in judged
            if item.decidable
            for line in item.lines
        ),
        default=0,
    )
    left = min(longest * _LETTER + 0.1, 0.48 * wide)
    top = high - _TOP
    for panel, items in panels(judged).items():
        inside = _num_lines(items) * _LINE
        place = (left / wide, (top - inside) / high, (wide - left - _RIGHT) / wide, inside / high)
        _draw_panel(canvas.add_axes(place), panel, items, names, (left, wide))
        top -= inside + _AXIS + _GAP
    _write_reasons(canvas, _reasons(judged, width), profile, top)


def _draw_panel(
    axes: Axes, panel: str, items: Sequence[JudgedClaim], names: dict[str, str], inches: tuple[float, float]
) -> None:
    """inches: of the names beside it, and of the whole figure's width."""
    left, wide = inches
    ends = limits(items)
    axes.set_xlim(*ends)
    axes.set_ylim(_num_lines(items) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlabel(PANELS[panel], labelpad=1.5)
    axes.spines["left"].set_visible(False)
    at = 0
    for item in items:
        _write_claim(axes, item, at, left, wide)
        for line in item.lines:
            at += 1
            _shade(axes, item, at, ends)
            _draw_line(axes, item, line, at, ends)
            axes.annotate(
                _label(line, names, item.claim.kind == "collapses"),
                (0, at),
                (-5, 0),
                **_BESIDE,
                ha="right",
                va="center",
            )
        at += 1


def _write_claim(axes: Axes, item: JudgedClaim, at: int, left: float, wide: float) -> None:
    """Its id and, where there is room, its text on the left, and the verdict on the right."""
    verdict = item.verdict
    colour = style.OUTCOMES[verdict.outcome].colour
    said = f"{SYMBOLS[verdict.outcome]} {verdict.outcome}" + (" (provisional)" if verdict.provisional else "")
    letters = int((wide - _RIGHT) / _LETTER) - len(said) - 3
    text = item.claim.id
    if letters > len(text) + 30:
        text = textwrap.shorten(f"{text}: {item.claim.text}", letters, placeholder=" …")
    axes.annotate(text, (0, at), (-72 * left + 3, 0), **_BESIDE, va="center")
    axes.annotate(said, (1, at), (72 * _RIGHT - 3, 0), **_BESIDE, ha="right", va="center", color=colour)


def _shade(axes: Axes, item: JudgedClaim, at: int, ends: tuple[float, float]) -> None:
    """Where the claim holds, and a line at each end of it."""
    low = ends[0] if item.above is None else item.above
    high = ends[1] if item.below is None else item.below
    axes.fill_betweenx([at - 0.5, at + 0.5], low, high, color=style.FAINT, alpha=style.BAND, linewidth=0, zorder=0)
    for bound in (item.above, item.below):
        if bound is not None:
            axes.plot([bound, bound], [at - 0.5, at + 0.5], **style.reference(), zorder=1)


def _draw_line(axes: Axes, item: JudgedClaim, line: Line, at: int, ends: tuple[float, float]) -> None:
    mark = style.OUTCOMES[item.verdict.outcome]
    if line.paper is not None:
        shape = ">" if line.paper_is_least else "D"
        look: dict[str, Any] = {"color": style.FAINT, "markerfacecolor": style.PAPER, "markersize": 4.5}
        axes.plot([line.paper], [at], linestyle="none", marker=shape, zorder=2, **look)
    if line.value is None:
        place, side = _free_side(item, line, ends)
        axes.annotate("no run", (place, at), **_INSIDE, ha=side, va="center", color=style.FAINT)
        return
    if line.low is not None and line.high is not None:
        low, high = max(line.low, ends[0]), min(line.high, ends[1])
        axes.plot([low, high], [at, at], color=mark.colour, linewidth=style.LINE, zorder=3)
        for end, goes_on, arrow in ((low, line.low < ends[0], "<"), (high, line.high > ends[1], ">")):
            if goes_on:
                look = {"marker": arrow, "color": mark.colour, "markersize": 3}
                axes.plot([end], [at], linestyle="none", clip_on=False, zorder=3, **look)
    axes.plot([line.value], [at], linestyle="none", zorder=4, label=item.claim.id, **mark.point())


def _free_side(item: JudgedClaim, line: Line, ends: tuple[float, float]) -> tuple[float, Literal["left", "right"]]:
    """Where words on a line without a run do not lie on what is drawn there: a share of the axis, and the alignment."""
    taken = [value for value in (item.above, item.below, line.paper) if value is not None]
    shares = [(value - ends[0]) / (ends[1] - ends[0]) for value in taken]
    left, right = min(shares, default=1.0), 1.0 - max(shares, default=0.0)
    return (0.02, "left") if left >= right else (0.98, "right")


def limits(items: Sequence[JudgedClaim]) -> tuple[float, float]:
    """Ends of an axis that has every value, the paper's too; intervals reach out of it where they are very wide."""
    lines = [line for item in items for line in item.lines]
    points = [value for line in lines for value in (line.value, line.paper) if value is not None]
    points += [bound for item in items for bound in (item.above, item.below) if bound is not None]
    low, high = min(points), max(points)
    span = high - low or 1.0
    low = max(low - span, min([low, *(line.low for line in lines if line.low is not None)]))
    high = min(high + span, max([high, *(line.high for line in lines if line.high is not None)]))
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


def _write_reasons(canvas: Canvas, reasons: list[tuple[list[str], list[str]]], profile: str, top: float) -> None:
    """top: inches from below."""
    if not reasons:
        return
    lines = [(f"Not decidable at profile {profile}:", style.INK, 0.05)]
    for names, said in reasons:
        lines += [(text, style.INK, 0.05) for text in names]
        lines += [(text, style.FAINT, 0.12) for text in said]
    wide, high = canvas.get_size_inches()
    for i, (text, colour, left) in enumerate(lines):
        canvas.text(left / wide, (top - (i + 0.5) * _LINE) / high, text, color=colour, va="center")


def _label(line: Line, names: dict[str, str], half: bool) -> str:
    text = names[line.a] if line.b is None else f"{names[line.a]} {MINUS} {names[line.b]}" + (" / 2" if half else "")
    return cut(text, MOST_LETTERS)
