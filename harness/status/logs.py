"""What a run wrote for people: log.txt, and what its processes printed into the launcher's files."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable
from pathlib import Path

from detector.runs.folder import RunDir

FOLLOW_SECONDS = 0.3
# submitit's names: JOB_RANK_log.out; JOB is a process id here, ARRAY_ELEMENT on a cluster.
_OUTPUT = re.compile(r"(?P<job>.+)_(?P<rank>\d+)_log\.(?P<stream>out|err)")


def outputs(run: RunDir) -> dict[int, list[Path]]:
    """By rank, what it printed at its newest start: .out, then .err where that is a file of its own and not empty."""
    from harness.slurm.outputs import submitted_outputs

    found: dict[int, list[tuple[float, str, Path]]] = {}
    for path in [*run.submitit.glob("*_log.*"), *submitted_outputs(run)]:
        match = _OUTPUT.fullmatch(path.name)
        if match:
            changed = path.stat().st_mtime
            found.setdefault(int(match["rank"]), []).append((changed, match["job"], path))
    newest = {}
    for rank, files in sorted(found.items()):
        job = max(files)[1]
        of_job = sorted((path for _, name, path in files if name == job), key=lambda path: path.suffix, reverse=True)
        newest[rank] = [path for path in of_job if path.suffix == ".out" or path.stat().st_size]
    return newest


def output(run: RunDir, rank: int) -> Path | None:
    """What a rank printed at its newest start; of two streams the one with the errors. None where nothing is there."""
    return next(reversed(outputs(run).get(rank, [])), None)


def follow(
    path: Callable[[], Path | None], start: int, ended: Callable[[], bool], write: Callable[[str], None]
) -> None:
    """Write what is appended to ``path()`` from byte ``start`` on, until the run ended and all is written.

    path: asked again each time; where it names another file (a new start), that one is written from its beginning.
    """
    current, position = path(), start
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        last = ended()  # asked first, so that what came before the end is still read
        if (now := path()) != current:
            current, position = now, 0
        if current is not None and current.exists():
            with current.open("rb") as file:
                position = position if position <= file.seek(0, 2) else 0  # cut or replaced: from its beginning
                file.seek(position)
                data = file.read()
            position += len(data)
            if data:
                write(decoder.decode(data))
        if last:
            return
        time.sleep(FOLLOW_SECONDS)
