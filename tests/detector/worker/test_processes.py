"""How a process of a run finds itself: by Slurm's variables where Slurm started it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.worker.processes import SlurmTask, export_distributed, first_node, meeting_file, slurm_task

STEP = {
    **{"SLURM_JOB_ID": "41", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"},
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"},
    "SLURM_STEP_NODELIST": "n[07-08]",
}
TORCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a job; what a test exports is undone."""
    for name in (*TORCH, *[name for name in os.environ if name.startswith("SLURM_")]):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_processes_of_a_step_are_described_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    export_distributed(under_slurm=True)
    assert [os.environ[name] for name in TORCH] == ["5", "1", "8", "4", "n07"]
    monkeypatch.setenv("SLURM_NNODES", "1")
    export_distributed(under_slurm=True)
    assert [os.environ[name] for name in TORCH] == ["5", "1", "8", "8", "127.0.0.1"]


def test_a_process_that_nobody_started_is_alone() -> None:
    export_distributed()
    assert not any(name in os.environ for name in TORCH)


def test_only_a_task_that_srun_started_is_the_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "task-1.json"
    assert slurm_task(file) is None
    assert meeting_file(tmp_path, None) is None
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    task = slurm_task(file)
    assert task == SlurmTask("40_1", 3, file)
    assert (task.starts.name, task.ends.name) == ("task-1.starts", "task-1.ends")
    assert meeting_file(tmp_path, task) == tmp_path / ".meeting-41-3.json"
    monkeypatch.delenv("SLURM_PROCID")  # a shell inside an allocation
    assert slurm_task(file) is None


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("", ""),
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[01-03,7]-ib,m2", "n01-ib"),
        ("gpu-[9,11-12]", "gpu-9"),
        ("r[1-2]n[03-04]", "r1n03"),
    ],
)
def test_the_first_of_slurms_nodes(names: str, first: str) -> None:
    assert first_node(names) == first
