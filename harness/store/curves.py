"""The numbers of a training as it ran (``metrics.jsonl``), read back."""

from __future__ import annotations

from detector.errors import RecordError
from detector.runs.findings import logged
from detector.runs.folder import RunDir
from detector.storage.reading import read_bytes

Point = dict[str, float]
MOST_BYTES = 2**30  # a line has some 300 bytes, and there is one for every tenth iteration or so


def read_curve(run: RunDir) -> list[Point]:
    """The logged points of a run in the order of its iterations, also while it goes on.

    Each has ``iteration`` (steps taken), and means since the point before: the losses, ``lr`` (the learning rate) and
    where the time went (``StepTiming.per_iteration``; of older runs only ``seconds_per_iteration``). A last line that
    is not whole yet, or was cut by a crash, is left out.

    Raises:
        RecordError: the run has no such file, or a line of it is damaged (``FILE:LINE``).
    """
    if not run.metrics.exists():
        raise RecordError(f"{run.root} has no {run.metrics.name}: it has not begun to train. See: harness status")
    lines = read_bytes(run.metrics, most=MOST_BYTES).split(b"\n")[:-1]  # what follows the last line's end is not whole
    return [_point(run, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _point(run: RunDir, number: int, line: bytes) -> Point:
    point = logged(line)
    if point is None:
        shown = line[:80].decode(errors="replace")
        raise RecordError(
            f"{run.metrics}:{number} is damaged: {shown!r}. It is no part of the result; move the file away."
        )
    return point
