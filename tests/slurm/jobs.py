"""Runs in a real queue: what they left behind, what they said, and waiting for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from detector.runs.folder import RunDir
from harness.slurm.submissions import Submission, read_submissions
from support.final_weights import assert_same_bits, final_weights
from support.slurm import machine
from support.workplace import Workplace

JOB_SECONDS = 900
ROW = ("run", "table3/dr", "--profile", "tiny")
CLUSTER = {
    "title": "two nodes without GPUs",
    "partition": "main",
    "nodes": "2",
    "cpus_per_gpu": "1",
    "memory_gb_per_gpu": "2",
    "time_minutes": "30",
    "signal_delay_seconds": "60",
}
Undisturbed = tuple[Workplace, dict[str, str]]


def cluster_text(name: str, **keys: str) -> str:
    """A cluster file: both nodes for each run, one process on each, but for the keys that are given."""
    return "".join(f"{key}: {value}\n" for key, value in ({"name": name} | CLUSTER | keys).items())


def runs_of(place: Workplace) -> Path:
    return place.root / "runs"


def trained(place: Workplace) -> list[RunDir]:
    """The runs that have a record."""
    return [RunDir(path.parents[2]) for path in sorted(runs_of(place).glob("*/evals/*/record.json"))]


# Of a traceback; the stacks of a hung process have no comma there.
_FRAME = re.compile(r"(?:\[rank\d+\]: ?)?(?:  File \"[^\"]*\", line \d+, in |    )")


def without_frames(text: str) -> str:
    """A log whose tracebacks are shortened to their last lines: of a long message only the ends are shown."""
    return "".join(line for line in text.splitlines(keepends=True) if not _FRAME.match(line))


def log_of(run: RunDir) -> str:
    """What the run has logged, ``without_frames``."""
    return without_frames(run.log.read_text(errors="replace"))


def said_by_jobs(place: Workplace) -> str:
    """What processes printed and logged, what Slurm logged, and what still lives, for the message of a failed check."""
    conf = Path(os.environ["SLURM_CONF"])
    outputs = sorted([*runs_of(place).glob("submissions/*/*.out"), *runs_of(place).glob("*/log.txt")])
    outputs += sorted(conf.parent.glob("*.log"))
    living = "\n".join(
        f"{pid} of {machine.parent_of(pid)}: {machine.command_of(pid)}" for pid in machine.of_cluster(str(conf))
    )
    said = [f"== {path}\n{without_frames(path.read_text(errors='replace'))[-3000:]}" for path in outputs]
    return "\n".join([*said, f"== processes\n{living}"])


def assert_as_undisturbed(run: RunDir, place: Workplace, undisturbed: Undisturbed) -> None:
    """One record, the same weights to the last bit, and every logged iteration once."""
    assert [path.root for path in trained(place)].count(run.root) == 1, said_by_jobs(place)
    (alone,) = [item for item in trained(undisturbed[0]) if item.root.name == run.root.name]
    assert_same_bits(final_weights(run), final_weights(alone))
    logged, expected = (
        [json.loads(line)["iteration"] for line in item.metrics.read_text().splitlines()] for item in (run, alone)
    )
    assert logged == expected


def squeue(*options: str) -> list[str]:
    """The lines that it prints, less the head."""
    return subprocess.check_output(["squeue", "-h", *options], text=True).splitlines()


def wait_until_queue_is_empty(place: Workplace, *, jobs: str = "") -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while listed := squeue(*(["-j", jobs] if jobs else [])):
        assert time.monotonic() < deadline, "\n".join(listed) + said_by_jobs(place)
        time.sleep(0.3)


def wait_for_checkpoint(place: Workplace) -> RunDir:
    deadline = time.monotonic() + JOB_SECONDS
    while not (found := sorted(runs_of(place).glob("*/checkpoints/0*.pt"))):
        assert time.monotonic() < deadline, said_by_jobs(place)
        time.sleep(0.02)
    return RunDir(found[0].parents[1])


def the_submission(place: Workplace) -> Submission:
    (only,) = read_submissions(runs_of(place))
    return only


def show(job_id: str | None) -> dict[str, str]:
    """What scontrol knows of a job."""
    text = subprocess.check_output(["scontrol", "show", "job", str(job_id)], text=True)
    return dict(part.split("=", 1) for part in text.split() if "=" in part)


def wait_until(condition: Callable[[], bool], place: Workplace, *, every: float = 0.1) -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while not condition():
        assert time.monotonic() < deadline, said_by_jobs(place)
        time.sleep(every)


def process_of(job_id: str | None, rank: int) -> int:
    """The id of a Python process of the job; whatever its node, it is on this machine."""
    found = machine.tasks(os.environ["SLURM_CONF"], rank, job=str(job_id))
    assert found, f"no process of rank {rank} of job {job_id}"
    return found[0]
