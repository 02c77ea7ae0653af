"""From assignments to job arrays: their resources and the batch script."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from detector.errors import UsageError
from detector.runs.assignment import Assignment
from harness.registry.declarations import Execution
from harness.slurm.backend.slurm import COMMENT
from harness.slurm.batch.job_end import START
from harness.slurm.clusters import Cluster

SETUP_FAILED: Final = "harness: setup failed: "
AS_THEY_ARE: Final = (  # options of sbatch that are keys of a cluster file
    *("partition", "account", "qos", "constraint", "reservation", "dependency", "nice", "mail_user"),
)
WATCH_SECONDS: Final = 10  # between two looks of a batch script at its run
LONGEST_NAME: Final = 60


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
class ArrayPlan:
    """One job, or one array of jobs, of one shape: what the batch script is made from.

    names: of the jobs, by array index. run_folders: of the runs, where the processes report. folder: of the
    submission. code: the copy of the code. worker: what Python runs, before the path of the task's file. most_at_once:
    elements that run at a time. watched: whether the script watches its processes, and may queue the job again.
    """

    token: str
    cluster: Cluster
    shape: Shape
    names: tuple[str, ...]
    run_folders: tuple[Path, ...]
    folder: Path
    code: Path
    most_at_once: int
    worker: tuple[str, ...] = ("-u", "-m", "detector.worker")
    watched: bool = True

    @property
    def name(self) -> str:
        """Of the job in the queue."""
        return array_name(self.names)

    @property
    def is_array(self) -> bool:
        """Whether there are several jobs."""
        return len(self.names) > 1


@dataclass(frozen=True)
class Array:
    """Runs that are submitted together, in the order of the array's indices. slurm: ClusterName; "" if not known."""

    plan: ArrayPlan
    members: tuple[Assignment, ...]
    refs: tuple[tuple[str, ...], ...]
    slurm: str = ""

    def only(self, kept: Sequence[int]) -> Array:
        """The same without the members of other indices."""
        plan = replace(
            self.plan,
            names=tuple(self.plan.names[index] for index in kept),
            run_folders=tuple(self.plan.run_folders[index] for index in kept),
        )
        members = tuple(self.members[index] for index in kept)
        return replace(self, plan=plan, members=members, refs=tuple(self.refs[index] for index in kept))

    def at_once(self, most: int) -> Array:
        """The same with this number of elements that run at a time."""
        return replace(self, plan=replace(self.plan, most_at_once=most))

    @property
    def token(self) -> str:
        """Of the submission."""
        return self.plan.token

    @property
    def shape(self) -> Shape:
        """What each of the runs takes."""
        return self.plan.shape

    @property
    def script(self) -> str:
        """The batch script."""
        return batch_script(self.plan)


def shape_of(assignment: Assignment, cluster: Cluster, execution: Execution, *, evaluation_only: bool = False) -> Shape:
    """As many processes as the cluster and the profile allow, among which the groups of a batch divide evenly.

    They are put on as few nodes as possible. Without GPUs, or for a profile that uses none, there is one process per
    node. evaluation_only: no batch must be divided.
    """
    batch = assignment.train.batch
    groups = 0 if evaluation_only else batch.images // batch.images_per_group
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


def batch_script(array: ArrayPlan) -> str:
    """The script exactly as it is submitted: Slurm's options, the settings of this array, and ``job.sh``.

    Raises UsageError for a path that no batch script takes.
    """
    folder = str(array.folder)
    for what, path in (("the runs folder", folder), ("the code", str(array.code))):
        if not path.isprintable():
            raise UsageError(f"{what}: {path!r} has a line break or a control character, which no batch script takes.")
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in sbatch_options(array)), ""]
    lines += [
        "# Setup: a line that fails ends the job (add '|| true' where that does not matter).",
        "set -e",
        f"trap 'echo \"{SETUP_FAILED}$BASH_COMMAND (exit code $?)\"' ERR",
        *array.cluster.setup,
        "trap - ERR",
        "set +e",
        "",
        *_settings(array),
        "",
    ]
    return "\n".join(lines) + "\n" + _supervisor()


def sbatch_options(array: ArrayPlan) -> list[str]:
    """Slurm's options, as words after ``#SBATCH``."""
    cluster, shape = array.cluster, array.shape
    options: dict[str, object] = {
        "job-name": array.name,
        "comment": f"{COMMENT}{array.token}",
        "time": cluster.time_minutes,
        "nodes": shape.nodes,
        "ntasks-per-node": shape.tasks_per_node,
        "cpus-per-task": shape.cpus_per_task,
        "gpus-per-node": shape.tasks_per_node if shape.on_gpus else None,
        "mem": None if shape.memory_gb is None else f"{round(shape.memory_gb * 1024)}M",
        **{name.replace("_", "-"): getattr(cluster, name) for name in AS_THEY_ARE},
        "mail-type": ",".join(cluster.mail_types) or None,
        "signal": f"USR2@{cluster.signal_delay_seconds}",
        "open-mode": "append",
        "output": f"{_escaped(str(array.folder))}/{'%A_%a' if array.is_array else '%j'}_0_log.out",
        # Some clusters queue only those jobs again that ask for it.
        "requeue" if cluster.max_requeues else "no-requeue": True,
    }
    if array.is_array:
        options["array"] = f"0-{len(array.names) - 1}%{array.most_at_once}"
    options |= {name.replace("_", "-"): value for name, value in cluster.extra.items()}
    return [
        f"--{name}" if value is True else f"--{name}={_in_option(str(value))}"
        for name, value in options.items()
        if value is not None and value is not False
    ]


def _settings(array: ArrayPlan) -> list[str]:
    """The variables that ``job.sh`` begins with."""
    cluster, shape = array.cluster, array.shape
    step = ["srun", "--kill-on-bad-exit=1", "--unbuffered", "--open-mode=append", f"--nodes={shape.nodes}"]
    step += [f"--ntasks={shape.tasks}", f"--ntasks-per-node={shape.tasks_per_node}"]
    # Newer versions of srun do not inherit the first. The second: also where the job was given no variables.
    step += [f"--cpus-per-task={shape.cpus_per_task}", "--export=ALL"]
    return [
        f"export PYTHONPATH={shlex.quote(str(array.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1  # else modules of the folder of the submission would come first",
        f"folder={shlex.quote(str(array.folder))}",
        f"output_folder={shlex.quote(_escaped(str(array.folder)))}  # srun replaces % and what follows it",
        _bash_array("names", array.names),
        _bash_array("runs", [str(path) for path in array.run_folders]),
        f"step=({shlex.join(step)})",
        f"python=({python_command(cluster)})",
        f"worker=({shlex.join(array.worker)})",
        f"max_requeues={cluster.max_requeues} max_retries={cluster.max_retries}",
        f"start_seconds={60 * cluster.start_minutes} watch_seconds={WATCH_SECONDS}",
        f"fallback={shlex.quote(cluster.fallback.partition if cluster.fallback else '')} "
        f"fallback_after={cluster.fallback.after if cluster.fallback else 0}",
        f"start_line={shlex.quote(START)} watched={'yes' if array.watched else 'no'}",
    ]


def _bash_array(name: str, values: Sequence[str]) -> str:
    return f"{name}=({' '.join(map(shlex.quote, values))})"


def _escaped(path: str) -> str:
    """A path in which Slurm replaces nothing."""
    return path.replace("%", "%%")


def _in_option(value: str) -> str:
    """A value of an ``#SBATCH`` line, which is read like a shell's words: quoted where it must be."""
    if not re.search(r"""[\s'"\\#]""", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@cache
def _supervisor() -> str:
    return (files("harness.slurm.batch") / "job.sh").read_text()


def python_command(cluster: Cluster) -> str:
    """The interpreter on the nodes. USR2, the signal to save, is blocked until the worker can handle it."""
    python = shlex.quote(sys.executable) if cluster.python is None else cluster.python
    prefix = "" if cluster.container is None else f"{cluster.container} "
    return f"{prefix}env --block-signal=USR2 {python}"


def job_name(refs: Sequence[str], seed: int) -> str:
    """What people see in the queue: ``table2-L6-s0``."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{refs[0]}-s{seed}")[:LONGEST_NAME]


def array_name(names: Sequence[str]) -> str:
    """Of an array before its elements have begun, which then take names of their own: ``table2-8runs``."""
    if len(names) == 1:
        return names[0]
    first = names[0].split("-")[0]
    return f"{first if all(name.startswith(f'{first}-') for name in names) else 'harness'}-{len(names)}runs"
