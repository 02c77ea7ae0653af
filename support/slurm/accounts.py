"""Slurm's accounts: a MariaDB in the cluster's folder, slurmdbd before it, and who may submit how much."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from support.slurm.errors import SlurmDidNotStart
from support.slurm.plan import DATABASE_USER, ClusterPlan, Ports

ACCOUNT = "lab"
# A small one, whose tables lie in files that are not synced: it lives as long as the tests.
DATABASE_OPTIONS = (
    *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M", "--innodb-lock-wait-timeout=900"),
    *("--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--innodb-flush-method=nosync"),
)


def make_database(folder: Path) -> None:
    """An empty one, in which slurmdbd may make its tables. Raises SlurmDidNotStart."""
    (folder / "database-tmp").mkdir()
    command = ["mariadb-install-db", "--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]
    made = subprocess.run([*command, *_folders(folder), *_as_root()], check=False, capture_output=True, text=True)
    if made.returncode:
        raise SlurmDidNotStart(f"Slurm did not start: {command[0]} ended with code {made.returncode}\n{made.stdout}")
    # One statement a line.
    (folder / "users.sql").write_text(
        f"CREATE USER '{DATABASE_USER}'@'%' IDENTIFIED BY 'slurm';\nGRANT ALL ON *.* TO '{DATABASE_USER}'@'%';\n"
    )


def _folders(folder: Path) -> list[str]:
    """A server that starts removes the temporary tables of every server that shares its folder for them."""
    return [f"--datadir={folder}/database", f"--tmpdir={folder}/database-tmp"]


def accounts_commands(
    folder: Path, ports: Ports, environment: Mapping[str, str]
) -> list[tuple[list[str], Callable[[], bool]]]:
    """The two daemons in the order of their start, each with the question whether it answers."""
    database = ["mariadbd", "--no-defaults", *_folders(folder), f"--socket={folder}/database.sock"]
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
