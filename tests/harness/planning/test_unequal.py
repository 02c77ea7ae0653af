"""Records whose loss had other source code are never averaged, and the table says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.record import Record
from detector.storage.files import write_json
from harness.planning import unequal
from harness.planning.unequal import choose
from harness.planning.selection import Selection
from harness.report.views import table_views
from harness.store.records import Store
from support.micro import micro_job, write_experiments
from support.records import record_of


def record(experiments: Path, seed: int, source: str | None, day: int) -> Record:
    found = record_of(micro_job(experiments, seed=seed))
    code = replace(found.code, loss_sha256=source)
    return replace(found, code=code, finished=f"2026-01-{day:02}T00:00:00+00:00", metrics={"AP": 10.0 * (seed + 1)})


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("registry") / "experiments")


def test_records_of_the_installed_source_are_kept_else_of_the_newest(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = [record(experiments, seed, None, 1) for seed in (0, 1)]
    assert list(choose(built_in).kept) == built_in
    old, new = record(experiments, 0, "a" * 64, 1), record(experiments, 1, "b" * 64, 2)
    assert list(choose([old, new]).kept) == [new]
    monkeypatch.setattr(unequal, "source_sha256", lambda config: "a" * 64)
    assert list(choose([old, new]).kept) == [old]


def test_a_table_leaves_out_records_of_another_source_and_says_so(
    experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    store = Store(tmp_path / "runs", tmp_path / "results")
    for item in (record(experiments, 0, "a" * 64, 1), record(experiments, 1, "b" * 64, 2)):
        write_json(store.run_dir(item.train_id).record(item.eval_id), item)
    (view,) = table_views(Selection("table2/L6", "tiny", [], None))
    (row,) = view.rows
    assert row.seeds == (1,)
    assert row.ours["AP"].mean == 20.0
    (note,) = (note for note in view.footnotes if "left out" in note and "records" in note)
    assert note.startswith("table2/L6: 1 of 2 records left out")
    assert "bbbbbbbbbbbb" in note
