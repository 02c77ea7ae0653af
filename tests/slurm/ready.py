"""Whether runs can be tested on a real Slurm here: installs what is missing, starts the two nodes once, ends them.

    python -m tests.slurm.ready

Prints one line: Slurm's version and the idle nodes, or why not (then the exit code is 1).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.slurm_cluster import NODES, SlurmDidNotStart, missing_programs, slurm_cluster

PACKAGES = ("slurm-wlm", "munge")
INSTALL_SECONDS = 300


def install_missing() -> None:
    """Debian's packages, where a program is missing. Raises SlurmDidNotStart saying what apt-get said."""
    missing = missing_programs()
    if not missing:
        return
    wanted = f"{', '.join(missing)} not installed"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]):
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except FileNotFoundError:
            raise SlurmDidNotStart(f"{wanted}, and there is no apt-get to install {' and '.join(PACKAGES)}") from None
        except subprocess.TimeoutExpired:
            raise SlurmDidNotStart(f"{wanted}; '{' '.join(command)}' took over {INSTALL_SECONDS} s") from None
        if done.returncode != 0:
            raise SlurmDidNotStart(f"{wanted}; '{' '.join(command)}': {_first_error(done.stderr)}")
    if missing := missing_programs():
        raise SlurmDidNotStart(f"{', '.join(missing)} not installed, though {' and '.join(PACKAGES)} are")


def started_once() -> str:
    """Start the cluster and end it; returns what it was. Raises SlurmDidNotStart."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster(Path(folder)) as variables:
        command = ["sinfo", "--version"]
        version = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        return f"{version.stdout.strip()}: {len(NODES)} nodes idle"


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("E:")), (lines or ["it failed without a word"])[-1])


def main() -> int:
    """One line, and whether runs can be tested."""
    try:
        install_missing()
        print(started_once())
    except (SlurmDidNotStart, OSError, subprocess.CalledProcessError) as error:
        print(str(error).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
