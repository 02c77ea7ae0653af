"""What a batch script does after processes that ended badly: ask for another start, or say why there is none.

A process that is killed can ask for nothing, so the script does:
``python -m harness.slurm.job_end FOLDER MAX_RETRIES MAX_REQUEUES CODE``. Free of torch.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from signal import SIGTERM

from msgspec import Struct
from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import read_json, write_json
from detector.worker.reports import log_to
from detector.worker.requeue import job_fields, job_id, queue_again
from harness.failures.classes import FailureName, classify, killed_by
from harness.failures.log_tail import tail
from harness.slurm.submissions import Submission, submission_file

logger = logging.getLogger(__name__)

STOPPED = 130  # our own exit code after a stop that was asked for
# What another start may get over. Anything else would come again.
PASSING: tuple[FailureName, ...] = ("network", "node", "killed", "killed before start")
# How Slurm ends a job of its own accord and for good.
ENDINGS = ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "DEADLINE")
# The script prints it, with a number, at each start of a job: its output has all of them.
START = "harness: start "
# srun on a task that a signal ended, and on its ending the other tasks for it.
_OF_TASKS = re.compile(r"^srun: error: \S+: tasks? [\d,-]+: (?P<how>.+?)(?: \(core dumped\))?$", re.MULTILINE)
_ENDS_OTHERS = re.compile(r"^srun: .*Terminating StepId", re.MULTILINE)
_SIGNALS = {signal.strsignal(number): number for number in signal.valid_signals() if number != SIGTERM}


class Retries(Struct, frozen=True):
    """How often a job tried its run again since the run last got on. ``reached``: what shows that (``_reached``)."""

    job: str
    reached: str
    count: int


@dataclass(frozen=True)
class End:
    """How the processes of a job ended. code: srun's, the highest; state: Slurm's of the job; "" if not known."""

    code: int
    state: str
    message: str = ""  # what the run itself said in this start, if it did
    tail: str = ""  # what rank 0 printed in this start, where the run said nothing
    srun: str = ""  # the same, for what srun says in it


def reason_to_retry(end: End) -> str | None:
    """In words, why another start may help; None where it would not, or where somebody wanted the end."""
    if end.state != "RUNNING" or end.code in (0, STOPPED):
        return None  # cancelled, over its time, being queued again already, ...
    name = classify(end.message, end.tail)
    if name not in (*PASSING, "unknown"):
        return None  # what a process said of itself comes before how the others were ended for it
    killed = killing_signal(end, late=name == "network")
    if killed is not None:
        return killed_by(killed)
    return f"{name}: {end.message or 'no words'}" if name in PASSING else None


def killing_signal(end: End, *, late: bool) -> int | None:
    """The signal that ended a process, and not for another one's end; None if none did.

    srun's lines come before its code: the others' SIGTERM is a higher number than the first one's SIGKILL. late: count
    also what it said after it began to end the others, for one of them may have noticed the loss first.
    """
    if _OF_TASKS.search(end.srun):
        ending = None if late else _ENDS_OTHERS.search(end.srun)
        found = _OF_TASKS.finditer(end.srun, 0, ending.start() if ending else len(end.srun))
        return next((_SIGNALS[match["how"]] for match in found if match["how"] in _SIGNALS), None)
    if end.code <= 128 or (end.message and end.code == 128 + SIGTERM):
        return None
    return end.code - 128


def try_again(run: RunDir, end: End, *, max_retries: int, max_requeues: int) -> tuple[bool, str]:
    """Queue the job again where that may help; whether it is, and what to tell of it ("" where there is nothing).

    At most ``max_retries`` times from one checkpoint: a run that gets on between its mishaps is not given up.
    """
    why = reason_to_retry(end)
    if why is None:
        return False, ""
    here, before = Retries(job_id(), _reached(run), 1), _read(run)
    if before is not None and replace(before, count=1) == here:
        here = replace(before, count=before.count + 1)
    if here.count > max_retries:
        plural = "retry" if max_retries == 1 else "retries"
        return False, f"{why}; given up: {max_retries} {plural} brought it no further (max_retries of the cluster file)"
    write_json(_file(run), here)
    again, said = queue_again(max_requeues)
    return again, f"{why}; {said}" + (f", retry {here.count} of at most {max_retries} from here" if again else "")


def _file(run: RunDir) -> Path:
    return run.root / "retries.json"


def _read(run: RunDir) -> Retries | None:
    try:
        return read_json(_file(run), Retries) if _file(run).exists() else None
    except RecordError:
        return None


def _reached(run: RunDir) -> str:
    """The last of what a run leaves behind as it gets on."""
    steps = sorted(path.name for path in run.checkpoints.glob("*.pt"))
    return " ".join([*steps[-1:], *sorted(path.parent.name for path in run.root.glob("evals/*/record.json"))])


def look_at_end(run: RunDir, code: int, *, log: Path) -> End:
    """What can be seen of the end of this job's processes. log: what rank 0 printed."""
    fields = job_fields(job_id())
    began, status = _start_time(fields), run.read_status()
    # A job that is queued again keeps its id, and its run what it said before.
    own = status is not None and status.job == job_id() and status.time >= began
    first = run.first_failure() or status
    message = first.message if own and first is not None and first.phase == "failed" else ""
    printed = tail(log).rpartition(START)[2]
    # Without a word in this start, what was printed says why.
    return End(code, fields.get("JobState", ""), message, "" if own else printed, printed)


def _start_time(fields: dict[str, str]) -> float:
    """When this start of the job began, in seconds since the epoch; 0 where Slurm does not say."""
    try:
        return datetime.fromisoformat(fields["StartTime"]).timestamp()
    except (KeyError, ValueError):
        return 0.0


def note_end(run: RunDir, message: str) -> None:
    """Say in the heartbeat that the run has failed, which killed processes could not."""
    status = run.read_status() or Status(phase="starting", time=0.0, pid=0)
    write_json(run.status, replace(status, phase="failed", time=time.time(), message=message, job=job_id()))


def main(folder: Path, max_retries: int, max_requeues: int, code: int) -> None:
    """Do it for the job that this process is in. folder: the submission's, with the output of its processes."""
    runs, index = folder.parents[1], int(os.environ.get("SLURM_ARRAY_TASK_ID") or 0)
    run = RunDir(runs / read_json(submission_file(runs, folder.name), Submission).runs[index])
    end = look_at_end(run, code, log=folder / f"{job_id()}_0_log.out")
    again, said = try_again(run, end, max_retries=max_retries, max_requeues=max_requeues)
    if said:
        log_to(run.log)
        logger.warning("%s", said)
        print(said, flush=True)
    if not again and (said or end.state in ENDINGS):
        note_end(run, said or f"Slurm ended the job: {end.state}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
