"""How the processes of one run find each other."""

from __future__ import annotations

import os
from pathlib import Path

from detector.worker.requeue import slurm_job


def export_distributed() -> None:
    """Let submitit describe the processes to torch, where it started more than one."""
    import submitit

    try:
        environment = submitit.JobEnvironment()
    except RuntimeError:  # not started by submitit: one process
        return
    if environment.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.num_nodes == 1:  # not every machine can resolve its own name
            os.environ["MASTER_ADDR"] = "127.0.0.1"


def meeting_file(folder: Path) -> Path | None:
    """The file through which the processes of this start of this Slurm job meet; None without Slurm."""
    if slurm_job() is None:
        return None
    return folder / f".meeting-{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT') or 0}.json"
