"""Submissions compared with Slurm's queues: which runs are queued, how the others' jobs ended, and ``cancel``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from harness.slurm.backend.answers import Answers, Ended, QueuedJob
from harness.slurm.backend.programs import own_name
from harness.slurm.backend.slurm import Slurm
from harness.slurm.reservations import GRACE_SECONDS, release
from harness.slurm.states import Cause, Phase, SchedulerState
from harness.slurm.submissions import (
    Submission,
    read_submissions,
    run_of,
    submission_file,
    submissions_folder,
    write_submission,
)

logger = logging.getLogger(__name__)

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED", "RESV_DEL_HOLD")
HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
HOLDS = ("JobHeldUser", "JobHeldAdmin")  # reasons of waiting jobs
OVER: dict[str, Cause] = {
    "COMPLETED": "completed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "FAILED": "failed",
    "TIMEOUT": "time",
    "DEADLINE": "time",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "OUT_OF_MEMORY": "memory",
}


@dataclass(frozen=True)
class Element:
    """One run of a submission: what a queue can be asked for."""

    entry: Submission
    index: int

    @property
    def job(self) -> str:
        """The job's id as it was submitted, with the index of an array's element; "" where it is not known."""
        if not self.entry.job_id:
            return ""
        return f"{self.entry.job_id}_{self.index}" if len(self.entry.runs) > 1 else self.entry.job_id


@dataclass
class Look:
    """What one Slurm says of the submissions that it has.

    problem: why nothing is known now: its queue does not answer, or this machine reaches another one. seen: when what
    is known was so; None: now.
    """

    slurm: Slurm
    jobs: dict[tuple[str, int], QueuedJob] = field(default_factory=dict)
    problem: str = ""
    seen: float | None = None
    hides_jobs: bool = False

    def job(self, element: Element) -> QueuedJob | None:
        """The element's job, as squeue shows it."""
        return self.jobs.get((element.entry.token, element.index))

    def hides(self, entry: Submission) -> bool:
        """Whether a job that is not shown may still be there."""
        return self.hides_jobs and entry.user not in ("", own_name())


class SlurmQueue:
    """One look at the queues: which runs were submitted from a runs folder, and what became of them.

    fresh: ask squeue now, not only after its last answer is too old.
    """

    def __init__(
        self, runs: Path, *, fresh: bool = False, damaged: Callable[[str], None] | None = logger.debug
    ) -> None:
        self.runs = runs
        self.submissions = read_submissions(runs, damaged=damaged)
        self.elements = _newest(self.submissions)
        self.looks = look_at(runs, self.submissions, fresh=fresh)

    @property
    def problems(self) -> list[str]:
        """Why something is not known, each once."""
        return list(dict.fromkeys(look.problem for look in self.looks.values() if look.problem))

    def states(self, run: RunDir, *, now: float | None = None) -> SchedulerState | None:
        """What is known of a run; None for one that was never submitted."""
        element = self.elements.get(run.root.name)
        return None if element is None else self.state_of(element, time.time() if now is None else now)

    def job_of(self, run_id: str) -> QueuedJob | None:
        """The job of a run that waits or runs now."""
        element = self.elements.get(run_id)
        job = self.look_of(element.entry).job(element) if element is not None else None
        return None if job is None or job.state in OVER else job

    def look_of(self, entry: Submission) -> Look:
        """What the Slurm of a submission says."""
        return self.looks[entry.slurm, entry.conf]

    def state_of(self, element: Element, now: float) -> SchedulerState:
        """What is known of one run of a submission."""
        entry, look = element.entry, self.look_of(element.entry)
        cluster = entry.options.cluster if entry.options else entry.cluster
        user = "" if entry.user in ("", own_name()) else entry.user
        job = look.job(element)

        def state(phase: Phase, reason: str = "", **more: object) -> SchedulerState:
            known = {"job": job.id if job else element.job, "cluster": cluster, "user": user, "seen": look.seen}
            return SchedulerState(phase, reason, **(known | more))  # type: ignore[arg-type]

        if entry.state == "refused":
            return state("refused", entry.message)
        if job is not None:
            phase, reason = phase_of(job)
            if phase == "gone" and not look.problem:
                return self._gone(entry, job.id, state, OVER[job.state], job.state)
            if look.problem:
                return state("unknown", f"{look.problem} Last seen: {phase}{f' ({reason})' if reason else ''}.")
            return state(phase, reason, requeues=job.restarts)
        if entry.state == "submitting" and now - entry.time < GRACE_SECONDS:
            return state("submitting")
        if look.problem and entry.state != "ended":
            return state("unknown", look.problem)
        if look.hides(entry) and entry.state != "ended":
            return state("unknown", f"{entry.user}'s jobs are not shown to others here (PrivateData).")
        return self._gone(entry, element.job, state, "", "")

    def _gone(
        self, entry: Submission, job: str, state: Callable[..., SchedulerState], cause: Cause, reason: str
    ) -> SchedulerState:
        account = self._accounts.get((entry.slurm, entry.conf), {}).get(job)
        if account is None:
            return state("gone", reason, cause=cause)
        word = account.state.split()[0]
        if word in OVER:
            return state("gone", account.state, cause=OVER[word], exit_code=account.code)
        if reason:  # squeue has seen its end
            return state("gone", reason, cause=cause)
        return state("unknown", f"squeue does not show it, and sacct says {account.state}.")

    @cached_property
    def _accounts(self) -> dict[tuple[str, str], dict[str, Ended]]:
        """By Slurm and job, how those ended that are in no queue. Asked once, and only when this is needed."""
        wanted: dict[tuple[str, str], list[str]] = {}
        for element in self.elements.values():
            job = self.look_of(element.entry).job(element)
            # A run that went on as another job ended with that one.
            job_id = job.id if job is not None else element.job
            if job_id and (job is None or job.state in OVER):
                wanted.setdefault((element.entry.slurm, element.entry.conf), []).append(job_id)
        return {
            key: self.looks[key].slurm.ended(self.runs, key[0], jobs)
            for key, jobs in wanted.items()
            if not self.looks[key].problem
        }


def has_submissions(runs: Path) -> bool:
    """Whether anything was ever submitted from this runs folder."""
    return any(submissions_folder(runs).glob("*.json"))


def look_at(runs: Path, submissions: Iterable[Submission], *, fresh: bool = False) -> dict[tuple[str, str], Look]:
    """One look for each Slurm that has submissions, by its name and its configuration file."""
    users: dict[tuple[str, str], set[str]] = {}
    newest: dict[tuple[str, str], float] = {}
    for entry in submissions:
        key = entry.slurm, entry.conf
        wanted = users.setdefault(key, set())
        if entry.state not in ("ended", "refused"):
            wanted.add(entry.user or own_name())
            newest[key] = max(newest.get(key, 0.0), entry.time)
    return {
        key: _look(runs, *key, sorted(names), fresh=fresh, since=newest.get(key, 0.0)) for key, names in users.items()
    }


def _look(runs: Path, name: str, conf: str, users: list[str], *, fresh: bool, since: float) -> Look:
    slurm = Slurm(conf)
    if not users:  # all have ended
        return Look(slurm)
    try:
        here = slurm.name
        hides = slurm.hides_jobs
    except SchedulerError as error:
        return Look(slurm, _by_element(slurm.last_answer(runs, name)), str(error), _seen(slurm.last_answer(runs, name)))
    if name and name != here:
        told = f"It is a job of the cluster {name}; this machine reaches {here}."
        return Look(slurm, _by_element(slurm.last_answer(runs, name)), told, _seen(slurm.last_answer(runs, name)))
    answers = slurm.look(runs, name or here, users, fresh=fresh, since=since)
    problem = answers.failed
    return Look(slurm, _by_element(answers), problem, _seen(answers) if problem else None, hides)


def _seen(answers: Answers) -> float | None:
    return answers.queue_time or None


def _by_element(answers: Answers) -> dict[tuple[str, int], QueuedJob]:
    """A run that went on as another job has several: the one that lives, else the newest."""
    found: dict[tuple[str, int], QueuedJob] = {}
    for job in sorted(answers.jobs, key=lambda item: (item.state not in OVER, int(item.base_id))):
        found[job.token, job.index] = job
    return found


def phase_of(job: QueuedJob) -> tuple[Phase, str]:
    """The phase of a job in the queue, and Slurm's reason."""
    if job.state in OVER:
        return "gone", job.state
    if job.state in HELD or (job.state == "PENDING" and job.reason in HOLDS):
        return "held", job.reason or job.state
    if job.state in WAITING:
        return "pending", job.reason if job.state == "PENDING" else job.state.lower()
    return "running", ""


def _newest(submissions: Iterable[Submission]) -> dict[str, Element]:
    """For each run the submission that counts: the newest of those that have not ended, else the newest."""
    newest: dict[str, Element] = {}
    for entry in sorted(submissions, key=lambda item: (item.state not in ("ended", "refused"), item.time)):
        for index, run in enumerate(entry.runs):
            newest[run] = Element(entry, index)
    return newest


@dataclass(frozen=True)
class QueuedRun:
    """A run that must not be submitted now: it is queued, being submitted, or not known not to be. text: in words."""

    token: str
    text: str
    job: QueuedJob | None = None

    def __str__(self) -> str:
        return self.text


def reconcile(
    runs: Path, *, now: float | None = None, write: bool = True
) -> tuple[dict[str, QueuedRun], list[Submission]]:
    """Compare the submissions with the queues, asked now, and write down what has changed.

    Returns the runs that are busy, and the recovered submissions: those whose job is known only now, because the
    command that submitted it died before it knew the id. A submission is ended only where its jobs are gone for
    certain: of this user, of the Slurm that was asked, with nothing to the contrary in the accounts. write: False to
    change no file. Raises RecordError for a submission that cannot be read, unless it only looks.
    """
    now = time.time() if now is None else now
    queue = SlurmQueue(runs, fresh=True, damaged=None if write else logger.warning)
    busy, recovered = dict[str, QueuedRun](), list[Submission]()
    for entry in queue.submissions:
        if entry.state in ("ended", "refused"):
            continue
        here = {
            run: queued for index, run in enumerate(entry.runs) if (queued := _busy(queue, Element(entry, index), now))
        }
        busy |= here
        jobs = [queued.job for queued in here.values() if queued.job]
        if entry.user not in ("", own_name()):
            continue  # its own user writes it down
        if entry.state == "submitting" and jobs:
            recovered.append(replace(entry, state="submitted", job_id=jobs[0].base_id))
            if write:
                write_submission(runs, recovered[-1])
        if not write:
            continue
        if not here:
            write_submission(runs, replace(entry, state="ended"))
        for run in set(entry.runs) - set(here):  # an element that ended releases its run, whatever the others do
            release(run_of(runs, run), entry.token)
    return busy, recovered


def _busy(queue: SlurmQueue, element: Element, now: float) -> QueuedRun | None:
    state = queue.state_of(element, now)
    token, job = element.entry.token, queue.look_of(element.entry).job(element)
    if state.phase == "submitting":
        return QueuedRun(token, "being submitted")
    if state.phase == "unknown":
        return QueuedRun(token, f"not known: {state.reason}{_how_to_release(queue.runs, element, state)}", job)
    if state.phase in ("held", "pending", "running") and job is not None:
        reason = f" ({job.reason})" if job.state == "PENDING" and job.reason else ""
        return QueuedRun(token, f"job {job.id}, {job.state.lower()}{reason}", job)
    return None


def _how_to_release(runs: Path, element: Element, state: SchedulerState) -> str:
    file = submission_file(runs, element.entry.token)
    whose = f" of {state.user}" if state.user else ""
    return f" If job {state.job or element.entry.token}{whose} is gone for good, move {file} away."
