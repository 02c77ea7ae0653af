"""What a batch script does after its processes failed: requeue the job, or note in the run why it is not requeued.

A process that is killed cannot do this itself, so the script calls
``python -m harness.slurm.job_end FOLDER MAX_RETRIES MAX_REQUEUES CODE``. Free of torch.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
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
from detector.storage.files import write_json
from detector.storage.reading import read_json
from detector.worker.processes import job_id
from detector.worker.reports import log_to
from harness.failures.classes import FailureName, classify, killed_by
from harness.failures.log_tail import tail
from harness.slurm.submissions import Submission, output_file, run_of, submission_file

logger = logging.getLogger(__name__)

SCONTROL_SECONDS = 60.0
STOPPED = 130  # our own exit code after a requested stop
# Failures that may not happen again at another start. All others would.
TRANSIENT: tuple[FailureName, ...] = ("network", "node", "killed", "killed before start")
# States of jobs that Slurm itself ended and does not requeue.
ENDED_BY_SLURM = ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "DEADLINE")
# The script prints it, with a number, at each start of a job: all starts print into one file.
START = "harness: start "
# What srun prints for a task that a signal ended, and when it then ends the other tasks.
_OF_TASKS = re.compile(r"^srun: error: \S+: tasks? [\d,-]+: (?P<how>.+?)(?: \(core dumped\))?$", re.MULTILINE)
_ENDS_OTHERS = re.compile(r"^srun: .*Terminating StepId", re.MULTILINE)
_SIGNALS = {signal.strsignal(number): number for number in signal.valid_signals() if number != SIGTERM}


class Retries(Struct, frozen=True):
    """How often a job was requeued at one point of its run. reached: that point (``_reached``)."""

    job: str
    reached: str
    count: int


@dataclass(frozen=True)
class JobEnd:
    """How the processes of a job ended, as far as its newest start shows."""

    code: int  # srun's exit code: the highest of its processes
    state: str  # of the job, in Slurm's words; "" if not known
    message: str = ""  # of the run's heartbeat; "" if it has none of this start
    tail: str = ""  # what rank 0 printed; "" if the run has a heartbeat of this start
    srun: str = ""  # what rank 0 and srun printed


def reason_to_retry(end: JobEnd) -> str | None:
    """Why another start may help, in words; None where it would not, or where the end was asked for."""
    if end.state != "RUNNING" or end.code in (0, STOPPED):
        return None  # cancelled, out of time, already being requeued, ...
    name = classify(end.message, end.tail)
    if name not in (*TRANSIENT, "unknown"):
        return None  # a process named a cause: that the others were killed is its consequence
    killed = killing_signal(end, late=name == "network")
    if killed is not None:
        return killed_by(killed)
    return f"{name}: {end.message or 'no message'}" if name in TRANSIENT else None


def killing_signal(end: JobEnd, *, late: bool) -> int | None:
    """The signal that ended the first process to fail; None if no signal did.

    What srun prints comes before its exit code. That is the highest of all, and SIGTERM, which srun sends to the other
    processes, is a higher number than SIGKILL. late: also count what srun printed after it began to end the others,
    since one of them may have noticed the loss before srun did.
    """
    if _OF_TASKS.search(end.srun):
        ending = None if late else _ENDS_OTHERS.search(end.srun)
        found = _OF_TASKS.finditer(end.srun, 0, ending.start() if ending else len(end.srun))
        return next((_SIGNALS[match["how"]] for match in found if match["how"] in _SIGNALS), None)
    if end.code <= 128 or (end.message and end.code == 128 + SIGTERM):
        return None
    return end.code - 128


def retry_job(run: RunDir, end: JobEnd, *, max_retries: int, max_requeues: int) -> tuple[bool, str]:
    """Requeue the job where that may help. Returns whether it was, and a line for the log ("" for none).

    At most ``max_retries`` times from one checkpoint: a run that makes progress between failures goes on.
    """
    why = reason_to_retry(end)
    if why is None:
        return False, ""
    here, before = Retries(job_id(), _reached(run), 1), _read(run)
    if before is not None and replace(before, count=1) == here:
        here = replace(before, count=before.count + 1)
    if here.count > max_retries:
        plural = "retry" if max_retries == 1 else "retries"
        return False, f"{why}; given up: no progress in {max_retries} {plural} (max_retries in the cluster file)"
    write_json(_file(run), here)
    requeued, said = queue_again(max_requeues)
    retries = f", retry {here.count} of at most {max_retries} from here" if requeued else ""
    return requeued, f"{why}; {said}{retries}"


def _file(run: RunDir) -> Path:
    return run.root / "retries.json"


def _read(run: RunDir) -> Retries | None:
    try:
        return read_json(_file(run), Retries) if _file(run).exists() else None
    except RecordError:
        return None


def _reached(run: RunDir) -> str:
    """How far a run is: its newest checkpoint, and the evaluations that have a record."""
    steps = sorted(path.name for path in run.checkpoints.glob("*.pt"))
    return " ".join([*steps[-1:], *sorted(path.parent.name for path in run.root.glob("evals/*/record.json"))])


def read_end(run: RunDir, code: int, *, log: Path) -> JobEnd:
    """How this job's processes ended. code: srun's exit code. log: what rank 0 and srun printed."""
    fields = job_fields(job_id())
    began, status = _start_time(fields), _heartbeat(run)
    # A requeued job keeps its id, and its run the heartbeat of the start before.
    own = status is not None and status.job == job_id() and status.time >= began
    first = run.first_failure() or status
    message = first.message if own and first is not None and first.phase == "failed" else ""
    printed = tail(log).rpartition(START)[2]
    return JobEnd(code, fields.get("JobState", ""), message, "" if own else printed, printed)


def _heartbeat(run: RunDir) -> Status | None:
    try:
        return run.read_status()
    except RecordError:  # this failure is about to be written over it
        return None


def _start_time(fields: dict[str, str]) -> float:
    """When this start of the job began, in seconds since the epoch; 0 where Slurm does not say."""
    try:
        return datetime.fromisoformat(fields["StartTime"]).timestamp()
    except (KeyError, ValueError):
        return 0.0


def queue_again(max_requeues: int) -> tuple[bool, str]:
    """Ask Slurm to start this job once more; whether it will, and a message for the log."""
    count = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if count >= max_requeues:
        return False, f"not queued again: it was {count} times, the most that the cluster file allows (max_requeues)"
    code, said = scontrol("requeue", job_id())
    if code != 0:
        return False, f"it could not be queued again: {said.strip()}"
    return True, f"queued again ({count + 1} of at most {max_requeues})"


def job_fields(job: str) -> dict[str, str]:
    """What Slurm knows of a job (JobState, StartTime, ...); empty where it does not answer."""
    code, said = scontrol("show", "job", "--oneliner", job)
    return dict(part.split("=", 1) for part in said.split() if "=" in part) if code == 0 else {}


def scontrol(*arguments: str) -> tuple[int, str]:
    """Slurm's exit code and what it said; 1 and why where it is not there or does not answer."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, check=False, timeout=SCONTROL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def write_failure(run: RunDir, message: str) -> None:
    """Write into the heartbeat that the run has failed, which killed processes could not do."""
    status = _heartbeat(run) or Status(phase="starting", time=0.0, pid=0)
    write_json(run.status, replace(status, phase="failed", time=time.time(), message=message, job=job_id()))


def main(folder: Path, max_retries: int, max_requeues: int, code: int) -> None:
    """Handle the failure of the job that this process is in. folder: ``transport_folder`` of its submission."""
    runs, index = folder.parents[1], int(os.environ.get("SLURM_ARRAY_TASK_ID") or 0)
    run = run_of(runs, read_json(submission_file(runs, folder.name), Submission).runs[index])
    end = read_end(run, code, log=output_file(folder, job_id(), 0))
    requeued, message = retry_job(run, end, max_retries=max_retries, max_requeues=max_requeues)
    if message:
        log_to(run.log)
        logger.warning("%s", message)
        print(message, flush=True)
    if not requeued and (message or end.state in ENDED_BY_SLURM):
        write_failure(run, message or f"Slurm ended the job: {end.state}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
