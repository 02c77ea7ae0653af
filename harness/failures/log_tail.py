"""The end of a log, and its last lines for a person."""

from __future__ import annotations

import os
import re
from pathlib import Path

from detector.errors import RecordError
from detector.storage.reading import open_regular

TAIL_BYTES = 16_384
MOST_BYTES = 64 * 2**20  # of a log that is shown
ANY_SIZE = 2**63
_LAUNCHERS = re.compile(r"^submitit (?:INFO|ERROR) |(?:INFO|ERROR) submitit: ")
# What srun, Slurm's daemon and the batch script print around a program's own words.
# Where bash says of the batch script that a command is not there.
_SCRIPT = re.compile(r"^\S*/slurm_script: line \d+: ")
_SLURMS = re.compile(r"^(?:srun|slurmstepd|harness): ")


def tail(path: Path, lines: int | None = None) -> str:
    """The end of a text file, at most ``lines`` lines (None: the last 16 KB; 0: all of it). "" without the file.

    No more than the last ``MOST_BYTES`` are read, of a longer line or a longer file too. Something else in the place of
    the file is named in its stead.
    """
    if not path.exists():
        return ""
    try:
        with open_regular(path, most=ANY_SIZE) as file:
            wanted = TAIL_BYTES if lines is None else MOST_BYTES
            file.seek(max(0, file.seek(0, os.SEEK_END) - wanted))
            text = file.read(wanted).decode(errors="replace")
    except RecordError as error:
        return f"{error}\n"
    kept = text.splitlines(keepends=True)
    return text if not lines else "".join(kept[-lines:])


def last_lines(text: str, without: str = "", count: int = 6, width: int = 160) -> list[str]:
    """The last lines, each cut to ``width``; without the launcher's and without those that repeat ``without``."""
    repeated = without[:60].splitlines()[:1]
    kept = [
        line.rstrip()
        for line in text.splitlines()
        if line.strip() and not _LAUNCHERS.search(line) and not any(said in line for said in repeated)
    ]
    return [line if len(line) <= width else f"{line[: width - 3]}..." for line in kept[-count:]]


def last_word(text: str) -> str:
    """The last line that a run itself printed; of what Slurm and the launcher printed, where there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not _SLURMS.match(line) and not _LAUNCHERS.search(line)]
    return _SCRIPT.sub("", (own or lines or [""])[-1])
