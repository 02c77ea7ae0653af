"""Whether runs can be tested on a real Slurm here: installs what is missing, starts the two nodes once, ends them.

    python -m tests.slurm.ready

Prints one line: Slurm's version, the idle nodes and whether accounts can be kept; or why there is no Slurm (then the
exit code is 1). Without slurmdbd and MariaDB the tests of accounts and their limits are skipped, and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.debian import NotInstalled, install
from support.slurm.cluster import missing_programs, slurm_cluster
from support.slurm.errors import SlurmDidNotStart
from support.slurm.plan import Accounts, ClusterPlan

PACKAGES = ("slurm-wlm", "munge")
PACKAGES_FOR_ACCOUNTS = ("slurmdbd", "mariadb-server")


def install_missing(packages: Sequence[str] = PACKAGES, *, accounts: bool = False) -> None:
    """Debian's packages, where a program is missing. Raises SlurmDidNotStart saying why they could not be had.

    accounts: as in ``missing_programs``.
    """
    if not (missing := missing_programs(accounts=accounts)):
        return
    try:
        install(packages, missing)
    except NotInstalled as error:
        raise SlurmDidNotStart(str(error)) from None
    if missing := missing_programs(accounts=accounts):
        raise SlurmDidNotStart(f"{', '.join(missing)} not installed, though {' and '.join(packages)} are")


def accounts_or_why_not() -> tuple[Accounts | None, str]:
    """What a cluster can be started with, and the words for it."""
    try:
        install_missing(PACKAGES_FOR_ACCOUNTS, accounts=True)
    except SlurmDidNotStart as error:
        return None, f"WITHOUT ACCOUNTS ({error}): the tests of accounts and their limits are skipped"
    return Accounts(), "with accounts"


def started_once(accounts: Accounts | None = None) -> str:
    """Start the cluster and end it; returns what it was. Raises SlurmDidNotStart."""
    plan = ClusterPlan(accounts=accounts)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster(Path(folder), plan) as variables:
        command = ["sinfo", "--version"]
        version = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        return f"{version.stdout.strip()}: {len(plan.nodes)} nodes idle"


def main() -> int:
    """One line, and whether runs can be tested."""
    try:
        install_missing()
        accounts, words = accounts_or_why_not()
        print(f"{started_once(accounts)}, {words}")
    except (SlurmDidNotStart, OSError, subprocess.CalledProcessError) as error:
        print(str(error).splitlines()[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
