"""Calls of Slurm's programs: the one place where a process of Slurm's is started."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from detector.errors import SchedulerError

SECONDS = 60.0  # that a program may take
# What a job gives its processes. An sbatch that saw it would take it for options of its own.
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "PMI_", "PMIX_")
# A person's own defaults for these programs: they hide jobs (SQUEUE_PARTITION), or ask questions (SCANCEL_INTERACTIVE).
_HABITS = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")


class NoSlurm(SchedulerError):
    """A program of Slurm's is not on this machine."""


class NoAnswer(SchedulerError):
    """A program did not answer in time: what it was asked to do may be done or not."""


@dataclass(frozen=True)
class Answer:
    """How a program ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Why it failed, in one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return (lines or [f"exit code {self.code}"])[-1].rstrip(".")


def own_name() -> str:
    """Who runs this, as Slurm's programs take it: a number for a user without a name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def ask(program: str, *arguments: str, conf: str = "", text: str | None = None, hidden: Collection[str] = ()) -> Answer:
    """Run one of Slurm's programs.

    conf: the configuration file (slurm.conf) of the Slurm that is meant; "" for this machine's. text: its standard
    input. hidden: variables that it must not see. Raises NoSlurm where it is not there, NoAnswer where it takes longer
    than ``SECONDS``.
    """
    try:
        done = subprocess.run(
            [program, *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
            env={name: value for name, value in _environment(conf).items() if name not in hidden},
        )
    except FileNotFoundError:
        raise NoSlurm(f"There is no Slurm here: {program} is not on the PATH.") from None
    except OSError as error:
        raise NoSlurm(f"{program} could not be started: {error}.") from error
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{program} did not answer within {SECONDS:.0f} s.") from None
    return Answer(done.returncode, done.stdout, done.stderr)


def _environment(conf: str) -> dict[str, str]:
    """This process's variables, without those of an allocation that it may be in and of a person's habits."""
    hidden = (*_HABITS, *_OF_A_JOB) if "SLURM_JOB_ID" in os.environ else _HABITS
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden) or name == "SLURM_CONF"}
    return {**kept, "SLURM_CONF": str(Path(conf).absolute())} if conf else kept
