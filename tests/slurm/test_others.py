"""A runs folder that several people and several Slurms share: what one cannot see is not gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.slurm.submissions import read_submissions
from support.slurm.plan import ClusterPlan
from support.workplace import WAIT_SECONDS, Workplace, make_workplace
from tests.slurm.conftest import StartSlurm
from tests.slurm.jobs import ROW, cluster_text, runs_of, squeue

pytestmark = pytest.mark.slurm


@dataclass(frozen=True)
class OtherUser(Workplace):
    """Commands of another user of the same group, who may read what root may read, and write what the group may."""

    user: str

    def said_by(self, *command: str, code: int | None = 0) -> str:
        """Run a command of this user to its end. code: that it must exit with; None for any."""
        become = ["setpriv", f"--reuid={self.user}", "--regid=nogroup", "--clear-groups"]
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        home = self.root / self.user
        environment = {**self.environment, "HOME": str(home), "TMPDIR": str(home), "USER": self.user}
        done = subprocess.run(
            [*become, *command],
            env={**environment, "LOGNAME": self.user},
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
            umask=0o002,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def harness(self, *arguments: str, code: int | None = 0) -> str:  # type: ignore[override]
        """The project's command."""
        return self.said_by(sys.executable, "-m", "harness.cli", *arguments, code=code)


def shared_folder(root: Path) -> dict[str, OtherUser]:
    """A workplace that two users of one group may write to."""
    make_workplace(root, iterations=8)
    people = {user: OtherUser(root, user) for user in ("nobody", "daemon")}
    for user in people:
        (root / user).mkdir()
        subprocess.run(["chown", f"{user}:nogroup", str(root / user)], check=True)
    subprocess.run(["chgrp", "-R", "nogroup", str(root / "runs")], check=True)
    subprocess.run(["chmod", "-R", "g+rwX", str(root / "runs")], check=True)
    for folder in [root / "runs", *(path for path in (root / "runs").rglob("*") if path.is_dir())]:
        folder.chmod(0o2775)
    return people


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter; those of pytest are the user's alone."""
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run commands of other users")
def test_jobs_of_another_user_that_are_not_shown_are_neither_gone_nor_submitted_again(
    open_folder: Path, start_slurm: StartSlurm
) -> None:
    start_slurm(ClusterPlan(name="private", settings={"PrivateData": "jobs"}))
    people = shared_folder(open_folder)
    given = open_folder / "holding.yaml"
    given.write_text(cluster_text("holding", extra="{hold: true}"))
    command = (*ROW, "--seeds", "2", "--cluster", str(given))
    people["nobody"].harness(*command)
    assert len(squeue("-r")) == 2
    assert people["daemon"].said_by("squeue", "-h") == ""
    said = people["daemon"].harness(*command)
    assert "Nothing was submitted." in said, said
    assert "nobody" in said
    said = people["daemon"].harness("status", *ROW[1:], "--seeds", "2")
    assert "nobody" in said, said
    assert "not started" not in said
    people["daemon"].harness("cancel", *ROW[1:], code=None)
    assert len(squeue("-r", "-t", "PENDING")) == 2
    assert [item.state for item in read_submissions(runs_of(people["nobody"]))] == ["submitted"]
    assert "held" in people["nobody"].harness("status", *ROW[1:], "--seeds", "2")
    assert "Nothing was submitted." in people["nobody"].harness(*command)


def test_runs_are_spread_over_two_clusters_and_the_jobs_of_one_are_not_gone_where_it_is_not_reached(
    tmp_path: Path, start_slurm: StartSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = start_slurm(ClusterPlan(name="second", nodes=("m1", "m2")))["SLURM_CONF"]
    first = start_slurm(ClusterPlan(name="first"))["SLURM_CONF"]
    place = make_workplace(tmp_path, iterations=8)
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    files[0].write_text(cluster_text("a", extra="{hold: true}"))
    files[1].write_text(cluster_text("b", extra="{hold: true}", slurm_conf=second))
    command = (*ROW, "--seeds", "4", "--cluster", ",".join(map(str, files)))
    said = place.harness(*command)
    queued = {conf: squeue_of(conf) for conf in (first, second)}
    assert [len(lines) for lines in queued.values()] == [2, 2], said
    assert {item.slurm for item in read_submissions(runs_of(place))} == {"first", "second"}
    assert "Nothing was submitted." in place.harness(*command)
    assert place.harness("status", *ROW[1:], "--seeds", "4").count("held") >= 4

    with monkeypatch.context() as elsewhere:  # on a machine of the second, where the first is not known
        elsewhere.setenv("SLURM_CONF", second)
        said = place.harness(*ROW, "--seeds", "4", "--cluster", str(files[0]))
        assert "Nothing was submitted." in said, said
        said = place.harness("status", *ROW[1:], "--seeds", "4")
        assert "not started" not in said, said
        assert "first" in said
    assert {item.state for item in read_submissions(runs_of(place))} == {"submitted"}
    assert {conf: squeue_of(conf) for conf in (first, second)} == queued

    place.harness("cancel", *ROW[1:])
    assert squeue_of(first) + squeue_of(second) == []


def squeue_of(conf: str) -> list[str]:
    """The jobs that wait or run on the Slurm with this configuration."""
    command = ["squeue", "-h", "-r", "-t", "PENDING,RUNNING", "-o", "%i"]
    return subprocess.check_output(command, env={**os.environ, "SLURM_CONF": conf}, text=True).split()
