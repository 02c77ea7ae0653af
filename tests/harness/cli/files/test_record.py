"""Back from the evaluation server, through the command: an answer, the record of it, the filled cell."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import UsageError
from detector.evaluation.test_dev.package import EXPORT_FILE, Export, Sent, find_exports, write_export
from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder
from detector.runs.record import SplitFingerprint
from harness.planning.selection import Selection
from support.micro import micro_job
from support.workplace import Workplace
from tests.answers import NUMBERS, PERCENT, TEST_DEV, scores_text, summary_text
from tests.command import invoke
from tests.exports import ROW, answer, copy_of, data_root, job, refused, row_of_table, run


@pytest.fixture
def place(trained_row: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    with copy_of(trained_row, tmp_path, monkeypatch) as place:
        yield place


def test_export_and_record_fill_the_cell(place: Workplace) -> None:
    assert row_of_table(place)["status"] == "awaiting server"
    text = run("export", ROW)
    assert f"harness record {ROW} --profile tiny --split {TEST_DEV} --from-server FILE" in text
    shutil.rmtree(data_root(place))  # the answer needs no data
    text = run("record", ROW, *answer(place, summary_text()))
    assert "41.700" in text
    row = row_of_table(place)
    assert (row["status"], row["n"]) == ("measured", 1)
    assert {name: mean["mean"] for name, mean in row["ours"].items()} == dict(list(PERCENT.items())[:6])
    assert row["verdicts"]["AP"]["difference"] == 0
    printed = run("table", ROW)
    assert "awaiting server" not in printed
    assert "41.7" in printed
    assert "consistent" in run("check", "table4")
    assert "2 new records" in run("collect")  # minival's and the server's
    assert row_of_table(place)["status"] == "measured"


def test_record_holds_the_answer_and_what_was_sent(place: Workplace) -> None:
    run("export", ROW)
    run("record", ROW, *answer(place, scores_text((*NUMBERS[:3], -1, *NUMBERS[4:]))))
    folder, wanted = place.run_dir(ROW), job(place)
    record = folder.read_record(wanted.id)
    assert record is not None
    assert (record.job, record.eval_id, record.train_id) == (wanted, wanted.id, wanted.train.id)
    assert record.metrics == PERCENT | {"APS": None}
    assert record.notes[-1] == "numbers of the evaluation server, as printed (3 decimals)"
    own = folder.read_record(micro_job(place.root / "experiments", ROW).id)
    assert own is not None
    assert (record.train_split, record.train_seconds) == (own.train_split, own.train_seconds)
    assert record.test_split.boxes == 0
    assert record.profile == "tiny"
    # A cell of that size stays empty, and nothing else stumbles over it, nor over scores that are not there.
    row = row_of_table(place)
    assert "APS" not in row["ours"]
    assert run("table", "all").count("41.7") >= 2
    run("check", "all")


def test_record_finds_the_one_export_that_awaits_an_answer(place: Workplace) -> None:
    run("export", ROW)
    assert "The answer to table4-dr-r101-" in run("record", *answer(place, summary_text()))
    message = refused(place, "record", *answer(place, summary_text()))
    assert "0 exports to test-dev2017 in" in message
    assert "name the row, such as table4/dr-r101" in message


def test_record_again_keeps_the_first(place: Workplace) -> None:
    run("export", ROW)
    run("record", ROW, *answer(place, summary_text()))
    path = place.run_dir(ROW).record(job(place).id)
    before = path.read_bytes()
    six = "".join(scores_text().splitlines(keepends=True)[:6])
    assert "recorded already" in run("record", ROW, *answer(place, six))
    assert path.read_bytes() == before  # the recalls stay
    other = answer(place, summary_text().replace("0.417", "0.418"))
    assert "AP 41.7, not 41.8" in refused(place, "record", ROW, *other)
    run("collect")
    path.unlink()
    assert "AP 41.7, not 41.8" in refused(place, "record", ROW, *other)  # the results hold it too
    assert "recorded already" in run("record", ROW, *answer(place, summary_text()))
    path.write_bytes(before)


def test_record_refuses_what_was_not_exported_and_bad_files(place: Workplace) -> None:
    good = answer(place, summary_text())
    message = refused(place, "record", ROW, *good)
    assert f"Export it: harness export {ROW} --profile tiny --split {TEST_DEV}" in message
    assert "One row is needed" in refused(place, "record", "table4", *good)
    run("export", ROW)
    assert "seed 1, was not exported" in refused(place, "record", ROW, "--seed", "1", *good)
    assert "was not exported for val2017" in refused(place, "record", ROW, "--split", "val2017", *good)
    assert "test settings only" in refused(place, "record", ROW, "--set", "optimizer.lr=1", *good)
    assert "incomplete: no AP_large" in refused(place, "record", ROW, *answer(place, summary_text()[:420]))
    assert "none of the server's numbers" in refused(place, "record", ROW, *answer(place, "{}"))
    path = place.run_dir(ROW).evaluation(job(place).id) / EXPORT_FILE
    content = path.read_text()
    path.write_text(content.replace('"margin": 0.5', '"margin": 0.4'))
    assert "it was edited, moved, or written by code" in refused(place, "record", ROW, *good)
    path.write_text(content[:-9])
    assert "cannot be read as Export" in refused(place, "record", ROW, *answer(place, summary_text()))


def exported_over(place: Workplace, sha256: str, *, from_scratch: bool) -> Export:
    """An export of table2/L6 of the smoke profile over a folder with that annotation file, written by hand."""
    selection = Selection("table2/L6", "smoke", [], None)
    (cell,) = selection.plan(1, from_scratch=from_scratch).cells
    source = cell.job.train.data
    assert isinstance(source, AnnotatedFolder)
    assert source.test_sha256 is None
    train = replace(cell.job.train, data=replace(source, train_sha256=sha256, test_sha256=sha256))
    wanted = replace(cell.job, train=train, split=TEST_DEV)
    export = Export(
        format=1,
        eval_id=wanted.id,
        profile="smoke",
        job=wanted,
        train_split=SplitFingerprint(images=1, boxes=1, sha256=sha256),
        test_split=SplitFingerprint(images=1, boxes=0, sha256=sha256),
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        seconds=1.0,
        finished="",
        notes=("a note",),
        sent=Sent(name="x", detections=0, sha256=""),
    )
    write_export(selection.store.run_dir(train.id), export)
    return export


def test_record_finds_an_export_over_any_one_folder(place: Workplace) -> None:
    arguments = ["record", "table2/L6", "--profile", "smoke", *answer(place, summary_text())]
    other = exported_over(place, "a" * 64, from_scratch=True)
    invoke(*arguments)
    record = RunDir(place.root / "runs" / other.job.train.id).read_record(other.eval_id)
    assert record is not None
    assert record.notes == ("a note", "numbers of the evaluation server, as printed (3 decimals)")
    first = exported_over(place, "b" * 64, from_scratch=False)
    invoke(*arguments)  # with pretrained weights comes first
    assert RunDir(place.root / "runs" / first.job.train.id).read_record(first.eval_id) is not None
    exported_over(place, "c" * 64, from_scratch=False)
    with pytest.raises(UsageError, match="exported over 2 data sets. Say which with --data DIR"):
        invoke(*arguments)


def test_record_needs_a_zip_that_was_written(place: Workplace) -> None:
    run("export", ROW)
    ((run_dir, export),) = find_exports(place.root / "runs")
    write_export(run_dir, replace(export, sent=None))  # as a crash before the zip leaves it
    assert "was not exported for test-dev2017" in refused(place, "record", ROW, *answer(place, summary_text()))
