"""Runs on a Slurm cluster: missing runs become arrays of one shape each, submitted through submitit."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.rundir import RunDir
from detector.worker import Assignment, Worker
from harness import submission as book
from harness.clusters import Cluster
from harness.declarations import Execution
from harness.epilogue import START
from harness.snapshot import snapshot_folder, take_snapshot
from harness.submission import Submission

NO_LIMIT = 1_000_000  # submitit's own count of timeouts: our worker counts requeues itself


class NoSlurm(SchedulerError):
    """There is no Slurm where the command runs: nothing can have been submitted."""


@dataclass(frozen=True)
class Shape:
    """What one run takes: nodes, processes a node, and each process's share. One array has one shape."""

    nodes: int
    tasks_per_node: int
    on_gpus: bool
    cpus_per_task: int
    memory_gb: float | None  # a node

    @property
    def tasks(self) -> int:
        """Processes a run."""
        return self.nodes * self.tasks_per_node

    def __str__(self) -> str:
        each = f"{self.tasks_per_node} {'GPU' if self.on_gpus else 'process'}"
        plural = "" if self.tasks_per_node == 1 else "s" if self.on_gpus else "es"
        return f"{self.nodes} node{'s' if self.nodes > 1 else ''} of {each}{plural}"


@dataclass(frozen=True)
class Array:
    """Runs of one shape, the script that starts them, and what they are called."""

    token: str
    shape: Shape
    members: tuple[Assignment, ...]
    script: str


@dataclass(frozen=True)
class Outcome:
    """What became of a request: new jobs, runs that were queued or running already, jobs found again by name."""

    submitted: tuple[tuple[Submission, Shape], ...]
    taken: dict[str, str]
    adopted: tuple[Submission, ...]


def shape_of(assignment: Assignment, cluster: Cluster, execution: Execution) -> Shape:
    """The most processes that the cluster's limits and the profile allow and that share a batch's groups evenly.

    Of equal numbers, those on fewer nodes. Without GPUs, or for a profile that uses none: one process a node.
    """
    batch = assignment.train.batch
    groups = batch.images // batch.images_per_group
    wanted = execution.gpus_per_run
    on_gpus = cluster.gpus_per_node > 0 and wanted != 0
    per_node = cluster.gpus_per_node if on_gpus else 1
    limit = cluster.nodes * per_node if wanted == "all" or wanted == 0 else wanted
    fitting = [
        (nodes * tasks, -nodes, tasks)
        for nodes in range(1, cluster.nodes + 1)
        for tasks in range(1, per_node + 1)
        if groups % (nodes * tasks) == 0 and nodes * tasks <= limit
    ]
    _, negative_nodes, tasks = max(fitting)
    return shape_with(cluster, execution, nodes=-negative_nodes, tasks=tasks, on_gpus=on_gpus)


def shape_with(cluster: Cluster, execution: Execution, *, nodes: int, tasks: int, on_gpus: bool) -> Shape:
    """So many nodes of so many tasks, each with its share of CPUs and memory."""
    cpus = cluster.cpus_per_gpu or max(execution.threads, execution.loader_workers + 1)
    memory = None if cluster.memory_gb_per_gpu is None else cluster.memory_gb_per_gpu * tasks
    return Shape(nodes, tasks, on_gpus, cpus, memory)


def parameters(
    cluster: Cluster, shape: Shape, *, token: str, code: Path, folder: Path, is_run: bool = True
) -> dict[str, Any]:
    """What submitit's Slurm executor is told, under sbatch's names. is_run: whether a bad end is a training's."""
    options: dict[str, Any] = {
        "job_name": f"{book.PREFIX}{token}",
        "time": cluster.time_minutes,
        "nodes": shape.nodes,
        "ntasks_per_node": shape.tasks_per_node,
        "cpus_per_task": shape.cpus_per_task,
        "gpus_per_node": shape.tasks_per_node if shape.on_gpus else None,
        "mem": None if shape.memory_gb is None else f"{round(shape.memory_gb * 1024)}MB",
        "signal_delay_s": cluster.signal_delay_seconds,
        "array_parallelism": cluster.parallel,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own default is unknown to clusters that check it
        **{name: getattr(cluster, name) for name in ("partition", "account", "qos", "constraint")},
    }
    extra = {name.replace("-", "_"): value for name, value in cluster.extra.items() if value is not False}
    # Not every cluster lets jobs be queued again unless they ask for it.
    options["additional_parameters"] = ({"requeue": True} if cluster.max_requeues else {"no_requeue": True}) | extra
    # Without kill-on-bad-exit rank 0 outlives a crashed rank; srun no longer takes the CPUs from the job by itself.
    options["srun_args"] = ["--kill-on-bad-exit=1", f"--cpus-per-task={shape.cpus_per_task}"]
    options["setup"] = [*cluster.setup, *_setup(code, folder), *(_epilogue(cluster, folder) if is_run else ())]
    return options


def _setup(code: Path, folder: Path) -> list[str]:
    """Shell lines of our own: the snapshot's code and nobody else's; the pickle, whoever submitted it."""
    here = shlex.quote(str(folder))
    return [
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # else modules of the folder of the submission would come first",
        # submitit moves its pickles to their place after sbatch has answered; a crash before that must not matter.
        "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}",
        f"ln {here}/task-${{SLURM_ARRAY_TASK_ID:-0}}.pkl {here}/${{job}}_submitted.pkl 2>/dev/null || true",
    ]


def _epilogue(cluster: Cluster, folder: Path) -> list[str]:
    """Shell lines for a bad end: a killed process cannot ask for another start of its run."""
    command = f"{python_command(cluster)} -m harness.epilogue {shlex.quote(str(folder))}"
    return [
        f"at_end() {{ code=$?; [ $code -eq 0 ] || {command} {cluster.max_retries} {cluster.max_requeues} $code; }}",
        "trap at_end EXIT",
        f'echo "{START}$(( ${{SLURM_RESTART_COUNT:-0}} + 1 ))"',
    ]


def python_command(cluster: Cluster) -> str:
    """The interpreter on the nodes. A stop signal during its imports waits until the worker can heed it."""
    python = shlex.quote(sys.executable) if cluster.python is None else cluster.python
    prefix = "" if cluster.container is None else f"{cluster.container} "
    return f"{prefix}env --block-signal=USR2 {python}"


def make_array(
    cluster: Cluster, shape: Shape, members: list[Assignment], *, token: str, runs: Path, code: str
) -> Array:
    """The script exactly as it will be submitted, made where there need not be any Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = book.transport_folder(runs, token)
    options = parameters(cluster, shape, token=token, code=snapshot_folder(runs, code), folder=folder)
    command = f"{python_command(cluster)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    if len(members) > 1:
        options["map_count"] = len(members)
    script = _make_sbatch_string(command=command, folder=folder, **options)
    return Array(token, shape, tuple(members), script)


def make_arrays(
    assignments: list[Assignment], cluster: Cluster, execution: Execution, *, runs: Path, code: str
) -> list[Array]:
    """One array a shape, in the order of the runs. code: the snapshot's id. Writes nothing."""
    groups: dict[Shape, list[Assignment]] = {}
    for assignment in assignments:
        shape = shape_of(assignment, cluster, execution)
        groups.setdefault(shape, []).append(
            replace(assignment, device="cuda" if shape.on_gpus else "cpu", max_requeues=cluster.max_requeues)
        )
    arrays = []
    for shape, members in groups.items():
        # The folder too: a job of the same runs from another folder must not be taken for ours.
        content = [cluster, code, [item.train.id for item in members], str(runs.resolve())]
        token = book.next_token(runs, msgspec.json.encode(content))
        arrays.append(make_array(cluster, shape, members, token=token, runs=runs, code=code))
    return arrays


def submit(assignments: list[Assignment], cluster: Cluster, execution: Execution, *, runs: Path) -> Outcome:
    """Submit what nobody has yet, and return at once. Raises SchedulerError where Slurm is not there or refuses."""
    code = take_snapshot(runs).name
    with book.one_at_a_time(runs):
        queued, adopted = book.settle(runs)
        taken = {item: str(where) for item, where in queued.items()}
        for item in assignments:
            if item.train.id not in taken and book.is_busy(RunDir(Path(item.run_dir))):
                taken[item.train.id] = "running outside of the queue"
        free = [item for item in assignments if item.train.id not in taken]
        arrays = make_arrays(free, cluster, execution, runs=runs, code=code)
        noted = [_claim(array, cluster, code, runs=runs) for array in arrays]
    submitted = _submit_all([(entry, array) for entry, array in noted if array.members], cluster, runs=runs)
    ours = {run for entry, _ in submitted for run in entry.runs}
    taken |= {item.train.id: "claimed by another command" for item in free if item.train.id not in ours}
    wanted = {item.train.id for item in assignments}
    return Outcome(tuple(submitted), {item: why for item, why in taken.items() if item in wanted}, tuple(adopted))


def _claim(array: Array, cluster: Cluster, code: str, *, runs: Path) -> tuple[Submission, Array]:
    """Write the submission down, then claim its runs; both are left with what could be claimed.

    In this order, so that whoever meets a claim finds the submission behind it.
    """
    wanted = tuple(item.train.id for item in array.members)
    entry = Submission(token=array.token, cluster=cluster.name, runs=wanted, time=time.time(), code=code)
    book.register(runs, entry)
    living = {item.token for item in book.read_submissions(runs) if item.state != "ended"}
    members = [m for m in array.members if book.claim(RunDir(Path(m.run_dir)), array.token, living=living)]
    if len(members) == len(wanted):
        return entry, array
    entry = replace(entry, runs=tuple(item.train.id for item in members), state="submitting" if members else "ended")
    book.write_submission(runs, entry)
    return entry, make_array(cluster, array.shape, members, token=array.token, runs=runs, code=code)


def _submit_all(
    claimed: list[tuple[Submission, Array]], cluster: Cluster, *, runs: Path
) -> list[tuple[Submission, Shape]]:
    """One after the other; where one is refused, the rest is given back and those before it stay submitted."""
    submitted = []
    for position, (entry, array) in enumerate(claimed):
        try:
            submitted.append((_sbatch(entry, array, cluster, runs=runs), array.shape))
        except SchedulerError:
            for later, _ in claimed[position + 1 :]:
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
        found = book.read_queue([entry.name])
        if not found and "timed out" in str(error.__cause__):
            raise SchedulerError(
                f"sbatch did not hear whether {entry.name} was taken: {error}. The same command, "
                f"{book.GRACE_SECONDS:.0f} s from now, finds the job or submits it again."
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
        book.release(RunDir(runs / run), entry.token)
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
