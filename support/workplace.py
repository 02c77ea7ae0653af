"""The folders of one test, and the command that works in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from detector.data.shapes.generate import shapes_folder_name
from detector.runs.folder import RunDir
from support.micro import micro_data, micro_job, write_experiments

WAIT_SECONDS = 120


@dataclass(frozen=True)
class Workplace:
    """Folders of one test and the command that works in them."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HARNESS_EXPERIMENTS": str(self.root / "experiments"),
            "HARNESS_RUNS": str(self.root / "runs"),
            "HARNESS_RESULTS": str(self.root / "results"),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The command in a process group of its own, as a terminal starts it."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A terminal's Ctrl-C reaches the command even where the tests themselves run in the background, where
            # shells have SIGINT ignored and children inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def harness(self, *arguments: str, code: int = 0) -> str:
        """Run to the end; returns stdout and stderr together after checking the exit code."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == code, out + err
        return out + err

    def run_dir(self, ref: str = "table2/L6") -> RunDir:
        return RunDir(self.root / "runs" / micro_job(self.root / "experiments", ref).train.id)


def make_workplace(root: Path, *, iterations: int) -> Workplace:
    write_experiments(root / "experiments", iterations=iterations)
    job = micro_job(root / "experiments")
    micro_data(root / "runs" / "data" / shapes_folder_name(job.train.data), job)
    return Workplace(root)
