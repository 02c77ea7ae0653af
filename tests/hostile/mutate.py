"""Bad versions of a good document: its bytes, tokens and values changed, by what a generator draws."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final, Literal

Kind = Literal["json", "yaml", "lines", "text", "bytes"]

VALUES: Final[tuple[Any, ...]] = (
    *(0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 0.0, -0.0, 0.5, 1e-308, 1e308, True, False, None),
    *("", "x", "0", "1.5", "nan", "../../x", "/etc/passwd", "a\0b", "\ud800", "\x1b]0;x\x07", "a\nb", "e" * 5000),
    *([], {}, [None], [[]], {"": 0}, [0] * 100, "@raw NaN@", "@raw Infinity@", "@raw 1e999@", f"@raw {'9' * 5000}@"),
)
TOKENS: Final = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"'", b"null", b"NaN", b"1e999", b"-", b"\n", b"\t", b"\0", b"\xff"),
    *(
        b"&a ",
        b"*a",
        b"!!python/name:os.system ",
        b"!!binary ",
        b"? ",
        b"<<: ",
        b"---\n",
        b"%YAML 2.0\n",
        b"2024-13-45",
    ),
    *(b"\xef\xbb\xbf", b"\r", b"#", b"| ", b"- " * 50, b"[" * 200, b"9" * 500, b"4:30", b"0o7", b"\x1b[31m"),
)


def mutated(document: bytes, kind: Kind, draw: Random) -> bytes:
    """One to four changes. A change of values needs a document that can be read; others work on any bytes."""
    for _ in range(draw.randint(1, 4)):
        if kind == "json" and draw.random() < 0.6:
            document = _other_values(document, draw)
        elif kind in ("yaml", "lines", "text") and draw.random() < 0.5:
            document = _other_lines(document, draw)
        else:
            document = draw.choice(_BYTES)(document, draw)
    return document


def _other_values(document: bytes, draw: Random) -> bytes:
    try:
        data = json.loads(document)
        place = _place(data, draw)
    except (ValueError, RecursionError):
        return draw.choice(_BYTES)(document, draw)
    if place is None:
        return json.dumps(draw.choice(VALUES)).encode()
    holder, key = place
    way = draw.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[f"@twice {key}"] = draw.choice(VALUES)
    elif way == 2:
        holder[key] = _nested(holder[key], draw.choice((1, 2, 150)))
    elif way == 3 and isinstance(holder, list):
        holder.append(holder[key])
    elif way == 4 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * draw.choice((-1, 2, 10**6, 1e300))
    else:
        holder[key] = draw.choice(VALUES)
    text = json.dumps(data).replace('"@twice ', '"')
    return re.sub(r'"@raw (\S+)@"', r"\1", text).encode()


def _place(data: Any, draw: Random) -> tuple[Any, Any] | None:
    """A list or object anywhere in the data, and one of its keys."""
    place = None
    while isinstance(data, dict | list) and data:
        key = draw.choice(list(data)) if isinstance(data, dict) else draw.randrange(len(data))
        place, data = (data, key), data[key]
        if draw.random() < 0.25:
            break
    return place


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _other_lines(document: bytes, draw: Random) -> bytes:
    lines = document.split(b"\n")
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    way = draw.randrange(4)
    if way == 0:
        lines.insert(i, lines[j])
    elif way == 1:
        del lines[i]
    elif way == 2:
        lines[i] = b"  " + lines[i]
    else:
        head, mark, _ = lines[i].partition(b":")
        lines[i] = head + mark + b" " + draw.choice(TOKENS)
    return b"\n".join(lines)


def _flip(document: bytes, draw: Random) -> bytes:
    if not document:
        return b"\x01"
    found = bytearray(document)
    found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def _cut(document: bytes, draw: Random) -> bytes:
    return document[: draw.randint(0, len(document))]


def _leave_out(document: bytes, draw: Random) -> bytes:
    start = draw.randint(0, len(document))
    return document[:start] + document[start + draw.randint(1, 20) :]


def _insert(document: bytes, draw: Random) -> bytes:
    place = draw.randint(0, len(document))
    return document[:place] + draw.choice(TOKENS) + document[place:]


def _repeat(document: bytes, draw: Random) -> bytes:
    start = draw.randint(0, len(document))
    end = start + draw.randint(1, 60)
    return document[:end] + document[start:end] * draw.choice((1, 3, 30)) + document[end:]


def _blank(document: bytes, draw: Random) -> bytes:
    start, length = draw.randint(0, len(document)), draw.randint(1, 40)
    return document[:start] + bytes(length) + document[start + length :]


_BYTES: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (_flip, _cut, _leave_out, _insert, _repeat, _blank)
