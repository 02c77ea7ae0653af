"""What a batch script asks after its processes failed: whether another start may help, and to note the end in the run.

    python -m harness.slurm.batch.job_end judge FOLDER INDEX JOB CODE BEGAN
    python -m harness.slurm.batch.job_end fail FOLDER INDEX JOB MESSAGE

FOLDER: of the submission. INDEX: in the array. CODE: srun's exit code. BEGAN: when this start of the job began, in
seconds since the epoch. ``judge`` prints "retry: WHY" or "end: WHY"; the script decides how often. It calls no program
of Slurm's, so it works inside of a container. Free of torch.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from detector.storage.reading import read_json
from harness.failures.cause import cause
from harness.failures.classes import FailureName, classify, killed_by
from harness.failures.log_tail import tail
from harness.slurm.submissions import Submission, output_file, run_of, submission_file

STOPPED = 130  # our own exit code after a requested stop
# Failures that may not happen again at another start. All others would.
TRANSIENT: tuple[FailureName, ...] = ("network", "node", "killed", "killed before start")
# The script prints it, with a number, at each start of a job: all starts print into one file.
START = "harness: start "
# What srun prints for a task that a signal ended, and when it then ends the other tasks.
_OF_TASKS = re.compile(r"^srun: error: \S+: tasks? [\d,-]+: (?P<how>.+?)(?: \(core dumped\))?$", re.MULTILINE)
_ENDS_OTHERS = re.compile(r"^srun: .*Terminating StepId", re.MULTILINE)
_STEP_CANCELLED = re.compile(r"^slurmstepd\S*: error: \*\*\* STEP \S+ ON \S+ CANCELLED AT (?!.*DUE TO)", re.MULTILINE)
# What srun prints where a node or the controller is too slow, or away. Other reasons lie in what the job asks for.
_NOT_STARTED = re.compile(
    r"^srun: error: (?:Task launch for StepId=\S+ failed on node [^:\n]+|"
    r"Unable to (?:create step|confirm allocation) for job [^:\n]+): (?P<why>(?:"
    r"Job credential (?:expired|revoked)|Socket timed out|Communication (?:connection|shutdown) failure|"
    r"Message (?:receive|send) failure|Zero Bytes|Unable to contact slurm controller|Protocol authentication error|"
    r"Connection (?:refused|timed out|reset)|Resource temporarily unavailable).*)$",
    re.MULTILINE,
)
_SIGNALS = {signal.strsignal(number): number for number in signal.valid_signals() if number != SIGTERM}


@dataclass(frozen=True)
class JobEnd:
    """How the processes of a job ended, as far as its newest start shows."""

    code: int  # srun's exit code: the highest of its processes
    message: str = ""  # of the run's heartbeat; "" if it has none of this start
    tail: str = ""  # what rank 0 printed; "" if the run has a heartbeat of this start
    srun: str = ""  # what rank 0 and srun printed


def reason_to_retry(end: JobEnd) -> str | None:
    """Why another start may help, in words; None where it would not. The job itself goes on: nobody cancelled it."""
    if end.code == 0:
        return None
    if (launch := _NOT_STARTED.search(end.srun)) is not None:
        return f"Slurm could not start the processes: {launch['why']}"
    if end.code == STOPPED or _somebody_ended_the_step(end.srun):
        return "somebody ended the step, and not the job"
    name = classify(end.message, end.tail)
    if name not in (*TRANSIENT, "unknown"):
        return None  # a process named a cause: that the others were killed is its consequence
    killed = killing_signal(end, late=name == "network")
    if killed is not None:
        return killed_by(killed)
    return f"{name}: {end.message or 'no message'}" if name in TRANSIENT else None


def _somebody_ended_the_step(said: str) -> bool:
    """Whether the step was cancelled before a process of it had ended: else srun cancelled it because of that one."""
    cancelled, ended = _STEP_CANCELLED.search(said), _OF_TASKS.search(said)
    return cancelled is not None and (ended is None or cancelled.start() < ended.start())


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
    number = end.code - 128
    # srun has exit codes of its own above those of the signals that end processes.
    if not 0 < number < signal.SIGRTMIN or (end.message and number == SIGTERM):
        return None
    return number


def read_end(run: RunDir, code: int, *, job: str, began: float, log: Path) -> JobEnd:
    """How this job's processes ended. began: this start of it. log: what rank 0 and srun printed."""
    status = _heartbeat(run)
    # A job that is queued again keeps its id, and its run the heartbeat of the start before.
    own = status is not None and status.job == job and status.time >= began
    failure = cause(run, status) if own else None
    message = failure.message if failure is not None else ""
    printed = tail(log).rpartition(START)[2]
    return JobEnd(code, message, "" if own else printed, printed)


def _heartbeat(run: RunDir) -> Status | None:
    try:
        return run.read_status()
    except RecordError:  # this failure is about to be written over it
        return None


def write_failure(run: RunDir, message: str, job: str) -> None:
    """Write into the heartbeat that the run has failed, which killed processes could not do."""
    status = _heartbeat(run) or Status(phase="starting", time=0.0, pid=0)
    run.root.mkdir(parents=True, exist_ok=True)
    write_json(run.status, replace(status, phase="failed", time=time.time(), message=message, job=job))


def judge(run: RunDir, end: JobEnd, job: str) -> str:
    """What the script is told. A failure that the run itself could not say is noted in it."""
    why = reason_to_retry(end)
    if why is not None:
        return f"retry: {' '.join(why.split())}"
    status = _heartbeat(run)
    if not end.message and (status is None or status.phase not in ("failed", "stopped")):
        write_failure(run, _last_words(end), job)
    return f"end: exit code {end.code}"


def _last_words(end: JobEnd) -> str:
    lines = [line.strip() for line in end.srun.splitlines()[1:] if line.strip()]
    return f"the processes ended with exit code {end.code}{f': {lines[-1]}' if lines else ''}"


def main(arguments: list[str]) -> None:
    """The command line of the module's text."""
    what, folder, index, job = arguments[0], Path(arguments[1]), int(arguments[2]), arguments[3]
    runs = folder.parents[1]
    run = run_of(runs, read_json(submission_file(runs, folder.name), Submission).runs[index])
    if what == "fail":
        write_failure(run, arguments[4], job)
        return
    code, began = int(arguments[4]), float(arguments[5])
    print(judge(run, read_end(run, code, job=job, began=began, log=output_file(folder, job, 0)), job), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
