"""A run whose disk is full, on a real one: it is seen waiting, and a signal ends the wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from support.micro import write_experiments

PROJECT = Path(__file__).resolve().parents[3]
OWN_MOUNTS = ("unshare", "-m", "bash", "-c")
# A run in a folder of 64 KiB: its weights find no room. It is asked to stop when its heartbeat says that it waits.
SCRIPT = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from detector.runs.folder import RunDir
from detector.worker import reports
from detector.worker.worker import Worker
from support.micro import micro_assignment, micro_job

experiments, data, folder = map(Path, sys.argv[1:])
run = RunDir(folder / "run")
look = reports.Heartbeat.look

def seen(self, waiting):
    look(self, waiting)
    status = run.read_status()
    if status is not None and status.waiting:
        print(status.phase, status.waiting, status.waiting_why, sep="|", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

reports.Heartbeat.look = seen
reports.SHOWN_SECONDS = 0.0
reports.Heartbeat.INTERVAL = 0.0
assignment = micro_assignment(micro_job(experiments), run.root, data, checkpoint_every=100)
try:
    Worker(assignment)()
finally:
    status = run.read_status()
    print(status.phase, status.message, sep="|", flush=True)
"""


@pytest.mark.slow
def test_a_run_on_a_full_disk_is_seen_waiting_and_a_signal_ends_the_wait(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {folder}"
    tried = subprocess.run([*OWN_MOUNTS, mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no small disk can be made here: {tried.stderr.strip()}")
    experiments = write_experiments(tmp_path / "experiments")
    done = subprocess.run(
        [*OWN_MOUNTS, f"{mount}; exec {sys.executable} -W ignore -c '{SCRIPT}' {experiments} {data} {folder}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
    )
    waits, ends = done.stdout.splitlines()
    final = RunDir(folder / "run").final
    assert waits == f"training|writing {final}|No space left on device", done.stderr
    assert ends == f"stopped|stopped while it waited for its disk (writing {final}); the last checkpoint before is kept"
    assert done.returncode == 130
