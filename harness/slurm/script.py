"""From assignments to job arrays: their resources, submitit's parameters, and the batch script."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.assignment import Assignment
from harness.code.snapshot import snapshot_folder
from harness.registry.declarations import Execution
from harness.slurm.clusters import Cluster
from harness.slurm.job_end import START
from harness.slurm.submissions import PREFIX, next_token, transport_folder


@dataclass(frozen=True)
class Shape:
    """The resources of one run: nodes, processes per node, CPUs per process. All runs of an array have one shape."""

    nodes: int
    tasks_per_node: int
    on_gpus: bool
    cpus_per_task: int
    memory_gb: float | None  # per node

    @property
    def tasks(self) -> int:
        """Processes per run."""
        return self.nodes * self.tasks_per_node

    def __str__(self) -> str:
        each = f"{self.tasks_per_node} {'GPU' if self.on_gpus else 'process'}"
        plural = "" if self.tasks_per_node == 1 else "s" if self.on_gpus else "es"
        return f"{self.nodes} node{'s' if self.nodes > 1 else ''} of {each}{plural}"


@dataclass(frozen=True)
class Array:
    """Runs of one shape, the batch script that starts them, and the token of their submission."""

    token: str
    shape: Shape
    members: tuple[Assignment, ...]
    script: str


def shape_of(assignment: Assignment, cluster: Cluster, execution: Execution) -> Shape:
    """As many processes as the cluster and the profile allow, among which the groups of a batch divide evenly.

    They are put on as few nodes as possible. Without GPUs, or for a profile that uses none, there is one process per
    node.
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
    """A shape of ``nodes`` nodes with ``tasks`` processes each, and their CPUs and memory. tasks: per node."""
    cpus = cluster.cpus_per_gpu or max(execution.threads, execution.loader_workers + 1)
    memory = None if cluster.memory_gb_per_gpu is None else cluster.memory_gb_per_gpu * tasks
    return Shape(nodes, tasks, on_gpus, cpus, memory)


def parameters(
    cluster: Cluster, shape: Shape, *, token: str, code: Path, folder: Path, is_run: bool = True
) -> dict[str, Any]:
    """Parameters of submitit's Slurm executor, by sbatch's names.

    is_run: whether the job trains a run, which is to be requeued after some failures.
    """
    options: dict[str, Any] = {
        "job_name": f"{PREFIX}{token}",
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
    # Some clusters requeue only jobs that ask for it.
    options["additional_parameters"] = ({"requeue": True} if cluster.max_requeues else {"no_requeue": True}) | extra
    # Without kill-on-bad-exit rank 0 outlives a crashed rank. Newer versions of srun do not inherit --cpus-per-task.
    options["srun_args"] = ["--kill-on-bad-exit=1", f"--cpus-per-task={shape.cpus_per_task}"]
    options["setup"] = [*cluster.setup, *_setup(code, folder), *(_job_end(cluster, folder) if is_run else ())]
    return options


def _setup(code: Path, folder: Path) -> list[str]:
    """Shell lines that put the snapshot's code first on Python's path and the pickle where submitit looks for it."""
    here = shlex.quote(str(folder))
    return [
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # else modules of the folder of the submission would come first",
        # submitit moves its pickles to their place after sbatch has answered; a crash before that must not matter.
        "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}",
        f"ln {here}/task-${{SLURM_ARRAY_TASK_ID:-0}}.pkl {here}/${{job}}_submitted.pkl 2>/dev/null || true",
    ]


def _job_end(cluster: Cluster, folder: Path) -> list[str]:
    """Shell lines that run ``harness.slurm.job_end`` after a failure: a killed process cannot requeue its job.

    Slurm ends a job that it is asked to requeue: from here on TERM is ignored, so that the reason still gets written.
    """
    command = f"{python_command(cluster)} -m harness.slurm.job_end {shlex.quote(str(folder))}"
    return [
        f"at_end() {{ code=$?; trap '' TERM; "
        f"[ $code -eq 0 ] || {command} {cluster.max_retries} {cluster.max_requeues} $code; }}",
        "trap at_end EXIT",
        f'echo "{START}$(( ${{SLURM_RESTART_COUNT:-0}} + 1 ))"',
    ]


def python_command(cluster: Cluster) -> str:
    """The interpreter on the nodes. USR2, the signal to save, is blocked until the worker can handle it."""
    python = shlex.quote(sys.executable) if cluster.python is None else cluster.python
    prefix = "" if cluster.container is None else f"{cluster.container} "
    return f"{prefix}env --block-signal=USR2 {python}"


def make_array(
    cluster: Cluster, shape: Shape, members: list[Assignment], *, token: str, runs: Path, code: str
) -> Array:
    """An array with its script exactly as it will be submitted. Needs no Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    folder = transport_folder(runs, token)
    options = parameters(cluster, shape, token=token, code=snapshot_folder(runs, code), folder=folder)
    command = f"{python_command(cluster)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    if len(members) > 1:
        options["map_count"] = len(members)
    for name, value in {"the runs folder": str(folder), "the code": options["setup"][0], **options}.items():
        if isinstance(value, str) and not value.isprintable():
            raise UsageError(f"{name}: {value!r} has a line break or a control character, which no batch script takes.")
    script = _make_sbatch_string(command=command, folder=folder, **options)
    return Array(token, shape, tuple(members), script)


def make_arrays(
    assignments: list[Assignment], cluster: Cluster, execution: Execution, *, runs: Path, code: str
) -> list[Array]:
    """One array per shape, in the order of the runs. code: the snapshot's id. Writes nothing."""
    groups: dict[Shape, list[Assignment]] = {}
    for assignment in assignments:
        shape = shape_of(assignment, cluster, execution)
        groups.setdefault(shape, []).append(
            replace(assignment, device="cuda" if shape.on_gpus else "cpu", max_requeues=cluster.max_requeues)
        )
    arrays = []
    for shape, members in groups.items():
        # With the runs folder: a job of the same runs from another folder must have another name.
        content = [cluster, code, [item.train.id for item in members], str(runs.resolve())]
        token = next_token(runs, msgspec.json.encode(content))
        arrays.append(make_array(cluster, shape, members, token=token, runs=runs, code=code))
    return arrays
