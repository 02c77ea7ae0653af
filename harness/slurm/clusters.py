"""Slurm clusters as declared data: one small YAML file each, shipped, the user's own, or named by its path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from detector.errors import UsageError
from detector.runs.job import Count, Settings
from harness.folders import experiments_folders
from harness.registry.declarations import Name
from harness.registry.yaml_files import convert, read

Natural = Annotated[int, Meta(ge=0)]
# What the submission itself sets: another value would break stopping, adoption, arrays or the logs.
RESERVED = (
    *("array", "chdir", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "requeue", "no-requeue", "signal", "time"),
)
# What has a field of its own here.
OWN_FIELD = {
    **{name: name for name in ("partition", "account", "qos", "constraint")},
    **{"mem": "memory_gb_per_gpu", "cpus-per-task": "cpus_per_gpu"},
}


class Cluster(Settings, frozen=True):
    """Where and how runs are submitted to Slurm. Nothing of it enters a run's identity.

    ``nodes`` and ``gpus_per_node``: the most that one run takes; it takes fewer where its batch cannot be shared
    evenly by so many processes (one a GPU; one a node on a cluster without GPUs). ``cpus_per_gpu`` and
    ``memory_gb_per_gpu``: a process's, also without GPUs. ``setup``: shell lines before Python starts. ``python``: a
    path or command on the compute nodes; None for the interpreter that submits. ``container``: a command before it.
    ``extra``: further sbatch options by their long names. ``signal_delay_seconds``: before the end of its time a job is
    told to save; longer than the longest step and the writing of a checkpoint. ``max_requeues``: how often a run is
    queued again by itself, after time limits, preemptions and mishaps together. ``max_retries``: how often after
    mishaps (a process was killed, the processes lost each other, a node failed) that found it at one checkpoint.
    """

    name: Name
    title: str
    time_minutes: Count
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: Count = 1
    gpus_per_node: Natural = 0
    cpus_per_gpu: Count | None = None
    memory_gb_per_gpu: Annotated[float, Meta(gt=0)] | None = None
    parallel: Count = 256
    setup: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    extra: dict[str, str | int | float | bool] = {}  # noqa: RUF012 (msgspec copies it)
    signal_delay_seconds: Count = 120
    max_requeues: Natural = 100
    max_retries: Natural = 3


def read_cluster(path: Path) -> Cluster:
    """One cluster file. Raises RegistryError with FILE:LINE, the value and the valid choices."""
    document = read(path)
    cluster = convert(document, Cluster)
    for option in cluster.extra:
        where, name = ("extra", option), option.replace("_", "-")
        if name in OWN_FIELD:
            raise document.error(where, f"--{name} has a key of its own here: {OWN_FIELD[name]}.")
        if name in RESERVED or name.startswith("-"):
            raise document.error(
                where, f"{option!r} is not for 'extra', which adds to what the submission sets itself."
            )
    if cluster.signal_delay_seconds >= 60 * cluster.time_minutes:
        raise document.error(
            ("signal_delay_seconds",) if "signal_delay_seconds" in _keys(document.data) else ("time_minutes",),
            f"signal_delay_seconds ({cluster.signal_delay_seconds}) leaves nothing of {cluster.time_minutes} minutes.",
        )
    return cluster


def find_cluster(given: str) -> Cluster:
    """A cluster by its name or by its file. Raises UsageError with the known names."""
    if given.endswith((".yaml", ".yml")):
        if not Path(given).is_file():
            raise UsageError(f"There is no cluster file {given}. Write one like {_folders()[-1] / 'example.yaml'}.")
        return read_cluster(Path(given))
    known = known_clusters()
    if given not in known:
        raise UsageError(
            f"Unknown cluster {given!r}. Known: {', '.join(known)}. Copy {_folders()[-1] / 'example.yaml'} to a folder "
            "of your own, set HARNESS_CLUSTERS to it, or name the file: --cluster path/to/mine.yaml."
        )
    cluster = read_cluster(known[given])
    if cluster.name != given:
        raise read(known[given]).error(("name",), f"the name must be the file's: {given!r}.")
    return cluster


def known_clusters() -> dict[str, Path]:
    """Cluster files by name; the user's own stand before the shipped ones."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _folders() -> list[Path]:
    own = os.environ.get("HARNESS_CLUSTERS")
    return [*([Path(own)] if own else []), *(folder / "clusters" for folder in experiments_folders())]


def _keys(data: Any) -> Any:
    return data if isinstance(data, dict) else ()
