"""Slurm clusters as data: one YAML file per cluster, shipped, in a folder of the user's, or named by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from detector.errors import UsageError
from detector.runs.job import Settings
from harness.folders import experiments_folders, named_folder
from harness.registry.declarations import Name
from harness.registry.yaml_files import Document, convert, read

Natural = Annotated[int, Meta(ge=0, le=1_000_000)]
Minutes = Annotated[int, Meta(ge=1, le=5_270_400)]  # ten years
Machines = Annotated[int, Meta(ge=1, le=65_536)]  # nodes, or cores of one
# Options that the submission itself sets. Another value would break stopping, requeueing, job arrays, logs or the
# search for a job by its name.
RESERVED = (
    *("array", "chdir", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
    *("output", "requeue", "no-requeue", "signal", "time"),
)
# Options that have a field of their own in ``Cluster``, and its name.
OWN_FIELD = {
    **{name: name for name in ("partition", "account", "qos", "constraint")},
    **{"mem": "memory_gb_per_gpu", "cpus-per-task": "cpus_per_gpu"},
}


class Fallback(Settings, frozen=True):
    """Where a run goes on after so many preemptions."""

    partition: str
    after: int = 3


class Cluster(Settings, frozen=True):
    """Where and how runs are submitted to Slurm. Nothing of it is part of a run's id.

    nodes, gpus_per_node: the most that one run takes. It takes fewer where its batch cannot be divided evenly among
    so many processes. There is one process per GPU, or one per node on a cluster without GPUs.
    cpus_per_gpu, memory_gb_per_gpu: per process, also without GPUs.
    setup: shell lines that run before Python starts.
    python: a path or command on the compute nodes; None for the interpreter that submits.
    container: a command that is put before ``python``.
    extra: further sbatch options by their long names.
    signal_delay_seconds: how long before its time limit a job is told to save. It must be longer than the longest step
    plus the writing of a checkpoint.
    max_requeues: how often a job is requeued without a person, for any reason (time limits, preemptions, failures).
    max_retries: how often it is requeued after failures (a killed process, processes that lost contact, a failed node)
    without a new checkpoint in between.
    """

    name: Name
    title: str
    time_minutes: Minutes
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: Machines = 1
    gpus_per_node: Annotated[int, Meta(ge=0, le=1024)] = 0
    cpus_per_gpu: Machines | None = None
    memory_gb_per_gpu: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    parallel: Machines = 256
    setup: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    extra: dict[str, str | int | float | bool] = {}  # noqa: RUF012 (msgspec copies it)
    signal_delay_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 120
    max_requeues: Natural = 100
    max_retries: Natural = 3
    start_minutes: Minutes = 30
    slurm_conf: str | None = None
    fallback: Fallback | None = None


def read_cluster(path: Path) -> Cluster:
    """One cluster file. Raises RegistryError with FILE:LINE, the value and the valid choices."""
    document = read(path)
    cluster = convert(document, Cluster)
    _refuse_control_characters(document, cluster)
    for option in cluster.extra:
        where, name = ("extra", option), option.replace("_", "-")
        if name in OWN_FIELD:
            raise document.error(where, f"--{name} has a key of its own here: {OWN_FIELD[name]}.")
        if name in RESERVED or name.startswith("-"):
            raise document.error(where, f"{option!r} cannot be in 'extra': the submission sets this option itself.")
    if cluster.signal_delay_seconds >= 60 * cluster.time_minutes:
        raise document.error(
            ("signal_delay_seconds",) if "signal_delay_seconds" in _keys(document.data) else ("time_minutes",),
            f"signal_delay_seconds ({cluster.signal_delay_seconds}) leaves nothing of {cluster.time_minutes} minutes.",
        )
    return cluster


def _refuse_control_characters(document: Document, cluster: Cluster) -> None:
    """Raise RegistryError: a line break would begin another line of the batch script."""
    for key in cluster.__struct_fields__:
        value = getattr(cluster, key)
        texts: dict[tuple[str | int, ...], str] = {(key,): value} if isinstance(value, str) else {}
        if isinstance(value, tuple):
            texts = {(key, i): line.replace("\n", "").replace("\t", "") for i, line in enumerate(value)}
        elif isinstance(value, dict):
            texts = {(key, name): f"{name}{text}" for name, text in value.items()}
        for where, text in texts.items():
            if not text.isprintable():
                raise document.error(where, f"{text!r} has a line break or a control character; no option takes one.")


def find_cluster(given: str) -> Cluster:
    """A cluster by its name or by its file. Raises UsageError, naming the known clusters."""
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
    """Cluster files by name; of two with one name the user's own, not the shipped one."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def _folders() -> list[Path]:
    own = named_folder("HARNESS_CLUSTERS")
    return [*([own] if own is not None else []), *(folder / "clusters" for folder in experiments_folders())]


def _keys(data: Any) -> Any:
    return data if isinstance(data, dict) else ()
