"""What ``run_target`` submits with a cluster, with stand-ins for submitting and staying."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detector.errors import UsageError
from detector.runs.folder import RunDir
from harness.launch import run as launching
from harness.launch.local import Failure
from harness.launch.run import Request, RunResult, run_target
from harness.slurm.arrays import Work
from harness.slurm.clusters import Cluster
from harness.slurm.submissions import Options
from harness.slurm.submit import Outcome
from harness.store.cancelled import cancellation, note_cancelled_run

pytestmark = pytest.mark.usefixtures("empty_folders")
FILE = "name: {name}\ntitle: a test\ntime_minutes: 60\n"


class Slurm:
    """Stands in for ``submit`` and ``stay``."""

    def __init__(self) -> None:
        self.work: Work | None = None
        self.clusters: list[str] = []
        self.failures: list[Failure] = []
        self.stayed: list[Outcome] = []

    def submit(self, work: Work, clusters: Sequence[Cluster]) -> Outcome:
        self.work, self.clusters = work, [cluster.name for cluster in clusters]
        return Outcome((), {}, ())

    def stay(self, work: Work, clusters: Sequence[Cluster], first: Outcome, *arguments: Any, **more: Any) -> list[Any]:
        self.stayed.append(first)
        return self.failures


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    found = Slurm()
    monkeypatch.setattr(launching, "prepare_data", lambda source, root, say: None)
    monkeypatch.setattr(launching, "submit", found.submit)
    monkeypatch.setattr(launching, "stay", found.stay)
    return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cluster files in the working folder."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(FILE.format(name=name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(**options: Any) -> Request:
    return Request(**{"target": "table2/L6", "profile": "tiny", **options})


def run(wanted: Request) -> RunResult:
    return run_target(wanted, lambda text: None)


def test_the_options_of_the_command_go_along_and_hold_in_every_folder(slurm: Slurm, files: Path) -> None:
    result = run(request(seeds=2, overrides=("optimizer.lr=0.005",), batch_size=4, cluster="a.yaml,b.yaml"))
    assert slurm.work is not None
    assert slurm.work.options == Options(
        profile="tiny", cluster=f"{files}/a.yaml,{files}/b.yaml", overrides=("optimizer.lr=0.005",), batch_size=4
    )
    assert slurm.clusters == ["a", "b"]
    assert [item.train.seed for item in slurm.work.assignments] == [0, 1]
    assert set(slurm.work.refs.values()) == {("table2/L6",)}
    assert result.submission is not None
    assert (result.trained, result.failed, result.stopped) == ((), (), ())
    assert slurm.stayed == []


def test_a_cluster_of_a_name_stays_a_name(slurm: Slurm) -> None:
    run(request(cluster="example"))
    assert slurm.work is not None
    assert slurm.work.options.cluster == "example"


def test_with_stay_the_result_is_that_of_the_runs(slurm: Slurm, files: Path) -> None:
    wanted = request(seeds=2, cluster="a.yaml")
    run(wanted)
    assert slurm.work is not None
    first, second = (item.train.id for item in slurm.work.assignments)
    slurm.failures = [Failure(second, "it was cancelled", files / "log.txt", stopped=True)]
    result = run(request(seeds=2, cluster="a.yaml", stay=True))
    assert len(slurm.stayed) == 1
    assert result.trained == (first,)
    assert [item.train_id for item in result.stopped] == [second]


def test_what_was_cancelled_before_is_so_no_more_once_it_is_asked_for(slurm: Slurm, files: Path) -> None:
    run(request(cluster="a.yaml"))
    assert slurm.work is not None
    (item,) = slurm.work.assignments
    folder = RunDir(files / "runs" / item.train.id)
    note_cancelled_run(folder)
    assert cancellation(folder) is not None
    run(request(cluster="a.yaml"))
    assert cancellation(folder) is None


@pytest.mark.parametrize("options", [{"stay": True}, {"stay": True, "cluster": "example", "dry_run": True}])
def test_stay_goes_with_a_cluster_and_with_no_dry_run(slurm: Slurm, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--stay goes with --cluster NAME, and not with --dry-run"):
        run(request(**options))
