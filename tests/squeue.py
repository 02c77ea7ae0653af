"""Stand-ins for Slurm's programs, and lines as squeue prints them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.slurm.backend.slurm import COLUMNS

USER = "me"
NAMES = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sacct", "sacctmgr", "sinfo")


def squeue_line(
    job: str,
    state: str,
    reason: str,
    comment: str,
    *,
    restarts: int = 0,
    user: str = USER,
    code: str = "0",
    name: str = "table2-L6-s0",
) -> str:
    """One job in columns of fixed width."""
    values = {
        **{"JobArrayID": job, "State": state, "RestartCnt": str(restarts), "UserName": user, "Comment": comment},
        **{"exit_code": code, "Name": name, "Reason": reason},
    }
    return "".join(f"{values[field]:{width}}" for field, width in COLUMNS.items()) + "\n"


@dataclass(frozen=True)
class Programs:
    """Slurm's programs as small scripts, the first on the PATH; each notes how it was called."""

    root: Path

    @classmethod
    def install(cls, root: Path, patch: pytest.MonkeyPatch) -> Programs:
        """All of them: a Slurm named "here" without jobs, accounts and limits, which takes no jobs."""
        programs = cls(root)
        (root / "bin").mkdir(parents=True)
        for name in NAMES:
            programs.put(name, "true")
        programs.put("sbatch", "echo 'sbatch: error: no jobs today' >&2; exit 1")
        programs.put("squeue", f"cat {root}/queue")
        programs.put("sacct", f"cat {root}/accounts")
        programs.put("scontrol", f'[ "$*" != "show config" ] || cat {root}/config')
        programs.queue()
        programs.accounts()
        programs.config(ClusterName="here")
        patch.setenv("PATH", f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("LOGNAME", USER)
        patch.setenv("HARNESS_QUEUE_SECONDS", "0")
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
            patch.delenv(name)
        return programs

    def put(self, name: str, body: str) -> None:
        """The shell's lines of one program."""
        path = self.root / "bin" / name
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >>{self.root}/calls\n{body}\n')
        path.chmod(0o755)

    def fail(self, name: str, text: str) -> None:
        """Let a program say this and fail."""
        self.put(name, f"echo '{text}' >&2; exit 1")

    def queue(self, *lines: str) -> None:
        """What squeue prints."""
        (self.root / "queue").write_text("".join(lines))

    def accounts(self, *lines: str) -> None:
        """What sacct prints."""
        (self.root / "accounts").write_text("".join(f"{line}\n" for line in lines))

    def config(self, **values: str) -> None:
        """What ``scontrol show config`` prints."""
        text = "".join(f"{name:24}= {value}\n" for name, value in values.items())
        (self.root / "config").write_text(f"Configuration data as of 2030-01-01T10:00:00\n{text}")

    @property
    def calls(self) -> list[str]:
        """All calls so far: the program and its arguments."""
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def calls_of(self, name: str) -> list[str]:
        """The arguments of one program's calls."""
        return [call.partition(" ")[2] for call in self.calls if call.split()[0] == name]

    def forget_calls(self) -> None:
        """Begin to note anew."""
        (self.root / "calls").unlink(missing_ok=True)
