"""Runs in a real queue: what they left behind, what they said, and waiting for them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from detector.runs.folder import RunDir
from harness.slurm.submissions import Submission, read_submissions
from support.workplace import Workplace

JOB_SECONDS = 120
ROW = ("run", "table3/dr", "--profile", "tiny")


def runs_of(place: Workplace) -> Path:
    return place.root / "runs"


def trained(place: Workplace) -> list[RunDir]:
    """The runs that have a record."""
    return [RunDir(path.parents[2]) for path in sorted(runs_of(place).glob("*/evals/*/record.json"))]


def said_by_jobs(place: Workplace) -> str:
    """What processes printed and logged, for the message of a failed check."""
    outputs = sorted([*runs_of(place).glob("submissions/*/*.out"), *runs_of(place).glob("*/log.txt")])
    return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in outputs)


def wait_until_queue_is_empty(place: Workplace, *, jobs: str = "") -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while listed := subprocess.check_output(["squeue", "-h", *(["-j", jobs] if jobs else [])], text=True):
        assert time.monotonic() < deadline, listed + said_by_jobs(place)
        time.sleep(0.5)


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


def wait_until(condition: Callable[[], bool], place: Workplace) -> None:
    deadline = time.monotonic() + JOB_SECONDS
    while not condition():
        assert time.monotonic() < deadline, said_by_jobs(place)
        time.sleep(0.1)


def process_of(job_id: str | None, rank: int) -> int:
    """The id of a Python process of the job; whatever its node, it is on this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes()
        except OSError:  # ended meanwhile
            continue
        wanted = {f"SLURM_JOB_ID={job_id}".encode(), f"SLURM_PROCID={rank}".encode()}
        if wanted <= set(environment) and b"submitit.core._submit" in command and b"srun" not in command:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank} of job {job_id}")
