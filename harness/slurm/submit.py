"""Runs on a Slurm cluster: missing runs become arrays of one shape each, submitted through submitit."""

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
from harness.slurm import reservations
from harness.slurm import submissions as book
from harness.slurm.clusters import Cluster
from harness.slurm.script import Array, Shape, make_array, make_arrays, parameters, python_command
from harness.slurm.submissions import Submission

NO_LIMIT = 1_000_000  # submitit's own count of timeouts: our worker counts requeues itself


class NoSlurm(SchedulerError):
    """There is no Slurm where the command runs: nothing can have been submitted."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request: new jobs, runs that were queued or running already, jobs found again by name."""

    submitted: tuple[tuple[Submission, Shape], ...]
    taken: dict[str, str]
    adopted: tuple[Submission, ...]


def submit(assignments: list[Assignment], cluster: Cluster, execution: Execution, *, runs: Path) -> Outcome:
    """Submit what nobody has yet, and return at once. Raises SchedulerError where Slurm is not there or refuses."""
    code = take_snapshot(runs).name
    with book.one_at_a_time(runs):
        queued, adopted = slurm_queue.settle(runs)
        taken = {item: str(where) for item, where in queued.items()}
        for item in assignments:
            if item.train.id not in taken and reservations.is_busy(RunDir(Path(item.run_dir))):
                taken[item.train.id] = "running outside of the queue"
        free = [item for item in assignments if item.train.id not in taken]
        arrays = make_arrays(free, cluster, execution, runs=runs, code=code)
        noted = [_claim(array, cluster, code, runs=runs) for array in arrays]
    submitted = _submit_all([(entry, array) for entry, array in noted if array.members], cluster, runs=runs)
    ours = {run for entry, _ in submitted for run in entry.runs}
    taken |= {item.train.id: "reserved by another command" for item in free if item.train.id not in ours}
    wanted = {item.train.id for item in assignments}
    return Outcome(tuple(submitted), {item: why for item, why in taken.items() if item in wanted}, tuple(adopted))


def _claim(array: Array, cluster: Cluster, code: str, *, runs: Path) -> tuple[Submission, Array]:
    """Write the submission down, then claim its runs; both are left with what could be reserved.

    In this order, so that whoever meets a claim finds the submission behind it.
    """
    wanted = tuple(item.train.id for item in array.members)
    entry = Submission(token=array.token, cluster=cluster.name, runs=wanted, time=time.time(), code=code)
    book.register(runs, entry)
    living = {item.token for item in book.read_submissions(runs) if item.state != "ended"}
    members = [m for m in array.members if reservations.reserve(RunDir(Path(m.run_dir)), array.token, living=living)]
    if len(members) == len(wanted):
        return entry, array
    entry = replace(entry, runs=tuple(item.train.id for item in members), state="submitting" if members else "ended")
    book.write_submission(runs, entry)
    return entry, make_array(cluster, array.shape, members, token=array.token, runs=runs, code=code)


def _submit_all(
    reserved: list[tuple[Submission, Array]], cluster: Cluster, *, runs: Path
) -> list[tuple[Submission, Shape]]:
    """One after the other; where one is refused, the rest is given back and those before it stay submitted."""
    submitted = []
    for position, (entry, array) in enumerate(reserved):
        try:
            submitted.append((_sbatch(entry, array, cluster, runs=runs), array.shape))
        except SchedulerError:
            for later, _ in reserved[position + 1 :]:
                _give_back(later, runs)
            raise
    return submitted


def _sbatch(entry: Submission, array: Array, cluster: Cluster, *, runs: Path) -> Submission:
    """Hand one array to Slurm and note the job's id. Raises SchedulerError, with the claims given back."""
    folder = book.transport_folder(runs, entry.token)
    code = snapshot_folder(runs, entry.code)
    options = parameters(cluster, array.shape, token=entry.token, code=code, folder=folder)
    try:
        job_id = hand_over([Worker(item) for item in array.members], cluster, options, folder)
    except NoSlurm:
        _give_back(entry, runs)
        raise
    except SchedulerError as error:
        # sbatch may have lost the answer and not the job.
        found = slurm_commands.read_queue([entry.name])
        if not found and "timed out" in str(error.__cause__):
            raise SchedulerError(
                f"sbatch did not hear whether {entry.name} was taken: {error}. The same command, "
                f"{reservations.GRACE_SECONDS:.0f} s from now, finds the job or submits it again."
            ) from error
        if not found:
            _give_back(entry, runs)
            raise SchedulerError(refusal(entry.name, error, cluster)) from error
        job_id = found[0].base_id
    entry = replace(entry, state="submitted", job_id=job_id)
    book.write_submission(runs, entry)
    return entry


def hand_over(tasks: Sequence[Callable[[], object]], cluster: Cluster, options: Mapping[str, Any], folder: Path) -> str:
    """Give sbatch one job (an array where there are several tasks) and return its id.

    options: of ``parameters``; folder: for the script, the pickled tasks and the output. Raises NoSlurm, or
    SchedulerError with the last line of what sbatch said.
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


def _give_back(entry: Submission, runs: Path) -> None:
    for run in entry.runs:
        reservations.release(RunDir(runs / run), entry.token)
    book.write_submission(runs, replace(entry, state="ended"))


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """A job that submits must not hand its own allocation on; which Slurm it is stays known."""
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
    """What to tell of a job that sbatch did not take."""
    advice = f"Compare the cluster file of {cluster.name!r} with 'sinfo' and 'scontrol show partition'."
    return f"sbatch refused {name}: {error}. {advice}"
