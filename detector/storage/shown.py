"""Text from data as it is shown: nothing in it acts on a terminal. Imports nothing of ours."""

from __future__ import annotations

import re

# C0 without tab and line feed, DEL, C1, line and paragraph separators, marks that change the direction of text, and
# halves of surrogate pairs, which no terminal can print.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile("[\t\n]")


def shown(text: str) -> str:
    """``text`` with every control character written out, such as ``\\x1b``; tabs and line feeds stay.

    JSON stays JSON: what may stand in it as it is is written in JSON's way (``\\u009b``).
    """
    return _ACTS.sub(_written, text)


def one_line(text: str) -> str:
    """``text`` as ``shown`` gives it, on one line: tabs and line feeds are written out too."""
    return _BREAKS.sub(_written, shown(text))


def _written(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if found[0] >= "\x7f" else repr(found[0])[1:-1]
