"""What kinds of errors the sides make, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from detector.storage.shown import one_line
from harness.console.layout import table, text_width
from harness.report.compare.comparison import Comparison, SideView
from harness.report.compare.errors import NUMBERS, Errors, ErrorsOf, Group
from harness.report.compare.noise import Difference

MOST_CLASSES = 5  # that are shown
NAME_WIDTH = 20  # of a class
WHAT_LOST_IS = (
    "Lost is what AP50 would win if all errors of one kind were mended and no others (TIDE, Bolya et al., 2020); the "
    "kinds do not add up. classification: wrong class, right place; localisation: IoU of 0.1 to 0.5; both: of the two "
    "together; duplicate: of a box that is found; background: on no object; missed: no detection."
)
TITLES: dict[Group, str] = {"size": "by size of object", "objects": "by objects in the image"}


def errors_text(view: Comparison, marks: Sequence[str], width: int | None = None) -> list[str]:
    """Blocks: the means of all sides, then each side against the first, and for whom what is unknown, and why.

    marks: a letter per side. width: of the terminal.
    """
    parts = {group: [part for part in view.errors.parts if part.group == group] for group in ("size", "objects")}
    whole = next((part for part in view.errors.parts if part.group == "all"), None)
    blocks = []
    if whole is not None:
        blocks = [_means(whole, marks, width)]
        for i, mark in enumerate(marks[1:]):
            if whole.differences[i] is not None:
                pair = (marks[0], mark)
                blocks.append(_differences(pair, i, TITLES["size"], [whole, *_known(parts["size"], i)], width))
                blocks.append(_differences(pair, i, TITLES["objects"], _known(parts["objects"], i), width))
                blocks.append(_classes(pair, i, view.errors, width))
        blocks.append(_wrap(WHAT_LOST_IS, width))
    again = [f"{mark} ({count})" for mark, count in zip(marks, view.errors.from_detections, strict=True) if count]
    if again:
        blocks.append(_wrap(f"Found now, from the detections beside the run (records): {', '.join(again)}.", width))
    return [block for block in [*blocks, *_unknown(view, marks, width)] if block]


def _known(parts: Sequence[ErrorsOf], i: int) -> list[ErrorsOf]:
    return [part for part in parts if part.differences[i] is not None]


def _wrap(text: str, width: int | None) -> str:
    return textwrap.fill(text, text_width(width), break_long_words=False, break_on_hyphens=False)


def _row_name(number: str) -> str:
    return number if number == "AP50" else f"lost: {number}"


def _means(whole: ErrorsOf, marks: Sequence[str], width: int | None) -> str:
    rows = [
        [_row_name(number), *(f"{values[number]:.1f}" if values else "-" for values in whole.sides)]
        for number in NUMBERS
    ]
    return _table(["points of AP50", *marks], rows, width)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    right = ["left", *["right"] * (len(heads) - 1)]
    return table(rows, heads, width, disable_numparse=True, colalign=right)


def _differences(pair: tuple[str, str], i: int, title: str, parts: Sequence[ErrorsOf], width: int | None) -> str:
    """One column per part; i: position of the contrast."""
    if not parts:
        return ""
    first, other = pair
    rows = [["boxes", *("" if part.boxes is None else f"{part.boxes:,}" for part in parts)]]
    for mark, side in ((first, 0), (other, i + 1)):
        rows.append([f"AP50 of {mark}", *(_mean_of(part, side) for part in parts)])
    for number in NUMBERS:
        rows.append([_row_name(number), *(_change(part, i, number) for part in parts)])
    return _table([f"{other} - {first}, {title}", *(part.name for part in parts)], rows, width)


def _mean_of(part: ErrorsOf, side: int) -> str:
    values = part.sides[side]
    return "-" if values is None else f"{values['AP50']:.1f}"


def _change(part: ErrorsOf, i: int, number: str) -> str:
    found = part.differences[i]
    return "-" if found is None else _with_noise(found[number])


def _with_noise(found: Difference) -> str:
    return f"{found.value:+z.1f}" + (f" ± {found.seeds:.1f}" if found.seeds is not None else "")


def _classes(pair: tuple[str, str], i: int, errors: Errors, width: int | None) -> str:
    """Those whose AP50 changed most, and which kind of error did most of it."""
    first, other = pair
    changed = [(part, found) for part in errors.parts if part.group == "class" and (found := part.differences[i])]
    changed.sort(key=lambda pair: (-abs(pair[1]["AP50"].value), pair[0].id))
    rows = []
    for part, found in changed[:MOST_CLASSES]:
        kind = max(NUMBERS[1:], key=lambda number: abs(found[number].value))
        means = [_mean_of(part, side) for side in (0, i + 1)]
        most = f"{kind} {found[kind].value:+z.1f}"
        rows.append([_short(part.name), f"{part.boxes:,}", *means, _with_noise(found["AP50"]), most])
    if not rows:
        return ""
    count = "" if len(changed) <= MOST_CLASSES else f"{MOST_CLASSES} of {len(changed)} "
    heads = [f"{count}classes", "boxes", f"AP50 of {first}", other, f"{other} - {first}", "lost most changed"]
    return _table(heads, rows, width)


def _short(name: str) -> str:
    plain = one_line(name)
    return plain if len(plain) <= NAME_WIDTH else f"{plain[: NAME_WIDTH - 3]}..."


def _unknown(view: Comparison, marks: Sequence[str], width: int | None) -> list[str]:
    reasons: dict[str, list[int]] = {}
    for i, reason in enumerate(view.errors.unknown):
        if reason is not None:
            reasons.setdefault(reason, []).append(i)
    return [
        _reason(reason, [view.sides[i] for i in which], [marks[i] for i in which], width)
        for reason, which in reasons.items()
    ]


def _reason(reason: str, sides: Sequence[SideView], marks: Sequence[str], width: int | None) -> str:
    lines = [_wrap(f"Not all is known of the errors of {' and '.join(marks)}: {reason}.", width)]
    commands = [f"  {side.command} --seeds {max(side.seeds) + 1}" for side in sides if side.command and side.seeds]
    if commands:
        lines += ["Every evaluation writes it now. To have it, run on this machine:", *dict.fromkeys(commands)]
    return "\n".join(lines)
