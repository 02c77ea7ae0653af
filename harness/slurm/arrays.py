"""From runs to job arrays: on which clusters, of which shapes, within the limits of the site."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from harness.code.snapshot import snapshot_folder
from harness.registry.declarations import Execution
from harness.slurm.backend.limits import Limits, cut, never_starts
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Array, ArrayPlan, Shape, job_name, shape_of
from harness.slurm.clusters import Cluster, for_job
from harness.slurm.queue import QueuedRun
from harness.slurm.shares import Share, spread, throttles
from harness.slurm.submissions import Options, next_token, transport_folder


@dataclass(frozen=True)
class Work:
    """Runs to submit. refs: by training id, the rows that each serves. options: of the command."""

    assignments: tuple[Assignment, ...]
    refs: Mapping[str, tuple[str, ...]]
    execution: Execution
    options: Options
    runs: Path
