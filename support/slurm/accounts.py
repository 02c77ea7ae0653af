"""Slurm's accounts: a MariaDB in the cluster's folder, slurmdbd before it, and who may submit how much."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from support.slurm.plan import DATABASE_USER, ClusterPlan, Ports

ACCOUNT = "lab"
# A small one, whose tables lie in files that are not synced: it lives as long as the tests.
DATABASE_OPTIONS = (
    *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M", "--innodb-lock-wait-timeout=900"),
    *("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--innodb-flush-method=nosync"),
)


def make_database(folder: Path) -> None:
    """An empty one, in which slurmdbd may make its tables."""
    command = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/database", "--skip-test-db"]
    command += ["--auth-root-authentication-method=normal", *_as_root()]
    subprocess.run(command, check=True, capture_output=True)
    # One statement a line.
    (folder / "users.sql").write_text(
        f"CREATE USER '{DATABASE_USER}'@'%' IDENTIFIED BY 'slurm';\nGRANT ALL ON *.* TO '{DATABASE_USER}'@'%';\n"
    )


def accounts_commands(
    folder: Path, ports: Ports, environment: Mapping[str, str]
) -> list[tuple[list[str], Callable[[], bool]]]:
    """The two daemons in the order of their start, each with the question whether it answers."""
    database = ["mariadbd", "--no-defaults", f"--datadir={folder}/database", f"--socket={folder}/database.sock"]
    database += ["--bind-address=127.0.0.1", f"--port={ports.database}", f"--pid-file={folder}/database.pid"]
    database += [f"--init-file={folder}/users.sql", *DATABASE_OPTIONS, *_as_root()]
    ask = ["mariadb", "--no-defaults", f"--socket={folder}/database.sock", f"--user={DATABASE_USER}"]

    def answers(*command: str) -> Callable[[], bool]:
        return lambda: subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    return [
        (database, answers(*ask, "--password=slurm", "--execute=SELECT 1")),
        (["slurmdbd", "-D"], answers("sacctmgr", "-n", "list", "cluster")),
    ]


def declare(plan: ClusterPlan, environment: Mapping[str, str]) -> None:
    """Tell slurmdbd of the cluster, its qualities of service, and who may submit."""
    accounts = plan.accounts
    assert accounts is not None
    names = ",".join(["normal", *accounts.qos])
    commands = [["add", "cluster", plan.name]]
    commands += [["add", "qos", name, *limits.split()] for name, limits in accounts.qos.items()]
    commands += [["add", "account", ACCOUNT, f"Cluster={plan.name}", f"QOS={names}"]]
    # Root has an account of that name from the beginning, which would be its default.
    given = [f"Account={ACCOUNT}", f"QOS={names}", "DefaultQOS=normal"]
    commands += [["add", "user", user, *given] for user in accounts.users]
    commands += [["modify", "user", user, "set", f"DefaultAccount={ACCOUNT}"] for user in accounts.users]
    for command in commands:
        done = subprocess.run(
            ["sacctmgr", "-i", *command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and "Nothing" not in done.stdout:
            raise OSError(f"sacctmgr {' '.join(command)}: {done.stdout}{done.stderr}")


def _as_root() -> list[str]:
    """MariaDB runs as root only where that is asked for."""
    return ["--user=root"] if os.geteuid() == 0 else []
