"""What cluster files may say of a job's resources and of sbatch's options: ranges, names, and what rows may change."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from detector.runs.job import Settings

Natural = Annotated[int, Meta(ge=0, le=1_000_000)]
Minutes = Annotated[int, Meta(ge=1, le=5_270_400)]  # ten years
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Machines = Annotated[int, Meta(ge=1, le=65_536)]  # nodes, or cores of one
Gpus = Annotated[int, Meta(ge=0, le=1024)]
Gigabytes = Annotated[float, Meta(ge=0.001, le=1e6)]  # less would be 0 MB, which to Slurm is all of a node's
Number = Annotated[int, Meta(ge=-(10**9), le=10**9)] | Annotated[float, Meta(ge=-1e9, le=1e9)]
Extra = dict[str, str | Number | bool]
# Options that the submission itself sets. Another value would break stopping, requeueing, job arrays, logs or the
# search for a job.
RESERVED = (
    *("array", "chdir", "comment", "error", "input", "job-name", "nodes", "ntasks", "ntasks-per-node"),
    *("no-requeue", "open-mode", "output", "parsable", "requeue", "signal", "test-only", "time", "wait", "wrap"),
)
# Options that have a key of their own in a cluster file, and its name.
OWN_KEY = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "reservation", "dependency", "nice")},
    **{"mem": "memory_gb_per_gpu", "cpus-per-task": "cpus_per_gpu", "mail-user": "mail_user", "mail-type": "mail_type"},
    **{"cluster": "slurm_conf", "clusters": "slurm_conf"},
}
# What sbatch takes for --mail-type.
MAIL_TYPES = (
    *("NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT"),
    *("TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50", "ARRAY_TASKS"),
)


class Overlay(Settings, frozen=True):
    """Keys of a cluster file that some of its jobs have otherwise. What is left out stays; null: none."""

    partition: str | UnsetType | None = UNSET
    account: str | UnsetType | None = UNSET
    qos: str | UnsetType | None = UNSET
    constraint: str | UnsetType | None = UNSET
    reservation: str | UnsetType | None = UNSET
    time_minutes: Minutes | UnsetType = UNSET
    start_minutes: Minutes | UnsetType = UNSET
    signal_delay_seconds: Seconds | UnsetType = UNSET
    nodes: Machines | UnsetType = UNSET
    gpus_per_node: Gpus | UnsetType = UNSET
    cpus_per_gpu: Machines | UnsetType | None = UNSET
    memory_gb_per_gpu: Gigabytes | UnsetType | None = UNSET
    extra: Extra | UnsetType = UNSET


class Fallback(Settings, frozen=True):
    """Where a run goes on that was preempted often. after: preemptions until then."""

    partition: str
    after: Annotated[int, Meta(ge=1, le=1000)]
