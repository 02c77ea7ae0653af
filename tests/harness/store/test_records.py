"""Records on the disk: read, refused, collected, matched to rows; and what is said where weights are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import MissingLossError, RecordError, UsageError
from detector.runs.code import Code
from detector.runs.folder import read_own_record
from detector.runs.job import AnnotatedFolder, EvalJob
from detector.runs.record import Record, SplitFingerprint, content_hash
from detector.storage.files import write_json
from harness.planning.plan import Plan, make_plan
from harness.planning.rows import row_records
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.status.find import find_run, find_trained
from harness.store.copies import copies
from harness.store.records import Store, collect

REF = "table2/L6"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(Path(__file__).resolve().parents[3] / "experiments")


@pytest.fixture
def store(tmp_path: Path, empty_folders: None) -> Store:
    return Store(tmp_path / "runs", tmp_path / "results")


def job_of(registry: Registry, profile: str, seed: int = 0, sha: str | None = None) -> EvalJob:
    job = eval_job(resolve(registry, REF, registry.profile(profile)), seed)
    if sha is None:
        return job
    assert isinstance(job.train.data, AnnotatedFolder)
    data = replace(job.train.data, train_sha256=sha, test_sha256=sha)
    return replace(job, train=replace(job.train, data=data))


def record_of(job: EvalJob, profile: str, ap: float = 20.0) -> Record:
    split = SplitFingerprint(images=1, boxes=1, sha256="0")
    return Record(
        **{"format": 1, "eval_id": job.id, "train_id": job.train.id, "profile": profile, "job": job},
        **{"metrics": {"AP": ap}, "train_split": split, "test_split": split, "environment": {}},
        **{"code": Code(version="0", commit=None, modified=None), "train_seconds": 1.0, "eval_seconds": 1.0},
        **{"finished": "2026-01-01T00:00:00+00:00", "notes": ()},
    )


def put(store: Store, record: Record) -> Path:
    path = store.run_dir(record.train_id).record(record.eval_id)
    write_json(path, record)
    return path


def plan_of(registry: Registry, profile: str) -> Plan:
    return make_plan(registry, [REF], registry.profile(profile))


def sealed(record: Record) -> Record:
    """The same record in format 2, with its hash."""
    record = replace(record, format=2)
    return replace(record, sha256=content_hash(record))


def test_a_local_record_comes_before_the_committed_one_of_its_evaluation(registry: Registry, store: Store) -> None:
    job = job_of(registry, "tiny")
    path = put(store, record_of(job, "tiny", ap=20.0))
    committed = record_of(job, "tiny", ap=30.0)
    write_json(store.committed(committed), committed)
    (local,) = store.records
    assert (local.metrics["AP"], store.path_of(local), store.overruled(local)) == (20.0, path, committed)
    only = {source: Store(store.runs, store.results, source).records for source in ("local", "committed")}
    assert {source: [found.metrics["AP"] for found in records] for source, records in only.items()} == {
        "local": [20.0],
        "committed": [30.0],
    }
    write_json(path, committed)
    again = Store(store.runs, store.results)
    assert again.overruled(again.records[0]) is None  # the same numbers


def test_the_file_of_a_record_is_found_without_a_merge_of_all_files(registry: Registry, store: Store) -> None:
    """A merge for each record makes the list of all runs grow with the square of their number."""

    class Files(dict[str, Path]):
        def __or__(self, other: object) -> Files:  # type: ignore[override]
            raise AssertionError("all files were merged")

    records = [record_of(job_of(registry, "tiny", seed), "tiny") for seed in (0, 1)]
    paths = [put(store, records[0]), store.committed(records[1])]
    write_json(paths[1], records[1])
    assert len(store.records) == 2
    for part in (store._local, store._committed):
        object.__setattr__(part, "files", Files(part.files))
    assert [store.path_of(record) for record in records] == paths


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"\xff\xfe"])
def test_damaged_files_are_set_aside_by_name_and_the_others_read(
    registry: Registry, store: Store, content: bytes
) -> None:
    put(store, record_of(job_of(registry, "tiny"), "tiny"))
    path = store.results / "records" / "tiny" / "0123.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert len(store.records) == 1
    (aside,) = store.set_aside
    assert (aside.path, aside.profile) == (path, "tiny")
    assert aside.why.startswith(("cannot be read as Record", "line 1: byte 0xff is not UTF-8"))


def edit_rate(content: dict) -> None:
    content["job"]["train"]["optimizer"]["lr"] *= 2


def edit_metric(content: dict) -> None:
    content["metrics"]["AP"] = 37.4


def drop_hash(content: dict) -> None:
    content["metrics"]["AP"] = 37.4
    del content["sha256"]


def newer_format(content: dict) -> None:
    content["format"] = 3


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (edit_rate, "its job has the ids"),
        (edit_metric, "edited after it was written"),
        (drop_hash, "has no hash"),
        (newer_format, "it was written by a newer version: it has format 3; this one reads 1 and 2"),
    ],
)
def test_an_edited_record_is_set_aside_and_not_collected(
    registry: Registry, store: Store, edit: Callable[[dict], None], why: str
) -> None:
    path = put(store, sealed(record_of(job_of(registry, "tiny"), "tiny")))
    other = put(store, sealed(record_of(job_of(registry, "tiny", seed=1), "tiny")))
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    assert [store.path_of(record) for record in store.records] == [other]
    assert [why in item.why for item in store.set_aside] == [True]
    with pytest.raises(RecordError, match=why):
        read_own_record(path)
    written, conflicts = collect(store, None)
    assert written == [store.committed(read_own_record(other))]
    assert len(conflicts) == 1
    assert why in conflicts[0]


def test_copies_are_trainings_with_equal_metrics_to_the_last_bit(registry: Registry) -> None:
    def scored(seed: int, score: float) -> Record:
        record = record_of(job_of(registry, "tiny", seed), "tiny")
        return replace(record, metrics={"AP": 20.0, "positive_score": score})

    records = [scored(2, 0.5), scored(0, 0.5), scored(1, 0.5 + 1e-16 + 2e-16)]
    assert [[item.job.train.seed for item in group] for group in copies(records)] == [[0, 2]]
    rounded = [record_of(job_of(registry, "tiny", seed), "tiny") for seed in (0, 1)]
    assert copies(rounded) == []  # AP alone may be equal by chance


def test_collect_copies_one_profile_once_and_names_what_differs(registry: Registry, store: Store) -> None:
    tiny, small = (record_of(job_of(registry, profile), profile) for profile in ("tiny", "small"))
    put(store, tiny)
    put(store, small)
    assert collect(store, "tiny") == ([store.committed(tiny)], [])
    assert collect(store, None) == ([store.committed(small)], [])
    assert collect(store, None) == ([], [])
    put(store, replace(tiny, metrics={"AP": 21.0}))
    written, conflicts = collect(store, None)
    assert written == []
    assert len(conflicts) == 1
    assert "the same job gave other numbers; nothing was overwritten" in conflicts[0]
    assert json.loads(store.committed(tiny).read_text())["metrics"]["AP"] == 20.0


def test_row_records_are_of_one_row_in_the_order_of_their_seeds(registry: Registry, store: Store) -> None:
    for seed in (2, 0, 1):
        put(store, record_of(job_of(registry, "tiny", seed), "tiny", ap=float(seed)))
    put(store, record_of(job_of(registry, "small"), "small"))
    found = row_records(store, [plan_of(registry, "tiny")])
    assert [record.metrics["AP"] for record in found[REF]] == [0.0, 1.0, 2.0]


def test_row_records_refuse_to_mix_data_sets_unless_one_is_named(registry: Registry, store: Store) -> None:
    for sha, ap in (("a" * 64, 1.0), ("b" * 64, 2.0)):
        put(store, record_of(job_of(registry, "overfit", sha=sha), "overfit", ap))
    with pytest.raises(UsageError, match="2 different data sets.*--data DIR"):
        row_records(store, [plan_of(registry, "overfit")])
    data = job_of(registry, "overfit", sha="b" * 64).train.data
    named = make_plan(registry, [REF], registry.profile("overfit"), data=data)
    assert [record.metrics["AP"] for record in row_records(store, [named])[REF]] == [2.0]


def test_weights_that_were_removed_are_told_from_a_run_that_never_was(registry: Registry, store: Store) -> None:
    selection = Selection(REF, "tiny", [], None)
    with pytest.raises(UsageError, match="No trained weights of table2/L6, seed 0, .*harness run table2/L6"):
        find_trained(selection, 0)
    record = record_of(job_of(registry, "tiny"), "tiny")
    put(store, record)
    message = rf"its weights .*final.pt are gone.*move .*{record.train_id} away, then: harness run table2/L6"
    with pytest.raises(UsageError, match=message):
        find_trained(Selection(REF, "tiny", [], None), 0)
    with pytest.raises(UsageError, match=message):
        find_run(selection, 0, selection.data_root())
    with pytest.raises(UsageError, match="One row is needed"):
        find_trained(Selection("table2", "tiny", [], None), 0)


def test_a_record_whose_loss_is_not_installed_stops_nobody(registry: Registry, store: Store) -> None:
    path, lost = put(store, record_of(job_of(registry, "tiny"), "tiny")), job_of(registry, "tiny", seed=1)
    content = json.loads(put(store, record_of(lost, "tiny")).read_bytes())
    content["job"]["train"] |= {"loss": {"name": "gone"}, "loss_package": "gone-loss==1.2"}
    gone = store.run_dir(lost.train.id).record(lost.id)
    gone.write_text(json.dumps(content))
    with pytest.raises(
        MissingLossError, match="its loss 'gone' is that of gone-loss==1.2. That package is not installed"
    ):
        read_own_record(gone)
    assert [record.job.train.seed for record in store.records] == [0]
    written, conflicts = collect(store, None)
    assert written == [store.committed(read_own_record(path))]
    assert len(conflicts) == 1
    content["job"]["train"]["loss_package"] = None  # then it is damaged
    gone.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="gone"):
        read_own_record(gone)


def test_each_file_is_read_once_for_whoever_asks(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = put(store, record_of(job_of(registry, "tiny"), "tiny"))
    damaged = put(store, record_of(job_of(registry, "tiny", 1), "tiny"))
    damaged.write_text("{")
    asked = list[Path]()

    def spy(path: Path) -> Record:
        asked.append(path)
        return read_own_record(path)

    monkeypatch.setattr("harness.store.records.read_own_record", spy)
    assert len(store.records) == 1
    assert store.record_at(good) == store.records[0]
    for _ in range(2):
        with pytest.raises(RecordError, match="cannot be read as Record"):
            store.record_at(damaged)
    assert sorted(asked) == sorted([good, damaged])
