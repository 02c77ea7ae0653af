"""Slurm clusters as data: one YAML file per cluster, shipped, in a folder of the user's, or named by its path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from msgspec import UNSET, Meta
from msgspec.structs import replace

from detector.errors import UsageError, did_you_mean
from detector.runs.job import Settings
from harness.folders import experiments_folders, named_folder
from harness.registry.core_schema import Keys
from harness.registry.declarations import Name
from harness.registry.yaml_files import Document, convert, read
from harness.slurm.resources import (
    MAIL_TYPES,
    OWN_KEY,
    RESERVED,
    Extra,
    Fallback,
    Gigabytes,
    Gpus,
    Machines,
    Minutes,
    Natural,
    Overlay,
    Seconds,
)

# Keys for which a person or site may have a default in a variable of sbatch's, such as SBATCH_ACCOUNT.
LEFT_OPEN = ("account", "partition", "qos", "constraint", "reservation")
_WORDS = ("partition", "account", "qos", "constraint", "reservation", "dependency", "mail_user")  # without spaces
_DEPENDENCY = re.compile(r"singleton|(after(any|ok|notok|corr|burstbuffer)?(:\d+(_(\d+|\*))?(\+\d+)?)+)")


class Cluster(Settings, frozen=True):
    """Where and how runs are submitted to Slurm. Nothing of it is part of a run's id.

    nodes, gpus_per_node: the most that one run takes. It takes fewer where its batch cannot be divided evenly among
    so many processes. There is one process per GPU, or one per node on a cluster without GPUs.
    cpus_per_gpu, memory_gb_per_gpu: per process, also without GPUs.
    parallel: how many runs of one user run at the same time, over all that was submitted.
    setup: shell lines that run before Python starts; one that fails ends the start.
    python: a path or command on the compute nodes; None for the interpreter that submits.
    container: a command that is put before ``python``.
    mail_type: words of MAIL_TYPES, in a list or between commas.
    slurm_conf: the configuration file of another Slurm than the default one.
    extra: further sbatch options by their long names.
    evaluation: other resources of jobs that only evaluate. rows: of the runs of some rows, by patterns of TABLE/ROW.
    fallback: the partition in which a run goes on that was preempted often.
    signal_delay_seconds: how long before its time limit a job is told to save. It must be longer than the longest step
    plus the writing of a checkpoint.
    start_minutes: how long a start may take until its first sign of getting ahead.
    max_requeues: how often a job is requeued without a person, for any reason (time limits, preemptions, failures).
    max_retries: how often it is requeued after failures (a killed process, processes that lost contact, a failed node,
    a hang) without a new checkpoint in between.
    """

    name: Name
    title: str
    time_minutes: Minutes
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    dependency: str | None = None
    nice: Annotated[int, Meta(ge=-2_147_483_645, le=2_147_483_645)] | None = None
    mail_user: str | None = None
    mail_type: str | tuple[str, ...] = ()
    slurm_conf: str | None = None
    nodes: Machines = 1
    gpus_per_node: Gpus = 0
    cpus_per_gpu: Machines | None = None
    memory_gb_per_gpu: Gigabytes | None = None
    parallel: Machines = 256
    setup: tuple[str, ...] = ()
    python: str | None = None
    container: str | None = None
    extra: Extra = {}  # noqa: RUF012 (msgspec copies it)
    evaluation: Overlay | None = None
    rows: dict[str, Overlay] = {}  # noqa: RUF012
    fallback: Fallback | None = None
    signal_delay_seconds: Seconds = 120
    start_minutes: Minutes = 30
    max_requeues: Natural = 100
    max_retries: Natural = 3

    @property
    def mail_types(self) -> tuple[str, ...]:
        """The words of ``mail_type`` as sbatch writes them."""
        given = self.mail_type.split(",") if isinstance(self.mail_type, str) else self.mail_type
        return tuple(word.strip().upper() for word in given)


def for_job(cluster: Cluster, refs: Iterable[str], *, evaluation_only: bool = False) -> Cluster:
    """The cluster as one job has it: with the keys of its rows, and of evaluations where it trains nothing.

    refs: the rows (TABLE/ROW) that the job serves. Of several patterns that match, the later one in the file counts;
    ``evaluation`` counts most. The result has neither ``rows`` nor ``evaluation``, so that equal jobs have equal ones.
    Raises UsageError where keys that are right alone leave no time together.
    """
    names = tuple(refs)
    found = [part for glob, part in cluster.rows.items() if any(fnmatchcase(name, glob) for name in names)]
    if evaluation_only and cluster.evaluation is not None:
        found.append(cluster.evaluation)
    result = replace(cluster, rows={}, evaluation=None)
    for overlay in found:
        result = _laid_over(result, overlay)
    if problem := _no_time(result):
        raise UsageError(f"Cluster {cluster.name!r}, for {', '.join(names)}: {problem}")
    return result


def _laid_over(cluster: Cluster, overlay: Overlay) -> Cluster:
    changes = {key: getattr(overlay, key) for key in overlay.__struct_fields__}
    changes = {key: value for key, value in changes.items() if value is not UNSET}
    if "extra" in changes:
        changes["extra"] = {**cluster.extra, **changes["extra"]}
    return replace(cluster, **changes)


def read_cluster(path: Path) -> Cluster:
    """One cluster file. Raises RegistryError with FILE:LINE, the value and the valid choices."""
    document = read(path)
    cluster = convert(document, Cluster)
    for keys, text in _texts(cluster, ()):
        if problem := _fault_of_text(keys, text):
            raise document.error(keys, problem)
    _check_mail_and_rows(document, cluster)
    parts: dict[Keys, Overlay] = {("rows", glob): overlay for glob, overlay in cluster.rows.items()}
    if cluster.evaluation is not None:
        parts["evaluation",] = cluster.evaluation
    _check_options(document, (), cluster)
    for keys, overlay in parts.items():
        _check_options(document, keys, _laid_over(cluster, overlay))
    return cluster


def _texts(value: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Every text in a cluster, with its place in the file. The names of options and rows are texts too."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _texts(item, (*keys, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield (*keys, name), name
            yield from _texts(item, (*keys, name))
    elif isinstance(value, Settings):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name), (*keys, name))


def _fault_of_text(keys: Keys, text: str) -> str:
    """What is wrong with a text, or "". A line break would begin another line of the batch script."""
    kept = text.replace("\n", "").replace("\t", "") if keys[0] == "setup" else text  # a loop takes several lines
    where = ".".join(str(key) for key in keys)
    if not kept.isprintable():
        return f"{text!r} has a line break or a control character; no option takes one."
    if not text.strip() and "extra" not in keys:
        return f"{where} is {text!r}: it must not be empty. Leave the key out, or write null, where there is none."
    if keys[-1] in _WORDS and " " in text:
        return f"{where} is {text!r}: no space may be in it."
    return ""


def _check_mail_and_rows(document: Document, cluster: Cluster) -> None:
    """Raise RegistryError for keys whose texts have a form of their own."""
    for word in cluster.mail_types:
        if word not in MAIL_TYPES:
            raise document.error(("mail_type",), f"unknown mail_type {word!r}. Valid: {', '.join(MAIL_TYPES)}.")
    for part in re.split(r"[,?]", cluster.dependency or "singleton"):
        if not _DEPENDENCY.fullmatch(part):
            message = f"dependency {part!r} is not such as afterok:1234, afterany:1234:1235 or singleton."
            raise document.error(("dependency",), message)
    if cluster.slurm_conf is not None and not Path(cluster.slurm_conf).is_absolute():
        raise document.error(("slurm_conf",), f"slurm_conf {cluster.slurm_conf!r} must be an absolute path.")
    for glob in cluster.rows:
        if glob.count("/") != 1:
            raise document.error(("rows", glob), f"{glob!r} is not TABLE/ROW, such as 'table4/dr-x101*'.")
    if cluster.fallback is not None and cluster.fallback.partition == cluster.partition:
        raise document.error(("fallback", "partition"), f"{cluster.partition!r} is the run's own partition already.")


def _check_options(document: Document, keys: Keys, cluster: Cluster) -> None:
    """Raise RegistryError for options of sbatch that cannot be given, and for too little time.

    keys: of the part of the file that was laid over the cluster.
    """
    for option in cluster.extra:
        where, name = (*keys, "extra", option), option.replace("_", "-")
        if name in OWN_KEY:
            raise document.error(where, f"--{name} has a key of its own here: {OWN_KEY[name]}.")
        if name in RESERVED or name.startswith("-"):
            raise document.error(where, f"{option!r} cannot be in 'extra': the submission sets this option itself.")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
            raise document.error(where, f"{option!r} in 'extra' is not the name of an option, such as exclude.")
    if problem := _no_time(cluster):
        delay = (*keys, "signal_delay_seconds")
        raise document.error(delay if delay in document.lines else (*keys, "time_minutes"), problem)


def _no_time(cluster: Cluster) -> str:
    if cluster.signal_delay_seconds < 60 * cluster.time_minutes:
        return ""
    return f"signal_delay_seconds ({cluster.signal_delay_seconds}) leaves nothing of {cluster.time_minutes} minutes."


def find_clusters(given: str) -> tuple[Cluster, ...]:
    """Clusters by their names or files, with commas between them.

    A text that names a file as it stands is that one file, whatever commas are in its path. Raises UsageError for an
    unknown cluster, an empty name, and two clusters of one name, whose submissions nobody could tell apart.
    """
    parts = [given] if Path(given).is_file() else [part.strip() for part in given.split(",")]
    if len(parts) > 1 and not all(parts):
        raise UsageError(f"--cluster {given!r} has an empty name. Write it such as --cluster a,b.")
    found = tuple(find_cluster(part) for part in parts)
    names = [cluster.name for cluster in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--cluster {given!r} names {name!r} more than once.")
    return found


def as_anywhere(given: str) -> str:
    """What names the same clusters in every working directory."""
    parts = [given] if Path(given).is_file() else [part.strip() for part in given.split(",")]
    return ",".join(str(Path(part).absolute()) if Path(part).is_file() else part for part in parts)


def find_cluster(given: str) -> Cluster:
    """A cluster by its name or by its file. Raises UsageError, naming the known clusters.

    What the file leaves open and a variable of sbatch's sets (SBATCH_ACCOUNT, SBATCH_PARTITION, ...) is as there.
    """
    cluster = _found(given)
    for key in LEFT_OPEN:
        variable = f"SBATCH_{key.upper()}"
        text = os.environ.get(variable, "")
        if text and getattr(cluster, key) is None:
            if problem := _fault_of_text((key,), text):
                raise UsageError(f"{variable}: {problem}")
            cluster = replace(cluster, **{key: text})
    return cluster


def _found(given: str) -> Cluster:
    if given.endswith((".yaml", ".yml")):
        if not Path(given).is_file():
            raise UsageError(f"There is no cluster file {given}. Write one like {_folders()[-1] / 'example.yaml'}.")
        return read_cluster(Path(given))
    known = known_clusters()
    if given not in known:
        raise UsageError(
            f"Unknown cluster {given!r}. Known: {', '.join(known)}. Copy {_folders()[-1] / 'example.yaml'} to a folder "
            "of your own, set HARNESS_CLUSTERS to it, or name the file: --cluster path/to/mine.yaml."
            f"{did_you_mean(given, known)}"
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
