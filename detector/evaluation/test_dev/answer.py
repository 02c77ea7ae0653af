"""Reads COCO's numbers, in percent, from the evaluation server's answer, text or JSON. Free of torch.

Nothing is guessed: what is missing, cut off, out of range or contradictory is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from detector.evaluation.scoring import METRICS
from detector.runs.record import OF_A_SIZE
from detector.storage.reading import decode_text, read_bytes

REQUIRED = METRICS[:6]
MAX_BYTES = 1_000_000
NOTE = "numbers of the evaluation server, as printed"

# The keys of scores.txt and of the JSON.
KEYS = dict(
    zip(
        (
            *("AP", "AP_50", "AP_75", "AP_small", "AP_medium", "AP_large"),
            *("AR_max_1", "AR_max_10", "AR_max_100", "AR_small", "AR_medium", "AR_large"),
        ),
        METRICS,
        strict=True,
    )
)
# (AP or AR, IoU, area, maxDets) of pycocotools' twelve lines.
LINES: dict[tuple[str, ...], str] = dict(
    zip(
        (
            *(("AP", iou, "all", "100") for iou in ("0.50:0.95", "0.50", "0.75")),
            *(("AP", "0.50:0.95", area, "100") for area in ("small", "medium", "large")),
            *(("AR", "0.50:0.95", "all", count) for count in ("1", "10", "100")),
            *(("AR", "0.50:0.95", area, "100") for area in ("small", "medium", "large")),
        ),
        METRICS,
        strict=True,
    )
)
LINE = re.compile(r"\((AP|AR)\)\s*@\[\s*IoU=(\S+)\s*\|\s*area=\s*(\w+)\s*\|\s*maxDets=\s*(\d+)\s*\]\s*=[ \t]*(\S+)")
KEY_VALUE = re.compile(rf"^[ \t]*({'|'.join(map(re.escape, KEYS))})[ \t]*[:=][ \t]*(\S+)[ \t]*\r?$", re.MULTILINE)
SPLIT_NAME = re.compile(r"(train|val|minival|test)[a-z-]*20\d\d")


def read_answer(path: Path, split: str) -> dict[str, float | None]:
    """The numbers in a file that the server printed for ``split``, in percent, None for "no object of that size".

    It may hold pycocotools' summary, ``AP_50: 0.609`` lines, or JSON with these keys; fractions or percent. The six
    AP are always there, the six AR where the file has them. Raises UsageError for anything else.
    """
    try:
        content = read_bytes(path, raises=UsageError)
    except UsageError as error:
        raise UsageError(f"{error} Give the file with the server's answer.") from error
    try:
        text = decode_text(content, where=str(path), raises=UsageError) if len(content) <= MAX_BYTES else None
    except UsageError:
        text = None
    if text is None:
        raise UsageError(f"{path} is not text of the evaluation server. Known: its summary, scores.txt, or its JSON.")
    try:
        return parse_answer(text, split)
    except RecursionError as error:
        raise UsageError(f"{path} cannot be recorded: it is nested too deep. Nothing was written.") from error
    except ValueError as error:
        raise UsageError(f"{path} cannot be recorded: {error}. Nothing was written.") from error


def parse_answer(text: str, split: str) -> dict[str, float | None]:
    """As ``read_answer``, of the file's text. Raises ValueError with the reason."""
    values: dict[str, float] = {}
    for name, number in _pairs(text, split):
        value = _number(name, number)
        if values.setdefault(name, value) != value:
            raise ValueError(f"it has two values for {name}: {values[name]:g} and {value:g}")
    if not values:
        raise ValueError(
            "it has none of the server's numbers. Known: pycocotools' summary lines, lines such as 'AP_50: 0.609', "
            "or JSON with the keys " + ", ".join(KEYS)
        )
    absent = [key for key, name in KEYS.items() if name in REQUIRED and name not in values]
    if absent:
        raise ValueError(f"it is incomplete: no {', '.join(absent)}; the six AP are needed")
    percent = _in_percent(values)
    for name in ("AP", "AP75"):
        if percent[name] > percent["AP50"]:
            raise ValueError(f"{name} {percent[name]:g} is above AP50 {percent['AP50']:g}, which cannot be")
    return {name: None if percent[name] < 0 else percent[name] for name in METRICS if name in percent}


def note(metrics: dict[str, float | None]) -> str:
    """What a record says about these numbers."""
    printed = [value for value in metrics.values() if value is not None]
    return f"{NOTE} (3 decimals)" if all(value == round(value, 1) for value in printed) else NOTE


def _in_percent(values: dict[str, float]) -> dict[str, float]:
    """Fractions or percent to percent, -1 as it is. Zero is either."""
    fractions = [name for name, value in values.items() if 0 < value <= 1]
    percents = [name for name, value in values.items() if value > 1]
    if fractions and percents:
        a, b = fractions[0], percents[0]
        raise ValueError(f"it mixes fractions ({a} {values[a]:g}) with percent ({b} {values[b]:g})")
    factor = 1 if percents else 100
    # Rounded, since 100 * 0.417 is 41.699999999999996.
    return {name: value if value < 0 else round(factor * value, 10) for name, value in values.items()}


def _number(name: str, given: Any) -> float:
    try:
        value = float(given) if isinstance(given, (int, float, str)) and not isinstance(given, bool) else None
    except (ValueError, OverflowError):
        value = None
    if value is None:
        raise ValueError(f"{name} is {given!r}, not a number")
    if not (0 <= value <= 100 or (value == -1 and name in OF_A_SIZE)):
        raise ValueError(f"{name} is {value:g}: out of range (0 to 1, or 0 to 100 in percent)")
    return value


def _pairs(text: str, split: str) -> Iterable[tuple[str, Any]]:
    """(metric, number as given) of every number in the text, whatever its form."""
    try:
        # Objects as tuples of pairs: a key given twice stays visible.
        document = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return _from_text(text)
    return _from_json(document, split)


def _from_text(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    last: tuple[str, str] | None = None  # the number that ends the text, without an end of its line
    for match in (*LINE.finditer(text), *KEY_VALUE.finditer(text)):
        *key, number = match.groups()
        name = LINES.get(tuple(key)) if len(key) > 1 else KEYS[key[0]]
        if name is None:
            continue
        pairs.append((name, number))
        if match.end(len(key) + 1) == len(text):
            last = pairs[-1]
    if last is not None and _decimals(last[1]) < max(_decimals(number) for _, number in pairs):
        raise ValueError(f"it may end within a number ({' '.join(last)}): if it is whole, end its line")
    return pairs


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _from_json(document: Any, split: str) -> list[tuple[str, Any]]:
    found = list(_walk(document, ()))
    of_split = [(KEYS[key], value) for path, key, value in found if split in path]
    if of_split:
        return of_split
    others = sorted({name for path, _, _ in found for name in path if SPLIT_NAME.fullmatch(name)})
    if others:
        raise ValueError(f"its numbers are of {', '.join(others)}, not of {split}")
    return [(KEYS[key], value) for _, key, value in found]


def _walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(keys above, key, value) of every known key at any depth."""
    if isinstance(node, tuple):
        for key, value in node:
            if key in KEYS:
                yield path, key, value
            else:
                yield from _walk(value, (*path, key))
    elif isinstance(node, list):
        for item in node:
            yield from _walk(item, path)
