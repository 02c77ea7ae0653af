"""Submission to Slurm: runs that nobody trains become job arrays of one shape each, on one cluster or several."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from detector.errors import RecordError, SchedulerError
from detector.runs.folder import RunDir
from detector.runs.wanted import want, wanted
from detector.storage.files import write_atomic
from detector.worker.missing_loss import encode
from harness.code.snapshot import take_snapshot
from harness.slurm import queue as slurm_queue
from harness.slurm import reservations, submissions
from harness.slurm.arrays import Planned, Site, Work, ask_site, plan_arrays, share_parallel
from harness.slurm.backend.programs import NoAnswer, NoSlurm, own_name
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Array
from harness.slurm.clusters import Cluster
from harness.slurm.submissions import Member, Submission, run_of

NO_SLURM_ADVICE = "Run this where jobs are submitted from. To see what would be submitted: --dry-run."


@dataclass(frozen=True)
class Outcome:
    """What became of a request to submit runs."""

    submitted: tuple[tuple[Submission, Array], ...]  # the new jobs
    skipped: Mapping[str, str]  # by training id, why a run was not submitted: queued or running already
    recovered: tuple[Submission, ...]  # earlier jobs whose id is known only now (``reconcile``)
    wanted: tuple[str, ...] = ()  # of the skipped ones: whose job will do further evaluations too
    held_back: tuple[str, ...] = ()  # training ids that a limit of the site keeps back
    why_held_back: tuple[str, ...] = ()


def submit(work: Work, clusters: Sequence[Cluster]) -> Outcome:
    """Submit the runs that nobody trains yet, and return at once.

    Raises SchedulerError where there is no Slurm, it refuses a job, or the job would never start.
    """
    runs = work.runs
    code = take_snapshot(runs).name
    with submissions.submission_lock(runs):
        busy, recovered = slurm_queue.reconcile(runs)
        skipped = {run: str(where) for run, where in busy.items()}
        for item in work.assignments:
            if item.train.id not in skipped and reservations.is_busy(RunDir(Path(item.run_dir))):
                skipped[item.train.id] = "running outside of the queue"
        more = _want(work, skipped)
        free = [item for item in work.assignments if item.train.id not in skipped]
        sites = _ask_sites(clusters, runs) if free else []
        planned = plan_arrays(free, work, sites, code=code) if free else Planned(())
        living = {queued.token for queued in busy.values()}
        reserved = [_reserve(array, work, code, living=living) for array in planned.arrays]
    submitted = _submit_all([(entry, array) for entry, array in reserved if array is not None], runs)
    for site in sites:
        share_parallel(site, {array.token: len(array.members) for _, array in submitted if array.slurm == site.name})
    ours = {run for entry, _ in submitted for run in entry.runs}
    back = tuple(item.train.id for item in planned.held_back)
    skipped |= {item.train.id: "reserved by another command" for item in free if item.train.id not in (*ours, *back)}
    names = {item.train.id for item in work.assignments}
    return Outcome(
        tuple(submitted),
        {run: why for run, why in skipped.items() if run in names},
        tuple(recovered),
        more,
        back,
        planned.why_held_back,
    )


def _ask_sites(clusters: Sequence[Cluster], runs: Path) -> list[Site]:
    try:
        return [ask_site(cluster, runs) for cluster in clusters]
    except NoSlurm as error:
        raise NoSlurm(f"{error} {NO_SLURM_ADVICE}") from error


def _want(work: Work, skipped: Mapping[str, str]) -> tuple[str, ...]:
    """Ask the jobs that are there already for the evaluations that they were not asked for; whose job will do more."""
    more, asked = list[str](), _asked(work.runs)
    for item in work.assignments:
        run = RunDir(Path(item.run_dir))
        missing = [job for job in item.evals if not run.record(job.id).exists()]
        if item.train.id in skipped and missing:
            known = {job.id for job in wanted(run)}
            want(run, missing)
            more += (
                [item.train.id]
                if {job.id for job in missing} - known - asked.get((_holder(run), item.train.id), set())
                else []
            )
    return tuple(more)


def _asked(runs: Path) -> dict[tuple[str, str], set[str]]:
    """The evaluations that each run was submitted for, by the submission's token and the training's id."""
    return {
        (entry.token, run): set(member.evals)
        for entry in submissions.read_submissions(runs)
        for run, member in zip(entry.runs, entry.members, strict=False)  # submissions of older versions have none
    }


def _holder(run: RunDir) -> str:
    """The token of the submission that has reserved the run; "" where there is none."""
    with suppress(RecordError):  # whoever reserves runs tells it
        return reservations.holder_of(run) or ""
    return ""


def _reserve(array: Array, work: Work, code: str, *, living: set[str]) -> tuple[Submission, Array | None]:
    """Write the submission down, then reserve its runs. Both are returned with the runs that could be reserved.

    In this order, so that whoever meets a reservation finds its submission.
    """
    runs = work.runs
    entry = submission_of(array, work, code)
    submissions.register(runs, entry)
    others = {item.token for item in submissions.read_submissions(runs) if item.state == "submitting"}
    kept = [
        index
        for index, item in enumerate(array.members)
        if reservations.reserve(RunDir(Path(item.run_dir)), array.token, living=living | others)
    ]
    if len(kept) == len(array.members):
        return entry, array
    fewer = array.only(kept) if kept else None
    entry = submission_of(fewer, work, code) if fewer else replace(entry, runs=(), members=(), state="ended")
    submissions.write_submission(runs, entry)
    return entry, fewer


def submission_of(array: Array, work: Work, code: str) -> Submission:
    """What is written down of an array before it is submitted."""
    cluster = array.plan.cluster
    return Submission(
        token=array.token,
        cluster=cluster.name,
        runs=tuple(item.train.id for item in array.members),
        time=time.time(),
        code=code,
        members=tuple(
            Member(train=item.train, refs=refs, evals=tuple(job.id for job in item.evals))
            for item, refs in zip(array.members, array.refs, strict=True)
        ),
        options=work.options,
        slurm=array.slurm,
        conf=cluster.slurm_conf or "",
        user=own_name(),
    )


def _submit_all(reserved: list[tuple[Submission, Array]], runs: Path) -> list[tuple[Submission, Array]]:
    """Submit one after the other. Where one is refused, those after it are withdrawn and those before it stay."""
    submitted = []
    for position, (entry, array) in enumerate(reserved):
        try:
            submitted.append((_submit_array(entry, array, runs), array))
        except SchedulerError as error:
            for later, _ in reserved[position + 1 :]:
                _withdraw(later, runs, f"not submitted, since another job was refused: {error}")
            raise
    return submitted


def _submit_array(entry: Submission, array: Array, runs: Path) -> Submission:
    """Submit one array and write down the job's id. Raises SchedulerError; the reservations are released then."""
    slurm = Slurm(entry.conf)
    try:
        job_id = slurm.submit(write_job(array))
    except NoSlurm as error:
        _withdraw(entry, runs, str(error))
        raise NoSlurm(f"{error} {NO_SLURM_ADVICE}") from error
    except NoAnswer as error:
        # The answer may be lost although the job was submitted.
        found = _found_again(slurm, entry)
        if found is None:
            raise SchedulerError(
                f"{error} {array.plan.name} may be submitted or not. Run the same command again in "
                f"{reservations.GRACE_SECONDS:.0f} s: it finds the job or submits it."
            ) from error
        job_id = found
    except SchedulerError as error:
        told = refusal(array.plan.name, str(error), array.plan.cluster)
        _withdraw(entry, runs, told)
        raise SchedulerError(told) from error
    entry = replace(entry, state="submitted", job_id=job_id)
    submissions.write_submission(runs, entry)
    slurm.forget(runs, entry.slurm)
    return entry


def write_job(array: Array) -> str:
    """Write the tasks and the batch script into the submission's folder; returns the script."""
    folder = array.plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(array.members):
        write_atomic(folder / f"task-{index}.json", encode(item))
    script = array.script
    write_atomic(folder / "job.sh", script.encode())
    return script


def _found_again(slurm: Slurm, entry: Submission) -> str | None:
    try:
        found = slurm.find(entry.token)
    except SchedulerError:
        return None
    return found[0].base_id if found else None


def _withdraw(entry: Submission, runs: Path, why: str) -> None:
    """End a submission that was not taken, and release its runs."""
    for run in entry.runs:
        reservations.release(run_of(runs, run), entry.token)
    submissions.write_submission(runs, replace(entry, state="refused", message=why))


def refusal(name: str, said: str, cluster: Cluster) -> str:
    """The message for a job that sbatch refused."""
    advice = f"Compare the cluster file of {cluster.name!r} with 'sinfo' and 'scontrol show partition'."
    return f"sbatch refused {name}: {said}. {advice}"
