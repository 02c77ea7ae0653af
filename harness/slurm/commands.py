"""Calls of Slurm's programs and their answers as data: squeue, sacct, sinfo, scancel."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from detector.errors import SchedulerError
from harness.slurm.states import SchedulerState

# States, as sinfo shortens them, of nodes that take no jobs; nor does a node whose state ends with *.
NOT_UP = ("block", "down", "drain", "drng", "err", "error", "fail", "failg", "futr", "inval", "maint", "unk")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED")
ACCOUNTS_AT_ONCE = 500  # jobs per call of sacct: what a command line holds
# JobID|State|ExitCode, such as 17_1|CANCELLED by 1000|0:15. Elements of arrays that still wait (17_[2-5]) do not match.
_ACCOUNT = re.compile(r"^(?P<job>\d+(?:_\d+)?)\|(?P<state>[^|]+)\|(?P<code>\d+):(?P<signal>\d+)$", re.MULTILINE)
SQUEUE_SECONDS = 60.0
# squeue's fields and their widths. Its short options (-o) cannot print restarts; its JSON changed between versions.
COLUMNS = {"JobArrayID": 48, "State": 24, "RestartCnt": 16, "Name": 64, "Reason": 160}


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of one partition: one line of ``sinfo``."""

    partition: str
    is_default: bool
    available: str  # of the partition: up, down, drain, inact
    limit_minutes: float | None  # None: no limit
    nodes: int
    state: str
    gpus: int  # per node

    @property
    def is_up(self) -> bool:
        """Whether jobs can run there, now or when other jobs have ended."""
        return not self.state.endswith("*") and self.state.rstrip("~#!%$@^-") not in NOT_UP


def read_partitions() -> list[NodeGroup]:
    """All partitions, hidden ones too. Raises SchedulerError where ``sinfo`` does not answer."""
    command = ["sinfo", "-a", "-h", "-o", "%P|%a|%l|%D|%t|%G"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
    except FileNotFoundError as error:
        raise SchedulerError("sinfo is not on the PATH.") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"sinfo did not answer within {SQUEUE_SECONDS:.0f} s.") from error
    if done.returncode != 0:
        raise SchedulerError(f"sinfo failed: {done.stderr.strip() or done.returncode}.")
    return [_group(line) for line in done.stdout.splitlines() if line.count("|") == 5]


def _group(line: str) -> NodeGroup:
    partition, available, limit, nodes, state, gres = (part.strip() for part in line.split("|"))
    return NodeGroup(
        partition.rstrip("*"), partition.endswith("*"), available, _minutes(limit), int(nodes), state, _gpus_in(gres)
    )


def _minutes(limit: str) -> float | None:
    """Minutes of ``[days-][[hours:]minutes:]seconds``, sinfo's format; None for "infinite" and other words."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def _gpus_in(gres: str) -> int:
    """The GPUs in a node's generic resources, such as ``gpu:a100:4(S:0-1),nvme:1``."""
    count = 0
    for resource in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *_, last = resource.split(":") if ":" in resource else (resource, "1")
        if name == "gpu":
            count += int(last) if last.isdigit() else 1
    return count


def cancel_by_name(name: str) -> None:
    """Cancel a job, waiting or running, by its name, which is known before its id is."""
    command = ["scancel", f"--name={name}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, check=False, timeout=SQUEUE_SECONDS)


def read_accounts(jobs: Iterable[str]) -> dict[str, SchedulerState]:
    """How jobs ended, by id. Jobs without an entry in Slurm's accounts are left out; many clusters keep none."""
    wanted, found = sorted(jobs), dict[str, SchedulerState]()
    for first in range(0, len(wanted), ACCOUNTS_AT_ONCE):
        listed = ",".join(wanted[first : first + ACCOUNTS_AT_ONCE])
        command = ["sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", listed]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return found
        for match in _ACCOUNT.finditer(done.stdout):
            number = int(match["signal"])
            code = 128 + number if number else int(match["code"])
            found[match["job"]] = SchedulerState("gone", match["state"], exit_code=code)
    return found


@dataclass(frozen=True)
class QueuedJob:
    """A line of ``squeue``: one job or one element of an array."""

    id: str
    state: str
    reason: str
    name: str
    restarts: int = 0

    @property
    def base_id(self) -> str:
        """The id without the element's index."""
        return self.id.split("_")[0]

    @property
    def index(self) -> int:
        """Index in the job array; 0 for a job that is not part of one."""
        return int(self.id.partition("_")[2] or 0)


def read_queue(names: Iterable[str]) -> list[QueuedJob]:
    """Jobs of these names that are pending, running or ending.

    Raises SchedulerError where the queue cannot be read: an unreadable queue must not look like an empty one.
    """
    wanted = set(names)
    if not wanted:
        return []
    fields = ",".join(f"{field}:{width}" for field, width in COLUMNS.items())
    command = ["squeue", "-h", "-r", "-O", fields, f"--name={','.join(sorted(wanted))}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
    except FileNotFoundError as error:
        raise SchedulerError(
            "There is no Slurm here: squeue is not on the PATH. Run this where jobs are submitted from; "
            "to see what would be submitted: --dry-run."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"squeue did not answer within {SQUEUE_SECONDS:.0f} s. Try again later.") from error
    if done.returncode != 0:
        raise SchedulerError(f"squeue failed: {done.stderr.strip() or done.returncode}. Nothing was submitted.")
    jobs = (_queued_job(line) for line in done.stdout.splitlines())
    return [job for job in jobs if job is not None and job.name in wanted]


def _queued_job(line: str) -> QueuedJob | None:
    """One line of ``squeue``, cut at the columns; None for a line of another kind."""
    values, start = dict[str, str](), 0
    for field, width in COLUMNS.items():
        values[field] = line[start : start + width].strip()
        start += width
    if not values["RestartCnt"].isdigit():
        return None
    return QueuedJob(
        values["JobArrayID"], values["State"], values["Reason"], values["Name"], restarts=int(values["RestartCnt"])
    )
