"""How the processes of one run find themselves and each other. Free of torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# What torch calls each number, and what srun calls it.
_STEP = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def job_id() -> str:
    """Of the job that this process is in, as scontrol and squeue write it; "" outside of Slurm."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID", "")


@dataclass(frozen=True)
class SlurmTask:
    """A task of a Slurm job's step that trains a run: the job's id, its starts before this one, and the task's file.

    Only ``python -m detector.worker`` makes one: the end of a process that a person starts inside an allocation is not
    the job's.
    """

    job: str
    restarts: int
    file: Path

    @property
    def starts(self) -> Path:
        """Where rank 0 notes each start of the job (``detector.runs.starts``)."""
        return self.file.with_suffix(".starts")

    @property
    def ends(self) -> Path:
        """Where the batch script notes how each start ended."""
        return self.file.with_suffix(".ends")


def slurm_task(file: Path) -> SlurmTask | None:
    """The task that srun started this process as; None where it did not. file: of the task's assignment."""
    if "SLURM_PROCID" not in os.environ or not job_id():
        return None
    return SlurmTask(job_id(), int(os.environ.get("SLURM_RESTART_COUNT") or 0), file)


def export_distributed(*, under_slurm: bool = False) -> None:
    """Describe the processes of the run to torch, where there is more than one.

    under_slurm: srun started them (``slurm_task``); otherwise submitit, or nobody.
    """
    if under_slurm:
        _export_step()
        return
    import submitit

    try:
        environment = submitit.JobEnvironment()
    except RuntimeError:  # not started by submitit: one process
        return
    if environment.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.num_nodes == 1:  # not every machine can resolve its own name
            os.environ["MASTER_ADDR"] = "127.0.0.1"


def _export_step() -> None:
    """The step that srun started, in torch's words. Its processes meet through a file (``meeting_file``)."""
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    nodes = int(os.environ.get("SLURM_NNODES") or os.environ.get("SLURM_JOB_NUM_NODES") or 1)
    for name, of_slurm in _STEP.items():
        os.environ[name] = os.environ.get(of_slurm) or ("1" if name == "WORLD_SIZE" else "0")
    os.environ["LOCAL_WORLD_SIZE"] = str(max(1, tasks // nodes))
    names = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    # Not every machine can resolve its own name.
    os.environ["MASTER_ADDR"] = "127.0.0.1" if nodes == 1 else first_node(names)


def first_node(names: str) -> str:
    """The first of Slurm's list of nodes: ``n01`` of ``n[01-03,7]-ib,m2``, with what follows the brackets."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0] if first else "")


def meeting_file(folder: Path, task: SlurmTask | None) -> Path | None:
    """The file through which the processes of this start of this Slurm job meet; None without Slurm."""
    if task is None:
        return None
    return folder / f".meeting-{os.environ.get('SLURM_JOB_ID', task.job)}-{task.restarts}.json"
