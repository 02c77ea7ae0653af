"""Submission to Slurm: runs that nobody trains become job arrays of one shape each, submitted through submitit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.worker.worker import Worker
from harness.code.snapshot import snapshot_folder, take_snapshot
from harness.registry.declarations import Execution
from harness.slurm import commands as slurm_commands
from harness.slurm import queue as slurm_queue
from harness.slurm import reservations, submissions
from harness.slurm.clusters import Cluster
from harness.slurm.script import Array, Shape, make_array, make_arrays, parameters, python_command
from harness.slurm.submissions import Submission, run_of

NO_LIMIT = 1_000_000  # submitit's own count of timeouts: our worker counts requeues itself


class NoSlurm(SchedulerError):
    """There is no Slurm on this machine, so nothing was submitted."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request to submit runs."""

    submitted: tuple[tuple[Submission, Shape], ...]  # the new jobs
    skipped: dict[str, str]  # by training id, why a run was not submitted: queued or running already
    recovered: tuple[Submission, ...]  # earlier jobs whose id is known only now (``reconcile``)


def submit(assignments: list[Assignment], cluster: Cluster, execution: Execution, *, runs: Path) -> Outcome:
    """Submit the runs that nobody trains yet, and return at once.

    Raises SchedulerError where there is no Slurm or it refuses a job.
    """
    code = take_snapshot(runs).name
    with submissions.submission_lock(runs):
        queued, recovered = slurm_queue.reconcile(runs)
        skipped = {run: str(where) for run, where in queued.items()}
        for item in assignments:
            if item.train.id not in skipped and reservations.is_busy(RunDir(Path(item.run_dir))):
                skipped[item.train.id] = "running outside of the queue"
        free = [item for item in assignments if item.train.id not in skipped]
        arrays = make_arrays(free, cluster, execution, runs=runs, code=code)
        reserved = [_reserve(array, cluster, code, runs=runs) for array in arrays]
    submitted = _submit_all([(entry, array) for entry, array in reserved if array.members], cluster, runs=runs)
    ours = {run for entry, _ in submitted for run in entry.runs}
    skipped |= {item.train.id: "reserved by another command" for item in free if item.train.id not in ours}
    wanted = {item.train.id for item in assignments}
    return Outcome(tuple(submitted), {run: why for run, why in skipped.items() if run in wanted}, tuple(recovered))


def _reserve(array: Array, cluster: Cluster, code: str, *, runs: Path) -> tuple[Submission, Array]:
    """Write the submission down, then reserve its runs. Both are returned with the runs that could be reserved.

    In this order, so that whoever meets a reservation finds its submission.
    """
    wanted = tuple(item.train.id for item in array.members)
    entry = Submission(token=array.token, cluster=cluster.name, runs=wanted, time=time.time(), code=code)
    submissions.register(runs, entry)
    living = {item.token for item in submissions.read_submissions(runs) if item.state != "ended"}
    members = [m for m in array.members if reservations.reserve(RunDir(Path(m.run_dir)), array.token, living=living)]
    if len(members) == len(wanted):
        return entry, array
    entry = replace(entry, runs=tuple(item.train.id for item in members), state="submitting" if members else "ended")
    submissions.write_submission(runs, entry)
    return entry, make_array(cluster, array.shape, members, token=array.token, runs=runs, code=code)


def _submit_all(
    reserved: list[tuple[Submission, Array]], cluster: Cluster, *, runs: Path
) -> list[tuple[Submission, Shape]]:
    """Submit one after the other. Where one is refused, those after it are withdrawn and those before it stay."""
    submitted = []
    for position, (entry, array) in enumerate(reserved):
        try:
            submitted.append((_submit_array(entry, array, cluster, runs=runs), array.shape))
        except SchedulerError:
            for later, _ in reserved[position + 1 :]:
                _withdraw(later, runs)
            raise
    return submitted


def _submit_array(entry: Submission, array: Array, cluster: Cluster, *, runs: Path) -> Submission:
    """Submit one array and write down the job's id. Raises SchedulerError; the reservations are released then."""
    folder = submissions.transport_folder(runs, entry.token)
    code = snapshot_folder(runs, entry.code)
    options = parameters(cluster, array.shape, token=entry.token, code=code, folder=folder)
    try:
        job_id = call_sbatch([Worker(item) for item in array.members], cluster, options, folder)
    except NoSlurm:
        _withdraw(entry, runs)
        raise
    except SchedulerError as error:
        # The answer may be lost although the job was submitted.
        found = slurm_commands.read_queue([entry.name])
        if not found and "timed out" in str(error.__cause__):
            raise SchedulerError(
                f"sbatch timed out and {entry.name} may be submitted or not: {error}. Run the same command again in "
                f"{reservations.GRACE_SECONDS:.0f} s: it finds the job or submits it."
            ) from error
        if not found:
            _withdraw(entry, runs)
            raise SchedulerError(refusal(entry.name, error, cluster)) from error
        job_id = found[0].base_id
    entry = replace(entry, state="submitted", job_id=job_id)
    submissions.write_submission(runs, entry)
    return entry


def call_sbatch(
    tasks: Sequence[Callable[[], object]], cluster: Cluster, options: Mapping[str, Any], folder: Path
) -> str:
    """Submit one job (an array for several tasks) and return its id.

    options: of ``parameters``. folder: for the script, the pickled tasks and the output. Raises NoSlurm, or
    SchedulerError with the last line that sbatch printed.
    """
    import submitit

    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=NO_LIMIT, python=python_command(cluster))
    except RuntimeError as error:
        raise NoSlurm(f"There is no Slurm here: {error} To see what would be submitted: --dry-run.") from error
    executor.update_parameters(**options)
    for index, task in enumerate(tasks):
        prepared = submitit.core.utils.DelayedSubmission(task)
        prepared.set_timeout(options["time"], NO_LIMIT)
        folder.mkdir(parents=True, exist_ok=True)
        prepared.dump(folder / f"task-{index}.pkl")
    try:
        with _outside_of_jobs():
            return str(executor.submit_array(tasks)[0].job_id.split("_")[0])
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise SchedulerError(_last_line(error)) from error


def _withdraw(entry: Submission, runs: Path) -> None:
    """End a submission that was not submitted, and release its runs."""
    for run in entry.runs:
        reservations.release(run_of(runs, run), entry.token)
    submissions.write_submission(runs, replace(entry, state="ended"))


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the allocation that this process may be in from sbatch. The configuration file of Slurm stays known."""
    import submitit

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    config = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with submitit.helpers.clean_env():
        os.environ.update(config)
        yield


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("sbatch:")]
    return (said or lines or [repr(error)])[-1].rstrip(".")


def refusal(name: str, error: SchedulerError, cluster: Cluster) -> str:
    """The message for a job that sbatch refused."""
    advice = f"Compare the cluster file of {cluster.name!r} with 'sinfo' and 'scontrol show partition'."
    return f"sbatch refused {name}: {error}. {advice}"
