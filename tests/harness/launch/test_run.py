"""What ``run_target`` does and returns, with stand-ins for the launcher: nothing is trained."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector.errors import UsageError, WeightsError
from harness.launch import prepare
from harness.launch import run as launching
from harness.launch.interrupts import interrupts_ignored, terminate_is_interrupt
from harness.launch.local import Failure, Slot
from harness.launch.run import Request, RunResult, run_target

pytestmark = pytest.mark.usefixtures("empty_folders")
ROW = Request(target="table2/L6", profile="tiny", seeds=2)
TABLE = Request(target="table3", profile="tiny")


class Launcher:
    """Stands in for ``run_local``; ``ends`` by the position of the run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[Any] = []
        self.ends: dict[int, str] = {}
        self.shown: dict[str, str] = {}
        monkeypatch.setattr(launching, "prepare_data", lambda source, root, say: None)
        monkeypatch.setattr(launching, "make_slots", lambda execution, runs: [Slot(())])
        monkeypatch.setattr(launching, "run_local", self.run)

    def run(self, jobs: list[Any], slots: list[Slot], view: object) -> list[Failure]:
        self.jobs = jobs
        return [
            Failure(jobs[position].train.id, "why", Path("log.txt"), stopped=how == "stopped")
            for position, how in self.ends.items()
        ]

    def show(self, names: dict[str, str]) -> Any:
        self.shown = names
        return nullcontext(SimpleNamespace())


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    return Launcher(monkeypatch)


def run(request: Request, launcher: Launcher) -> tuple[RunResult, list[str]]:
    said: list[str] = []
    return run_target(request, said.append, launcher.show), said


def test_what_is_missing_is_trained_and_named(launcher: Launcher) -> None:
    result, said = run(ROW, launcher)
    ids = [job.train.id for job in launcher.jobs]
    assert (result.trained, result.done, result.failed, result.left) == (tuple(ids), (), (), ())
    assert launcher.shown == dict(zip(ids, ["table2/L6, seed 0", "table2/L6, seed 1"], strict=True))
    assert said[0] == "table2/L6, profile tiny: 2 runs, 0 done, 2 to do."
    assert said[1].startswith("1 at a time, on the CPU; in ")
    assert repr(result) == "table2/L6, profile tiny: 2 runs, 2 trained"


def test_what_is_done_is_not_trained_again(launcher: Launcher, tmp_path: Path) -> None:
    first, _ = run(ROW, launcher)
    done = first.trained[0]
    record = first.plan.evaluations[done][0].id
    path = tmp_path / "runs" / done / "evals" / record / "record.json"
    path.parent.mkdir(parents=True)
    path.touch()
    result, _ = run(ROW, launcher)
    assert (result.done, result.trained) == ((done,), first.trained[1:])
    assert repr(result) == "table2/L6, profile tiny: 2 runs, 1 done before, 1 trained"


def test_failures_do_not_raise_and_are_told_in_words(launcher: Launcher) -> None:
    launcher.ends = {0: "failed", 2: "stopped"}
    result, _ = run(TABLE, launcher)
    ids = [job.train.id for job in launcher.jobs]
    assert [failure.train_id for failure in result.failed] == [ids[0]]
    assert [failure.train_id for failure in result.stopped] == [ids[2]]
    assert result.trained == (ids[1],)
    assert repr(result).splitlines() == [
        "table3, profile tiny: 3 runs, 1 trained, 1 failed, 1 stopped",
        "  failed: table3/all, seed 0: why; log: log.txt",
        "  stopped: table3/dr, seed 0: why",
    ]


def test_retry_failed_leaves_alone_what_was_never_started(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "failed_ids", lambda planned, store: {list(planned.trainings)[1]})
    result, said = run(Request(target="table3", profile="tiny", retry_failed=True), launcher)
    ids = tuple(result.plan.trainings)
    assert (result.trained, result.left) == ((ids[1],), (ids[0], ids[2]))
    assert "--retry-failed: 1 of them failed or were lost" in said[1]
    monkeypatch.setattr(launching, "failed_ids", lambda planned, store: set())
    launcher.jobs = []
    result, _ = run(Request(target="table3", profile="tiny", retry_failed=True), launcher)
    assert (result.trained, result.left, launcher.jobs) == ((), ids, [])


def test_an_interrupt_is_told_and_passes_on(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> list[Failure]:
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "run_local", interrupted)
    said: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_target(ROW, said.append, launcher.show)
    assert said[-1].startswith("Interrupted; finished runs and checkpoints are kept.")
    assert signal.getsignal(signal.SIGTERM) == before


def test_settings_that_are_not_the_papers_are_told(launcher: Launcher) -> None:
    _, said = run(Request(target="table2/L6", profile="tiny", batch_size=8, overrides=("optimizer.lr=0.1",)), launcher)
    assert said[:2] == [
        "With --batch-size 8 these runs are not the paper's and fill no table's cell.",
        "With --set (optimizer.lr=0.1) these runs are not the paper's and fill no table's cell.",
    ]
    assert any("overridden by --set" in note for note in launcher.jobs[0].notes)


def test_missing_weights_stop_a_profile_that_needs_them(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(trainings: object, given: object) -> None:
        raise WeightsError("no weights")

    monkeypatch.setattr(prepare, "find_weights", nowhere)
    monkeypatch.setattr(launching.Selection, "data_root", lambda self: Path("data"))
    monkeypatch.setattr("harness.planning.data.identify", lambda source, root: source)
    with pytest.raises(WeightsError, match="no weights"):
        run(Request(target="table2/L6", profile="paper"), launcher)
    result, said = run(Request(target="table2/L6", profile="smoke"), launcher)
    assert result.plan.from_scratch
    assert any("Going on from scratch" in text for text in said)
    with pytest.raises(WeightsError, match=r"w\.pth: there is no such file"):  # a file that was named must be used
        run(Request(target="table2/L6", profile="smoke", weights=Path("w.pth")), launcher)


def test_a_dry_run_without_a_cluster_is_refused(launcher: Launcher) -> None:
    with pytest.raises(UsageError, match="--dry-run shows what --cluster NAME would submit"):
        run(Request(target="table3", profile="tiny", dry_run=True), launcher)


def test_signals_are_left_as_they_are_in_another_thread() -> None:
    met: list[BaseException] = []

    def handle() -> None:
        try:
            with terminate_is_interrupt(), interrupts_ignored():
                pass
        except BaseException as error:
            met.append(error)

    thread = threading.Thread(target=handle)
    thread.start()
    thread.join()
    assert met == []
