"""``harness show``, ``list --runs``, ``table --set`` and ``--source``: from a number to its evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.code import Code
from detector.runs.findings import Health
from detector.runs.provenance import FileDigest, ImagesDigest, Inputs, Start
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.launch.results import result_lines
from harness.launch.run import RunResult
from harness.planning.selection import Selection
from harness.store.records import Store
from harness.store.replaced import replace_run
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import error, invoke

ROW = "table2/L6"
SET = ("--set", "optimizer.lr=0.005")


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("registry") / "experiments")


@pytest.fixture
def store(experiments: Path, empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Seed 0 of a row in format 1, seed 1 in format 2, and one run with ``--set``."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    store = Store(tmp_path / "runs", tmp_path / "results")
    put(store, replace(record_of(micro_job(experiments)), metrics={"AP": 20.0, "AP50": 40.0}))
    put(store, full(experiments))
    selection = Selection(ROW, "tiny", [SET[1]], None)
    plan = selection.plan(1)
    changed = record_of(plan.cells[0].job)
    put(store, replace(changed, metrics={"AP": 12.0, "AP50": 24.0}, notes=selection.notes(plan)))
    return store


def full(experiments: Path) -> Record:
    code = Code(version="0", commit="c" * 40, modified=True, diff_sha256="d" * 64)
    first = Start(
        time="2026-11-01T00:00:00+00:00",
        code=code,
        environment={"torch": "9.9", "device": "cuda (H100)"},
        processes=2,
        threads=4,
        precision="fp32",
        groups_per_forward=2,
    )
    images = ImagesDigest(images=24, bytes=1000, names_and_sizes="1" * 64, content="2" * 64)
    record = replace(
        record_of(micro_job(experiments, seed=1)),
        format=2,
        metrics={"AP": 22.0, "AP50": 44.0},
        starts=(first, replace(first, time="2026-11-02T00:00:00+00:00", iteration=4)),
        evaluation=replace(first, environment={"device": "cpu (x86_64)"}),
        inputs=Inputs(train_images=images, test_images=images, weights=FileDigest(name="R-50.pkl", sha256="e" * 64)),
        health=(Health(name="no detections", message="0 boxes"),),
    )
    return replace(record, sha256=content_hash(record))


def put(store: Store, record: Record) -> None:
    write_json(store.run_dir(record.train_id).job, record.job.train)
    write_json(store.run_dir(record.train_id).record(record.eval_id), record)


def test_show_leads_from_a_cell_to_all_that_it_rests_on(store: Store) -> None:
    text = invoke("show", ROW, "--profile", "tiny").stdout
    assert max(map(len, text.splitlines())) <= 80 + len(str(store.runs))  # paths are not broken
    said = " ".join(text.split())
    assert "table2/L6, profile tiny, the profile's test images: AP 21.00 ±1.41, n 2" in said
    old, new = said.split("seed 1 AP 22.00 (local)")
    for part in ("seed 0 AP 20.00 (local)", "starts unknown", "health unknown", "content of the images unknown"):
        assert part in old
    for part in (
        *("start 1 2026-11-01", "start 2 2026-11-02T00:00:00+00:00, from iteration 4 on", "commit cccccccccccc"),
        *("(modified), changes dddddddddddd", "2 processes of 4 threads", "device cuda (H100), torch 9.9"),
        *("evaluated 2026-11-01", "device cpu (x86_64)", "content sha256 222222222222", "no detections: 0 boxes"),
        "make again harness run table2/L6 --profile tiny --seeds 2",
        "1 record of format 1: content of weights and images",
    ):
        assert part in new
    assert "AP50 44.00" in invoke("show", ROW, "--profile", "tiny", "--metric", "AP50").stdout
    assert "Unknown metric 'APX'. These records have: AP, AP50." in error(
        "show", ROW, "--profile", "tiny", "--metric", "APX"
    )
    assert "table2/L8, profile tiny: no finished run" in " ".join(
        invoke("show", "table2/L8", "--profile", "tiny").stdout.replace(", the profile's test images", "").split()
    )


def test_show_as_json_has_every_field_of_every_record(store: Store, experiments: Path) -> None:
    found = json.loads(invoke("show", ROW, "--profile", "tiny", "--json").stdout)
    (row,) = found["rows"]
    assert (row["mean"], [line["seed"] for line in row["records"]]) == (21.0, [0, 1])
    old, new = row["records"]
    assert (old["starts"], old["health"], old["train_images"], old["test_images"]) == ("unknown",) * 4
    assert new["weights"] == "random"  # the job's own; the file is for jobs that begin with one
    assert [start["iteration"] for start in new["starts"] if "iteration" in start] == [4]
    assert new["training"] == micro_job(experiments, seed=1).train.id


def test_numbers_of_set_are_tabled_shown_and_listed_but_never_in_the_papers_rows(store: Store) -> None:
    def means(*words: str) -> dict[str, float]:
        (view,) = json.loads(invoke("table", ROW, "--profile", "tiny", "--json", *words).stdout)
        return {row["ref"]: (row["ours"]["AP"]["mean"], row["n"]) for row in view["rows"]}

    assert means() == {ROW: (21.0, 2)}
    assert means(*SET) == {ROW: (12.0, 1)}
    text = " ".join(invoke("table", ROW, "--profile", "tiny", *SET).stdout.split())
    assert "With --set optimizer.lr=0.005 these runs are not the paper's: no verdict counts them." in text
    assert "harness run table2/L6 --profile tiny --set optimizer.lr=0.05" in " ".join(
        invoke("table", ROW, "--profile", "tiny", "--set", "optimizer.lr=0.05").stdout.split()
    )
    assert "AP 12.00" in invoke("show", ROW, "--profile", "tiny", *SET).stdout
    lines = json.loads(invoke("list", "--runs", "--json").stdout)["runs"]
    assert [(line["seed"], line["AP"], ROW in line["rows"]) for line in lines] == [
        (0, 20.0, True),
        (1, 22.0, True),
        (0, 12.0, False),
    ]
    listed = invoke("list", "--runs", "--profile", "tiny").stdout
    assert "--set optimizer.lr=0.005" in listed
    shown = " ".join(invoke("show", lines[2]["eval_id"][:8]).stdout.split())
    assert "fills no row of any table" in shown
    again = "harness run table2/L6 --profile tiny --seeds 1 --set optimizer.lr=0.005"
    same = ("table1/hp-e_hn-3.5", "table2/L6", "table3/dr")  # one training fills all of them
    assert any(again.replace(ROW, row) in shown for row in same)
    assert "goes with --runs" in error("list", "--profile", "tiny")


def test_source_chooses_between_the_folders(store: Store, experiments: Path) -> None:
    committed = replace(record_of(micro_job(experiments)), metrics={"AP": 30.0})
    write_json(store.committed(committed), committed)

    def value(*words: str) -> float:
        (view,) = json.loads(invoke("table", ROW, "--profile", "tiny", "--json", *words).stdout)
        return float(view["rows"][0]["ours"]["AP"]["mean"])

    assert (value(), value("--source", "local"), value("--source", "committed")) == (21.0, 21.0, 30.0)
    assert "seed 0 AP 20.00 (local; committed: 30.00)" in " ".join(
        invoke("show", ROW, "--profile", "tiny").stdout.split()
    )
    verdicts = json.loads(invoke("check", ROW, "--profile", "tiny", "--source", "committed", "--json").stdout)
    assert not any("committed record" in note for note in verdicts["notes"])


def test_what_was_replaced_is_listed_and_never_counted(store: Store, experiments: Path) -> None:
    kept = replace_run(store.run_dir(micro_job(experiments).train.id))
    found = json.loads(invoke("list", "--runs", "--json").stdout)
    assert found["replaced"] == [str(kept)]
    assert [line["AP"] for line in found["runs"]] == [22.0, 12.0]
    assert kept.name in invoke("list", "--runs").stdout
    assert "replaced by --fresh, never counted: 1" in invoke("status", "--profile", "tiny").stdout


def test_a_run_ends_with_its_numbers(store: Store, experiments: Path) -> None:
    plan = Selection(ROW, "tiny", [], None).plan(2)
    ids = tuple(plan.trainings)
    result = RunResult(target=ROW, plan=plan, runs=store.runs, data_root=store.runs, done=ids[:1], trained=ids[1:])
    unwell = f"AP 22.0; not healthy (no detections): harness show {micro_job(experiments, seed=1).id}"
    assert result_lines(result) == [f"table2/L6, seed 1: {unwell}"]
    assert result_lines(replace_done(result, ids)) == [
        "table2/L6, seed 0: AP 20.0 (done before)",
        f"table2/L6, seed 1: {unwell} (done before)",
    ]


def replace_done(result: RunResult, ids: tuple[str, ...]) -> RunResult:
    return RunResult(target=ROW, plan=result.plan, runs=result.runs, data_root=result.data_root, done=ids)
