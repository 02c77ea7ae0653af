"""What ``harness run`` says at its end: the AP of the runs that it was asked for."""

from __future__ import annotations

from detector.errors import RecordError
from detector.runs.folder import RunDir, read_own_record
from harness.launch.run import RunResult


def result_lines(result: RunResult) -> list[str]:
    """One line per training and evaluation that was just made; where none was made, of those that were there."""
    ended, when = (result.trained, "") if result.trained else (result.done, " (done before)")
    names = result.names
    return [
        f"{names[train_id]}: {said}{when}"
        for train_id in ended
        for job in result.plan.evaluations[train_id]
        if (said := _ap(RunDir(result.runs / train_id), job.id))
    ]


def _ap(run: RunDir, eval_id: str) -> str:
    """``AP 23.4``, and what is wrong with the run; empty where it has no such record."""
    path = run.record(eval_id)
    if not path.exists():
        return ""
    try:
        record = read_own_record(path)
    except RecordError as error:
        return str(error)
    value = record.metrics.get("AP")
    found = ", ".join(item.name for item in record.health or ())
    health = f"; not healthy ({found}): harness show {record.eval_id}" if found else ""
    return f"AP {'none' if value is None else f'{value:.1f}'}{health}"
