"""``harness.plan``, ``curves`` and ``run`` without training: what they ask for, read and refuse."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import harness
from detector.errors import UsageError
from detector.runs.folder import RunDir
from harness.api import runs as api
from harness.launch.run import Request
from harness.planning.selection import Selection

pytestmark = pytest.mark.usefixtures("empty_folders")


def write_run(runs: Path, ref: str, seed: int, losses: list[float]) -> str:
    """A run folder as a training leaves it, as far as curves read it."""
    train = Selection(ref, "tiny", [], None).plan(seed + 1).cells[seed].job.train
    run = RunDir(runs / train.id)
    run.root.mkdir(parents=True)
    run.job.write_bytes(msgspec.json.encode(train))
    points = [{"iteration": 10 * (i + 1), "loss": loss, "lr": 0.1} for i, loss in enumerate(losses)]
    run.metrics.write_text("".join(f"{msgspec.json.encode(point).decode()}\n" for point in points))
    return train.id


def test_plan_has_each_training_once_with_its_rows() -> None:
    frame = harness.plan(["table1", "table2", "table3"], profile="tiny", seeds=3)
    assert frame["id"].is_unique
    assert len(frame) == 15 * 3
    shared = frame[frame["rows"].map(lambda rows: "table2/L6" in rows)]
    assert shared["rows"].iloc[0] == ("table1/hp-e_hn-3.5", "table2/L6", "table3/dr")
    assert shared["seed"].tolist() == [0, 1, 2]
    assert (frame["iterations"] == 400).all()
    assert not frame["done"].any()
    assert frame.attrs["identity_is_open"] is False


def test_plan_takes_overrides_as_a_mapping_or_as_the_command_does() -> None:
    by_name = harness.plan("table2/L6", profile="tiny", overrides={"optimizer.lr": 0.05, "test.short_sides": [96]})
    as_text = harness.plan("table2/L6", profile="tiny", overrides=["optimizer.lr=0.05", "test.short_sides=[96]"])
    assert by_name.equals(as_text)
    assert by_name["lr"].tolist() == [0.05]
    assert harness.plan("table2/L6", profile="tiny", batch_size=8)["images"].tolist() == [8]
    with pytest.raises(UsageError, match="overrides takes a mapping or a list of PATH=VALUE"):
        harness.plan("table2/L6", profile="tiny", overrides="optimizer.lr=0.05")


def test_curves_have_one_line_per_row_seed_and_iteration(tmp_path: Path) -> None:
    ids = [write_run(tmp_path / "runs", "table2/L6", seed, [2.0 - seed, 1.0]) for seed in (0, 1)]
    frame = harness.curves("table2/L6", profile="tiny")
    assert frame["train_id"].tolist() == [ids[0], ids[0], ids[1], ids[1]]
    assert frame["iteration"].tolist() == [10, 20, 10, 20]
    assert frame["loss"].tolist() == [2.0, 1.0, 1.0, 1.0]
    assert str(frame["iteration"].dtype) == "int64"
    assert harness.curves("table2/L6", profile="tiny", seeds=1)["seed"].tolist() == [0, 0]
    # The same training serves a row of each table.
    assert set(harness.curves(["table2", "table3"], profile="tiny")["row"]) == {"table2/L6", "table3/dr"}


def test_curves_say_which_run_is_not_here_and_how_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No curve of table2/focal, seed 0, profile tiny: it has no run in .*/runs"):
        harness.curves("table2", profile="tiny")
    write_run(tmp_path / "runs", "table2/L6", 0, [1.0])
    with pytest.raises(UsageError, match=r"Train it: harness run table2/L6 --profile tiny --seeds 2"):
        harness.curves("table2/L6", profile="tiny", seeds=2)


def test_run_asks_for_what_the_command_would(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked: list[Request] = []

    def record(request: Request, say: object) -> str:
        asked.append(request)
        say("heard")  # type: ignore[operator]
        return "result"

    monkeypatch.setattr(api, "run_target", record)
    options = {"seeds": 2, "batch_size": 8, "data": "/data", "weights": "w.pth", "retry_failed": True, "cluster": "big"}
    assert harness.run("table2", profile="tiny", overrides={"optimizer.lr": 0.1}, dry_run=True, **options) == "result"
    assert asked == [
        Request(
            target="table2",
            profile="tiny",
            seeds=2,
            batch_size=8,
            overrides=("optimizer.lr=0.1",),
            data=Path("/data"),
            weights=Path("w.pth"),
            retry_failed=True,
            cluster="big",
            dry_run=True,
        )
    ]
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "heard\n")


def test_run_raises_what_the_command_prints() -> None:
    with pytest.raises(UsageError, match="Unknown row 'L7'"):
        harness.run("table2/L7", profile="tiny")
    with pytest.raises(UsageError, match="--dry-run shows what --cluster NAME would submit"):
        harness.run("table2/L6", profile="tiny", dry_run=True)
