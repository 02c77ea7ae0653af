"""What tables and verdicts say of the records behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.findings import Health
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.planning.selection import Selection
from harness.report.formats import render_check, render_tables
from harness.report.views import judge, table_views
from harness.store.records import Store
from support.micro import micro_job, write_experiments
from support.records import record_of

ROW = "table2/L6"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("registry") / "experiments")


@pytest.fixture
def store(experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    return Store(tmp_path / "runs", tmp_path / "results")


def made(experiments: Path, seed: int, ap: float, ref: str = ROW, **fields: object) -> Record:
    found = replace(record_of(micro_job(experiments, ref, seed)), metrics={"AP": ap, "positive_score": ap / 100})
    found = replace(found, **fields)
    return replace(found, sha256=content_hash(found)) if found.format == 2 else found


def put(store: Store, *records: Record) -> None:
    for item in records:
        write_json(store.run_dir(item.train_id).record(item.eval_id), item)


def notes(target: str = ROW) -> list[str]:
    (view,) = table_views(Selection(target, "tiny", [], None))
    return list(view.footnotes)


def test_the_local_result_fills_the_cell_and_a_footnote_gives_the_committed_one(
    experiments: Path, store: Store
) -> None:
    put(store, made(experiments, 0, 20.0))
    committed = made(experiments, 0, 22.0)
    write_json(store.committed(committed), committed)
    shown = {}
    for source in (None, "local", "committed"):
        (view,) = table_views(Selection(ROW, "tiny", [], None, source=source))
        shown[source] = (view.rows[0].ours["AP"].mean, len(view.rows[0].seeds))
    assert shown == {None: (20.0, 1), "local": (20.0, 1), "committed": (22.0, 1)}
    (note,) = (note for note in notes() if "committed record" in note)
    assert note.startswith(f"{ROW}: seed 0 has AP 20.00 here, 22.00 in the committed record. The local result is shown")


def test_a_broken_record_is_named_and_the_rest_is_shown(experiments: Path, store: Store) -> None:
    put(store, made(experiments, 0, 20.0), made(experiments, 1, 30.0, format=2))
    path = store.run_dir(micro_job(experiments, ROW, 1).train.id).record(micro_job(experiments, ROW, 1).id)
    path.write_text(path.read_text().replace("30.0", "37.4"))
    (view,) = table_views(Selection(ROW, "tiny", [], None))
    assert view.rows[0].seeds == (0,)
    (note,) = (note for note in view.footnotes if note.startswith("Set aside"))
    assert path.name in note
    assert "edited after it was written" in note
    verdicts = judge(Selection(ROW, "tiny", [], None))
    for fmt in ("text", "md", "html", "json"):
        assert "edited after" in " ".join(render_check(verdicts, fmt).split())


def test_health_of_a_shown_record_is_a_footnote(experiments: Path, store: Store) -> None:
    put(store, made(experiments, 0, 0.0, format=2, health=(Health(name="no learning", message="2.033 of 2.032"),)))
    assert f"{ROW}, seed 0: no learning: 2.033 of 2.032" in notes()
    assert "no learning: 2.033" in render_tables(table_views(Selection(ROW, "tiny", [], None)), "text")


def test_what_format_one_lacks_is_said_by_check_and_where_both_formats_meet(experiments: Path, store: Store) -> None:
    put(store, made(experiments, 0, 20.0))
    assert not any("format 1" in note for note in notes())
    text = render_check(judge(Selection(ROW, "tiny", [], None)), "text")
    assert "- 1 record of format 1: content of weights and images" in text
    put(store, made(experiments, 1, 21.0, format=2))
    assert any(note.startswith(f"{ROW}: 1 of 2 records are of format 1") for note in notes())


def test_copies_in_two_rows_are_said(experiments: Path, store: Store) -> None:
    put(store, made(experiments, 0, 20.0, ROW), made(experiments, 0, 20.0, "table2/L8"))
    (note,) = (note for note in notes("table2") if note.startswith("The same metrics"))
    assert "L6 seed 0" in note or "table3/dr seed 0" in note or "table1/hp-e_hn-3.5 seed 0" in note
    assert "table2/L8 seed 0" in note
    assert not any(note.startswith("The same metrics") for note in notes("table2/focal"))
