"""The end of a log, and its last lines for a person."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 16_384
_LAUNCHERS = re.compile(r"^submitit (?:INFO|ERROR) |(?:INFO|ERROR) submitit: ")


def tail(path: Path, lines: int | None = None) -> str:
    """The end of a text file, at most ``lines`` lines (None: the last 16 KB; 0: all of it). "" without the file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if lines is None:
                file.seek(max(0, size - TAIL_BYTES))
                return file.read().decode(errors="replace")
            file.seek(0)
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    kept = text.splitlines(keepends=True)
    return "".join(kept[-lines:] if lines else kept)


def last_lines(text: str, without: str = "", count: int = 6, width: int = 160) -> list[str]:
    """The last lines, each cut to ``width``; without the launcher's and without those that repeat ``without``."""
    repeated = without[:60].splitlines()[:1]
    kept = [
        line.rstrip()
        for line in text.splitlines()
        if line.strip() and not _LAUNCHERS.search(line) and not any(said in line for said in repeated)
    ]
    return [line if len(line) <= width else f"{line[: width - 3]}..." for line in kept[-count:]]
