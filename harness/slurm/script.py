"""From assignments to job arrays: resources, parameters, and the lines of the batch script."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from detector.runs.assignment import Assignment
from harness.code.snapshot import snapshot_folder
from harness.registry.declarations import Execution
from harness.slurm import submissions as book
from harness.slurm.clusters import Cluster
from harness.slurm.job_end import START


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
    options["setup"] = [*cluster.setup, *_setup(code, folder), *(_job_end(cluster, folder) if is_run else ())]
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


def _job_end(cluster: Cluster, folder: Path) -> list[str]:
    """Shell lines for a bad end: a killed process cannot ask for another start of its run."""
    command = f"{python_command(cluster)} -m harness.slurm.job_end {shlex.quote(str(folder))}"
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
