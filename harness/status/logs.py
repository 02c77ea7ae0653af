"""A run's output: the files into which the launcher writes what its processes print, and following a growing file."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable
from pathlib import Path

from detector.runs.folder import RunDir
from detector.storage.reading import regular_file
from harness.failures.log_tail import ANY_SIZE, MOST_BYTES

FOLLOW_SECONDS = 0.3
# submitit's names: JOB_RANK_log.out. JOB is a process id on this machine, ARRAY or ARRAY_ELEMENT on a cluster.
_OUTPUT = re.compile(r"(?P<job>.+)_(?P<rank>\d+)_log\.(?P<stream>out|err)")


def outputs(run: RunDir) -> dict[int, list[Path]]:
    """For each rank the output files of its newest start: .out, then .err if there is one and it is not empty."""
    from harness.slurm.outputs import submitted_outputs

    found: dict[int, list[tuple[float, str, Path]]] = {}
    for path in [*run.submitit.glob("*_log.*"), *submitted_outputs(run)]:
        match = _OUTPUT.fullmatch(path.name)
        if match and path.is_file():
            changed = path.stat().st_mtime
            found.setdefault(int(match["rank"]), []).append((changed, match["job"], path))
    newest = {}
    for rank, files in sorted(found.items()):
        job = max(files)[1]
        of_job = sorted((path for _, name, path in files if name == job), key=lambda path: path.suffix, reverse=True)
        newest[rank] = [path for path in of_job if path.suffix == ".out" or path.stat().st_size]
    return newest


def output(run: RunDir, rank: int) -> Path | None:
    """The output file of a rank's newest start, .err before .out; None where there is none."""
    return next(reversed(outputs(run).get(rank, [])), None)


def follow(
    path: Callable[[], Path | None], start: int, ended: Callable[[], bool], write: Callable[[str], None]
) -> None:
    """Write what is appended to ``path()`` after byte ``start``, until ``ended()`` is true and all is written.

    path: called again each time; where it names another file (a new start), that file is written from its beginning.
    """
    current, position = path(), start
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        last = ended()  # called first, so that what was written before the end is still read
        if (now := path()) != current:
            current, position = now, 0
        data = b""
        if current is not None and current.exists():
            with regular_file(current, most=ANY_SIZE) as file:
                position = position if position <= file.seek(0, 2) else 0  # cut or replaced: read from its beginning
                file.seek(position)
                data = file.read(MOST_BYTES)
            position += len(data)
            if data:
                write(decoder.decode(data))
        if last and len(data) < MOST_BYTES:
            return
        time.sleep(FOLLOW_SECONDS)
