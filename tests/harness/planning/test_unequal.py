"""Records with other inputs, or whose loss had other source code, are never averaged, and the table says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.provenance import FileDigest, ImagesDigest, Inputs
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.planning import unequal
from harness.planning.selection import Selection
from harness.planning.unequal import apart, choose
from harness.report.views import judge, table_views
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


def with_inputs(experiments: Path, seed: int, ap: float = 20.0, day: int = 1, **kinds: str) -> Record:
    """A record of format 2. kinds: of what its inputs differ from those of others (``weights="a"``), by their name."""
    found = replace(record(experiments, seed, None, day), format=2, metrics={"AP": ap, "positive_score": ap / 100})
    if "boxes" in kinds:
        found = replace(found, train_split=replace(found.train_split, sha256=kinds["boxes"] * 64))
    images = ImagesDigest(images=24, bytes=1000, names_and_sizes="0" * 64, content=kinds.get("pixels", "0") * 64)
    files = replace(images, content=None, names_and_sizes=kinds.get("files", "0") * 64)
    weights = FileDigest(name="R-50.pkl", sha256=kinds["weights"] * 64) if "weights" in kinds else None
    found = replace(found, inputs=Inputs(weights=weights, train_images=files, test_images=images))
    return replace(found, sha256=content_hash(found))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("weights", "weights (R-50.pkl): sha256"),
        ("boxes", "training annotations: sha256"),
        ("pixels", "test images: sha256"),
        ("files", "names and sizes differ"),
    ],
)
def test_records_with_other_inputs_are_left_out_of_their_row(
    experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str
) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    store = Store(tmp_path / "runs", tmp_path / "results")
    records = [
        with_inputs(experiments, 0, 10.0, **{kind: "a"}),
        with_inputs(experiments, 1, 21.0, **{kind: "b"}),
        with_inputs(experiments, 2, 22.0, **{kind: "b"}),
    ]
    for item in records:
        write_json(store.run_dir(item.train_id).record(item.eval_id), item)
    (view,) = table_views(Selection("table2/L6", "tiny", [], None))
    assert view.rows[0].seeds == (1, 2)
    assert view.rows[0].ours["AP"].mean == pytest.approx(21.5)
    (note,) = (note for note in view.footnotes if "left out, never averaged" in note)
    assert note.startswith("table2/L6: 1 of 3 records left out, never averaged with the others: seed 0 (")
    assert said in note


def test_of_equally_large_groups_the_newest_is_shown_and_what_is_unknown_fits_both(experiments: Path) -> None:
    old, new = (with_inputs(experiments, seed, seed, day, weights=w) for seed, day, w in ((0, 1, "a"), (1, 2, "b")))
    unknown = record(experiments, 2, None, 1)  # of format 1
    assert choose([old, new]).kept == (new,)
    chosen = choose([old, new, unknown])
    assert chosen.kept == (new, unknown)
    assert [item.record for item in chosen.left_out] == [old]
    assert choose([]).kept == ()


def test_a_copy_under_another_seed_counts_once(experiments: Path) -> None:
    first, copied = with_inputs(experiments, 0, 20.0), with_inputs(experiments, 1, 20.0)
    chosen = choose([first, copied])
    assert chosen.kept == (first,)
    assert [item.why for item in chosen.left_out] == [
        ("all its metrics are those of seed 0, to the last digit: one is a copy of the other",)
    ]


def test_rows_with_other_inputs_than_most_are_apart_and_judge_no_claim(
    experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    store = Store(tmp_path / "runs", tmp_path / "results")
    found = {}
    for place, (ref, kind) in enumerate({"table3/all": "a", "table3/dr": "b", "table2/L4": "b"}.items()):
        base = with_inputs(experiments, 0, 20.0 + place, pixels=kind)
        job = micro_job(experiments, ref)
        found[ref] = replace(base, job=job, eval_id=job.id, train_id=job.train.id, sha256=None)
        found[ref] = replace(found[ref], sha256=content_hash(found[ref]))
        write_json(store.run_dir(job.train.id).record(job.id), found[ref])
    different = apart({ref: [item] for ref, item in found.items()})
    assert list(different) == ["table3/all"]
    assert different["table3/all"] == ("test images: sha256 aaaaaaaa and bbbbbbbb",)
    view = judge(Selection("table3", "tiny", [], None))
    assert any(note.startswith("table3/all: not comparable with most other rows") for note in view.notes)
    assert view.paper is not None
    measured = {row for claim in view.paper.claims for pair in claim.measured for row in (pair.a, pair.b)}
    assert "table3/all" not in measured
    notes = [note for view in table_views(Selection("table3", "tiny", [], None)) for note in view.footnotes]
    assert any(note.startswith("table3/all: not comparable") for note in notes)
    other = judge(Selection("table2/L4", "tiny", [], None))
    assert any(note.startswith("No claim is judged by table3/all") for note in other.notes)
