"""The numbers of a training as it ran (``metrics.jsonl``), read back."""

from __future__ import annotations

import json

from detector.errors import RecordError
from detector.runs.folder import RunDir

Point = dict[str, float]


def read_curve(run: RunDir) -> list[Point]:
    """The logged points of a run in the order of its iterations, also while it goes on.

    Each has ``iteration`` (steps taken), and means since the point before: the losses, ``lr`` (the learning rate) and
    where the time went (``StepTiming.per_iteration``; of older runs only ``seconds_per_iteration``). A last line that
    is not whole yet, or was cut by a crash, is left out.

    Raises:
        RecordError: the run has no such file, or a line of it is damaged (``FILE:LINE``).
    """
    try:
        text = run.metrics.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecordError(
            f"{run.root} has no {run.metrics.name}: it has not begun to train. See: harness status"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{run.metrics} cannot be read: {error}") from error
    lines = text.split("\n")[:-1]  # what follows the last line's end is not whole
    return [_point(run, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _point(run: RunDir, number: int, line: str) -> Point:
    try:
        values = json.loads(line)
        point = {str(name): float(value) for name, value in values.items()}
        return point | {"iteration": int(values["iteration"])}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise RecordError(
            f"{run.metrics}:{number} is damaged: {line[:80]!r}. It is no part of the result; move the file away."
        ) from error
