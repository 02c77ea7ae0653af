"""A second user who shares the folders and may only read: what works, and one sentence for what does not."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli.refusals import refusal
from harness.launch import run as launching
from harness.launch.local import Failure, Slot
from harness.launch.run import Request, run_target
from harness.slurm.submissions import submissions_folder
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import invoke

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65534
ROW = ("table2/L6", "--profile", "tiny")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Root's runs folder, in a place that others can reach: one finished run, one that failed."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    experiments = write_experiments(place / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    monkeypatch.setenv("HARNESS_RUNS", str(place / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(place / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    for seed in (0, 1):
        job = micro_job(experiments, "table2/L6", seed)
        run = RunDir(place / "runs" / job.train.id)
        write_json(run.job, job.train)
        write_json(run.status, Status(phase="failed", time=1.0, pid=1, message="it broke"))
        run.log.write_text("a line\n")
        (run.root / ".lock").touch()
        if seed == 0:
            write_json(run.record(job.id), record_of(job))
    yield place / "runs"
    shutil.rmtree(place)


@contextmanager
def nobody() -> Iterator[None]:
    """As another user. What is imported only when it is needed must have been imported before."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that would be started."""
    started: list[str] = []

    def run_local(jobs: list, slots: object, view: object) -> list[Failure]:
        started.extend(job.train.id for job in jobs)
        return []

    monkeypatch.setattr(launching, "prepare_data", lambda source, root, say: None)
    monkeypatch.setattr(launching, "require_same_inputs", lambda *arguments: None)
    monkeypatch.setattr(launching, "make_slots", lambda execution, runs: [Slot(())])
    monkeypatch.setattr(launching, "run_local", run_local)
    return started


def run_three() -> launching.RunResult:
    return run_target(Request(target="table2/L6", profile="tiny", seeds=3), lambda text: None)


@pytest.mark.parametrize(
    "words",
    [
        ("status", *ROW, "--seeds", "2"),
        ("status", "--profile", "tiny"),
        ("logs", *ROW, "--seed", "1"),
        ("table", *ROW),
        ("plan", *ROW, "--seeds", "3"),
        ("list", "--runs"),
    ],
)
def test_who_may_only_read_sees_what_the_owner_sees(runs: Path, words: tuple[str, ...]) -> None:
    (runs / "submissions").mkdir()
    seen = invoke(*words)
    with nobody():
        assert invoke(*words).stdout == seen.stdout


def test_a_runs_folder_of_another_user_is_one_sentence(runs: Path, launched: list[str]) -> None:
    run_three()
    launched.clear()
    with nobody():
        with pytest.raises(PermissionError) as caught:
            run_three()
        text = refusal(caught.value)
    assert launched == []
    assert text == (
        f"{runs}: Permission denied. {runs} belongs to root (group root). Ask root for: chgrp -R GROUP {runs} "
        f"(a group that you share), then chmod -R g+rwX {runs}, or use a folder of your own: HARNESS_RUNS=DIR"
    )


@pytest.mark.parametrize("shared", ["folder", "lock"])
def test_a_run_of_another_user_fails_and_the_others_are_run(runs: Path, launched: list[str], shared: str) -> None:
    theirs = RunDir(runs / micro_job(runs.parent / "experiments", "table2/L6", 1).train.id)
    runs.chmod(0o777)
    if shared == "lock":
        for path in theirs.root.rglob("*"):
            path.chmod(0o777 if path.is_dir() else 0o666)
        theirs.root.chmod(0o777)
        (theirs.root / ".lock").chmod(0o644)
    run_three()
    launched.clear()
    with nobody():
        result = run_three()
    place = theirs.root if shared == "folder" else theirs.root / ".lock"
    (failure,) = result.failed
    assert failure.train_id == theirs.root.name
    assert failure.message.startswith(f"{place}: permission denied. {place} belongs to root (group root).")
    assert launched == list(result.trained)
    assert len(launched) == 1


def test_a_run_that_another_user_trains_now_is_watched(runs: Path, launched: list[str]) -> None:
    theirs = RunDir(runs / micro_job(runs.parent / "experiments", "table2/L6", 1).train.id)
    runs.chmod(0o777)
    run_three()
    launched.clear()
    with theirs.lock(), nobody():
        assert run_three().failed == ()
    assert theirs.root.name in launched


def test_fresh_moves_nothing_where_one_folder_is_another_users(runs: Path, launched: list[str]) -> None:
    runs.chmod(0o777)
    before = sorted(runs.iterdir())
    request = Request(target="table2/L6", profile="tiny", seeds=2, fresh=True)
    with nobody(), pytest.raises(PermissionError):
        run_target(request, lambda text: None)
    assert sorted(path for path in runs.iterdir() if path.name not in ("code", "launchers")) == before


def test_cancel_is_one_sentence(runs: Path) -> None:
    invoke("cancel", *ROW)
    shutil.rmtree(runs / "cancelled")
    with nobody():
        with pytest.raises(PermissionError) as caught:
            invoke("cancel", *ROW)
        assert f"{runs} belongs to root" in refusal(caught.value)


def test_a_folder_of_submissions_that_is_another_users_is_one_sentence(runs: Path) -> None:
    folder = submissions_folder(runs)
    folder.mkdir()
    runs.chmod(0o777)
    with nobody():
        with pytest.raises(PermissionError) as caught, open(folder / ".lock", "a"):
            pass
        text = refusal(caught.value)
    assert text.startswith(f"{folder / '.lock'}: Permission denied. {folder} belongs to root (group root). Ask root ")
    assert text.endswith("or use a folder of your own: HARNESS_RUNS=DIR")


def test_what_is_ones_own_is_told_as_such(runs: Path) -> None:
    os.chown(runs, NOBODY, NOBODY)
    runs.chmod(0o555)
    with nobody():
        with pytest.raises(PermissionError) as caught:
            (runs / "new").mkdir()
        assert refusal(caught.value).endswith(f"{runs} is yours: chmod -R u+rwX {runs}")


@pytest.mark.parametrize("hidden", ["folder", "record", "status", "log"])
def test_a_run_that_may_not_be_read_does_not_hide_the_others(runs: Path, hidden: str) -> None:
    job = micro_job(runs.parent / "experiments", "table2/L6", 0)
    run = RunDir(runs / job.train.id)
    path = {"folder": run.root, "record": run.record(job.id), "status": run.status, "log": run.log}[hidden]
    invoke("status", *ROW, "--seeds", "2")
    invoke("table", *ROW)
    path.chmod(0o700 if path.is_dir() else 0o600)
    with nobody():
        said = invoke("status", *ROW, "--seeds", "2").stdout
        assert "failed (unknown): it broke" in said
        assert (f"{run.root} may not be read. {run.root} belongs to root" in said) == (hidden == "folder")
        invoke("status", "--profile", "tiny")
        invoke("table", *ROW)
