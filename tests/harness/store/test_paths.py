"""No path comes from a file's content: hostile names in records, submissions, splits; links that leave their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.data.coco.files import annotation_file
from detector.data.coco.subset import write_subset
from detector.data.shapes.generate import generate_shapes
from detector.errors import DataError, HarnessError, RecordError, UsageError
from detector.runs.folder import RunDir
from detector.runs.job import Shapes
from detector.runs.record import Record
from detector.storage.files import write_json
from harness.bundles.format import weights_member
from harness.bundles.pack import gather
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.slurm.submissions import Submission, output_file, run_of, transport_folder, write_submission
from harness.store.records import Store, collect
from support.records import record_of

HOSTILE = ("../../x", "..", ".", "", "/etc/x", "a/b", "a\0b", "a\nb", "a\n", "\x1b[2J", "a b", "-rf", "a" * 300, "\\x")


@pytest.fixture(scope="module")
def record() -> Record:
    registry = Registry(Path(__file__).resolve().parents[3] / "experiments")
    return record_of(eval_job(resolve(registry, "table2/L6", registry.profile("tiny")), 0))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "place" / "runs", tmp_path / "place" / "results")


def put(store: Store, record: Record) -> Path:
    path = store.run_dir(record.train_id).record(record.eval_id)
    write_json(path, record)
    return path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HOSTILE)
def test_collect_and_export_write_nowhere_else(name: str, record: Record, store: Store, tmp_path: Path) -> None:
    put(store, replace(record, profile=name))
    before = files(tmp_path)
    written, conflicts = collect(store, None)
    assert written == []
    assert len(conflicts) == 1
    assert "record.json" in conflicts[0]
    with pytest.raises(UsageError, match="cannot be part of a path"):
        gather(store, profile=None, eval_ids=None, with_weights=False)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_no_room_builds_a_path_from_a_hostile_name(name: str, record: Record, store: Store, tmp_path: Path) -> None:
    item = Submission(token=name, cluster="c", runs=(name,), time=0.0, code="c")
    for build in (
        lambda: store.run_dir(name),
        lambda: store.committed(replace(record, eval_id=name)),
        lambda: RunDir(tmp_path).record(name),
        lambda: weights_member(name),
        lambda: write_submission(tmp_path, item),
        lambda: transport_folder(tmp_path, name),
        lambda: run_of(tmp_path, name),
        lambda: output_file(tmp_path, name, 0),
    ):
        with pytest.raises(RecordError, match="cannot be part of a path"):
            build()
    assert files(tmp_path) == set()


@pytest.mark.parametrize("split", ["../../x", "..", ".", "", "a/b", "/etc/x", "a\0b"])
def test_a_split_is_a_plain_name(split: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no name of a split"):
        annotation_file(tmp_path, split)


@pytest.mark.parametrize("name", ["tiny\n", "table2/L6\n"])
def test_a_name_in_an_experiment_file_ends_in_no_line_break(name: str) -> None:
    import msgspec

    from harness.registry.claims import Ref
    from harness.registry.declarations import Name

    for kind in (Name, Ref):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(name, kind)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generate_shapes(tmp_path / "root", Shapes(version=1, seed=3, size=32, num_train=1, num_test=3, num_classes=3))
    return tmp_path / "root"


def test_subset_copies_nothing_out_through_links_unless_asked(root: Path, tmp_path: Path) -> None:
    image = sorted((root / "val2017").iterdir())[0]
    secret = image.rename(tmp_path / "secret.png")
    image.symlink_to(secret)
    with pytest.raises(DataError, match=r"1 of the 4 files to copy are links that leave .*--follow-links"):
        write_subset(root, tmp_path / "out", 3, splits=["val2017"], seed=None)
    assert not (tmp_path / "out").exists()
    write_subset(root, tmp_path / "out", 3, splits=["val2017"], seed=None, follow_links=True)
    assert (tmp_path / "out" / "val2017" / image.name).read_bytes() == secret.read_bytes()
    assert not (tmp_path / "out" / "val2017" / image.name).is_symlink()


def test_subset_takes_a_root_that_is_a_link_and_links_inside_of_it(root: Path, tmp_path: Path) -> None:
    image = sorted((root / "val2017").iterdir())[0]
    image.rename(root / "stored.png")
    image.symlink_to("../stored.png")
    (tmp_path / "link").symlink_to(root)
    write_subset(tmp_path / "link", tmp_path / "out", 3, splits=["val2017"], seed=None)
    assert len(list((tmp_path / "out" / "val2017").iterdir())) == 3


def test_export_packs_nothing_through_links_and_says_so(record: Record, store: Store, tmp_path: Path) -> None:
    run = store.run_dir(record.train_id)
    put(store, record)
    run.checkpoints.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    run.final.symlink_to(secret)
    found = gather(store, profile=None, eval_ids=None, with_weights=True)
    assert (len(found.records), found.weights) == (1, {})
    assert found.conflicts == (f"{run.final} is a link that leaves {store.runs}: these weights are not packed.",)
    assert gather(store, profile=None, eval_ids=None, with_weights=False).conflicts == ()
    path = run.record(record.eval_id)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(HarnessError, match=r"no finished record.* record.json is a link that leaves|is a link that"):
        gather(store, profile=None, eval_ids=None, with_weights=True)


def test_collect_replaces_no_record_that_appears_meanwhile(
    record: Record, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, record)
    target = store.committed(record)
    monkeypatch.setattr("harness.store.records.write_once", lambda path, value: False)
    written, conflicts = collect(store, None)
    assert written == []
    assert conflicts == [f"{target} was written by another process in the meantime; nothing was overwritten."]
