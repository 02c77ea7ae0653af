"""Runs to submit, made small: work of some seeds and shapes, and cluster files as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from detector.runs.assignment import Assignment
from detector.runs.job import EvalJob
from harness.registry.declarations import Execution
from harness.slurm.arrays import Work
from harness.slurm.clusters import Cluster
from harness.slurm.submissions import Options
from support.micro import micro_assignment


def cluster(**changes: Any) -> Cluster:
    """A cluster file."""
    return msgspec.convert({"name": "c", "title": "t", "time_minutes": 60, **changes}, Cluster)


def execution(**changes: Any) -> Execution:
    """How a profile executes runs."""
    values = {
        **{"gpus_per_run": "all", "threads": 2, "memory_gb": 4.0, "loader_workers": 4},
        **{"checkpoint_every": 1, "groups_per_forward": 1, **changes},
    }
    return msgspec.convert(values, Execution)


def run(job: EvalJob, runs: Path, *, seed: int = 0, groups: int = 8) -> Assignment:
    """A run of this seed whose batch has so many groups."""
    batch = replace(job.train.batch, images=2 * groups, images_per_group=2)
    whole = replace(job, train=replace(job.train, seed=seed, batch=batch))
    return micro_assignment(whole, runs / whole.train.id, runs)


def work(*members: Assignment, runs: Path, refs: dict[int, str] | None = None, **changes: Any) -> Work:
    """The same as work, with the options of the command. refs: by seed, rows other than table2/L6."""
    rows = refs or {}
    values: dict[str, Any] = {
        "assignments": members,
        "refs": {item.train.id: (rows.get(item.train.seed, "table2/L6"),) for item in members},
        "execution": execution(),
        "options": Options(profile="tiny", cluster="c", overrides=("optimizer.lr=0.005",), data="/data/coco"),
        "runs": runs,
        **changes,
    }
    return Work(**values)
