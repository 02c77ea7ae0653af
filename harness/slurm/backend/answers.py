"""What the queue last said, kept in a file: all commands that watch runs share one question in some seconds."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from detector.errors import RecordError, SchedulerError, UsageError
from detector.storage.files import write_json
from detector.storage.locks import held
from detector.storage.reading import read_json

SECONDS = 30.0  # between two questions of one kind, whoever asks
LONGEST_WAIT = 90.0  # for another command that asks at this moment
VARIABLE = "HARNESS_QUEUE_SECONDS"


class QueuedJob(Struct, frozen=True):
    """One job or one element of an array, as squeue shows it: also for minutes after its end.

    state: Slurm's word. name: as squeue shows it. token: of the submission; "" for a job that is none of ours.
    """

    id: str
    state: str
    reason: str = ""
    token: str = ""
    user: str = ""
    name: str = ""
    restarts: int = 0
    exit_code: str = ""

    @property
    def base_id(self) -> str:
        """The id without the element's index."""
        return self.id.split("_")[0]

    @property
    def index(self) -> int:
        """Index in the job array; 0 for a job that is not part of one."""
        return int(self.id.partition("_")[2] or 0)


class Ended(Struct, frozen=True):
    """How a job ended, as the accounts have it. code: its exit code; 128 + number for a signal."""

    state: str
    code: int | None = None


class Answers(Struct, frozen=True, kw_only=True):
    """The newest answers. Times are seconds since the epoch; 0: never asked.

    jobs: what squeue said at ``queue_time``. failed: why it gave no answer at ``failed_time``. accounts: what sacct
    said, by job; asked: the jobs that it was asked for at ``accounts_time``. is_stale: a command has
    changed the queue since.
    """

    users: tuple[str, ...] = ()
    queue_time: float = 0.0
    jobs: tuple[QueuedJob, ...] = ()
    failed: str = ""
    failed_time: float = 0.0
    accounts_time: float = 0.0
    accounts: dict[str, Ended] = {}
    asked: tuple[str, ...] = ()
    is_stale: bool = False


def seconds_between() -> float:
    """How long an answer is used. Raises UsageError for a variable that is no number of seconds."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return SECONDS
    if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", text):
        raise UsageError(f"{VARIABLE} is {text!r}; it must be a number of seconds from 0 on, such as 30.")
    return float(text)


class AnswerFile:
    """The file of one Slurm and user. Where it may not be written, each command asks for itself."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self.now = now

    def jobs(
        self,
        users: Sequence[str],
        ask: Callable[[Sequence[str]], list[QueuedJob]],
        *,
        fresh: bool = False,
        since: float = 0.0,
    ) -> Answers:
        """What squeue says of the users' jobs, asked again only where the last answer is too old.

        fresh: ask in any case. since: an answer from before this time is too old. Where squeue gives no answer,
        ``failed`` says why, and ``jobs`` is the answer before.
        """

        def is_new(answers: Answers) -> bool:
            if fresh or answers.is_stale or not set(users) <= set(answers.users):
                return False
            newest = max(answers.queue_time, answers.failed_time)
            return newest > min(since, self.now()) and self._is_new(newest)

        def renew(answers: Answers) -> Answers:
            wanted = sorted({*users, *(answers.users if self._is_new(answers.queue_time) else ())})
            try:
                found = ask(wanted)
            except SchedulerError as error:
                known = replace(answers, users=tuple(wanted), is_stale=False)
                return replace(known, failed=str(error), failed_time=self.now())
            known = replace(answers, users=tuple(wanted), is_stale=False, jobs=tuple(found))
            return replace(known, queue_time=self.now(), failed="", failed_time=0.0)

        return self._through(is_new, renew)

    def forget(self) -> None:
        """The queue is no longer what the newest answer says: the next look asks."""
        self._through(lambda answers: answers.is_stale, lambda answers: replace(answers, is_stale=True))

    def accounts(self, jobs: Sequence[str], ask: Callable[[Sequence[str]], dict[str, Ended]]) -> dict[str, Ended]:
        """What sacct says of jobs that have left the queue, asked again only where the last answer is too old."""

        def is_new(answers: Answers) -> bool:
            return set(jobs) <= set(answers.asked) and self._is_new(answers.accounts_time)

        def renew(answers: Answers) -> Answers:
            # Accounts that do not answer now take back nothing.
            known = {job: answers.accounts[job] for job in jobs if job in answers.accounts}
            return replace(answers, accounts=known | ask(jobs), asked=tuple(jobs), accounts_time=self.now())

        if not jobs:
            return {}

        found = self._through(is_new, renew).accounts
        return {job: found[job] for job in jobs if job in found}

    def _through(self, is_new: Callable[[Answers], bool], renew: Callable[[Answers], Answers]) -> Answers:
        answers = self.read()
        if is_new(answers):
            return answers
        if not self.path.parent.parent.is_dir():  # nothing was ever submitted: a dry run leaves nothing
            return renew(answers)
        try:
            deadline = time.monotonic() + LONGEST_WAIT
            with held(self.path.with_suffix(".lock"), wait=lambda: time.monotonic() < deadline):
                answers = self.read()  # another command may have asked meanwhile
                if not is_new(answers):
                    answers = renew(answers)
                    with suppress(OSError):  # a full disk
                        write_json(self.path, answers, flush=False)
                return answers
        except BlockingIOError:
            told = f"Another command has asked the queue for {LONGEST_WAIT:.0f} s and has no answer yet."
            return replace(answers, failed=told, failed_time=self.now())
        except OSError:  # a folder that is only to be read
            return renew(answers)

    def read(self) -> Answers:
        """The newest answers, however old."""
        with suppress(RecordError, OSError):
            if self.path.exists():
                return read_json(self.path, Answers)
        return Answers()

    def _is_new(self, then: float) -> bool:
        return 0 <= self.now() - then < seconds_between()
