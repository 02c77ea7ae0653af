"""Importing bundles: what becomes of new records and weights, and what is never touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from typer.testing import CliRunner

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.runs.record import read_record
from detector.storage.files import write_json
from detector.storage.reading import read_json
from harness.bundles import merge as bundle_import
from harness.bundles import own_weights
from harness.bundles.format import read_bundle
from harness.cli import app
from harness.planning.selection import Selection, missing
from harness.status.find import find_trained
from harness.store.records import Store
from support.micro import micro_job, write_experiments
from tests.harness.bundles.sites import Site, change, job_of, put_result, put_run, record_of, tree, with_threshold


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "here", monkeypatch)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "there", monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bundle.zip"


def test_import_puts_weights_into_a_run_only_where_there_is_none(here: Site, there: Site, file: Path) -> None:
    new, started = record_of(job_of(seed=0)), record_of(job_of(seed=1))
    for record in (new, started):
        put_run(here.store, record, b"weights")
    here.bundle("export", file, "--checkpoints")
    write_json(there.store.run_dir(started.train_id).job, started.job.train)
    before = tree(there.store.run_dir(started.train_id).root)
    merged = there.merged(file, code=1)
    assert merged["records"]["new"] == sorted([new.eval_id, started.eval_id])
    assert merged["weights"] == {"new": [new.train_id], "already_there": [], "in_conflict": [started.train_id]}
    assert "exists without final weights" in merged["conflicts"][0]
    assert tree(there.store.run_dir(started.train_id).root) == before
    run = there.store.run_dir(new.train_id)
    assert {name: data for name, (data, _) in tree(run.root).items()} == {
        name: data for name, (data, _) in tree(here.store.run_dir(new.train_id).root).items()
    }
    assert {path.name for path in there.store.runs.iterdir()} == {new.train_id, started.train_id}


def test_import_names_each_conflict_and_takes_the_rest(here: Site, there: Site, file: Path) -> None:
    job, other, new = job_of(seed=0), job_of(seed=1), job_of(seed=2)
    put_run(here.store, record_of(job, 21.5), b"weights")
    put_run(here.store, record_of(other), b"my weights")
    put_run(here.store, record_of(new), b"weights")
    here.bundle("export", file, "--checkpoints")
    put_result(there.store, record_of(job, 20.0))
    put_run(there.store, record_of(other), b"your weights")
    before = tree(there.root)
    result = there.bundle("import", file, code=1)
    assert "records: 1 new, 1 already there, 1 in conflict" in result.output
    assert "weights: 1 new, 0 already there, 2 in conflict" in result.output
    assert f"record tiny/{job.id} in {file}" in result.output
    assert "AP 20.0 there, 21.5 in the bundle" in result.output
    assert f"weights of {job.train.id} in {file}: left out because their record" in result.output
    assert f"{there.store.run_dir(other.train.id).final} has other weights" in result.output
    after = tree(there.root)
    assert {name: after[name] for name in before} == before
    assert there.store.run_dir(new.train.id).final.read_bytes() == b"weights"
    assert not there.store.run_dir(job.train.id).root.exists()
    assert read_record(there.store.committed(record_of(new))).metrics["AP"] == 20.0
    there.bundle("import", file, code=1)
    assert tree(there.root) == after


def test_import_compares_with_runs_that_were_not_collected(here: Site, there: Site, file: Path) -> None:
    put_run(here.store, record_of(job_of(seed=0), 21.0))
    put_run(here.store, record_of(job_of(seed=1), 20.0))
    here.bundle("export", file)
    put_run(there.store, record_of(job_of(seed=0), 20.0))
    put_run(there.store, record_of(job_of(seed=1), 20.0))
    before = tree(there.root)
    merged = there.merged(file, code=1)
    assert merged["records"]["in_conflict"] == [job_of(seed=0).id]
    assert merged["records"]["already_there"] == [job_of(seed=1).id]
    assert str(there.store.run_dir(job_of(seed=0).train.id).record(job_of(seed=0).id)) in merged["conflicts"][0]
    assert tree(there.root) == before


def test_import_never_overwrites_a_file_of_another_name(here: Site, there: Site, file: Path) -> None:
    put_run(here.store, record_of(job_of(seed=0)))
    here.bundle("export", file)
    misnamed = there.store.committed(record_of(job_of(seed=0)))
    write_json(misnamed, record_of(job_of(seed=1)))
    assert "is the record of another evaluation" in there.merged(file, code=1)["conflicts"][0]
    assert read_record(misnamed).eval_id == job_of(seed=1).id


def test_import_of_several_files_lets_the_first_stand(here: Site, there: Site, tmp_path: Path) -> None:
    a, b = tmp_path / "a.zip", tmp_path / "b.zip"
    job = job_of()
    more = record_of(with_threshold(job, 0.4), 19.0)
    run = put_run(here.store, record_of(job, 20.0), b"weights")
    here.bundle("export", a, "--checkpoints")
    put_run(here.store, more)
    run.final.write_bytes(b"other weights")
    here.bundle("export", b, "--checkpoints")
    merged = there.merged(a, b, code=1)
    assert merged["records"] == {"new": [job.id, more.eval_id], "already_there": [job.id], "in_conflict": []}
    assert merged["weights"]["in_conflict"] == [job.train.id]
    assert merged["conflicts"] == [f"weights of {job.train.id} in {b}: {a} has other weights for the same training"]
    assert there.store.run_dir(job.train.id).final.read_bytes() == b"weights"
    shutil.rmtree(there.root)
    assert there.merged(a, a)["weights"] == {
        "new": [job.train.id],
        "already_there": [job.train.id],
        "in_conflict": [],
    }


def test_dry_run_says_the_same_and_writes_nothing(here: Site, there: Site, file: Path) -> None:
    put_run(here.store, record_of(job_of(seed=0)), b"weights")
    put_run(here.store, record_of(job_of(seed=1), 21.0))
    here.bundle("export", file, "--checkpoints")
    put_result(there.store, record_of(job_of(seed=1)))
    before = tree(there.root)
    assert "1 would be new" in there.bundle("import", file, "--dry-run", code=1).output
    dry = there.merged(file, "--dry-run", code=1)
    assert tree(there.root) == before
    assert not there.store.runs.exists()
    assert {**there.merged(file, code=1), "dry_run": True} == dry


def test_an_import_that_breaks_off_leaves_no_half_run(
    here: Site, there: Site, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of(job_of())
    put_run(here.store, record, b"weights")
    here.bundle("export", file, "--checkpoints")
    verified = bundle_import.plan_merge

    def verified_then_changed(*arguments: Any) -> Any:
        merge = verified(*arguments)
        change(file, ".pt", lambda data: b"swapped")
        return merge

    with monkeypatch.context() as patch:
        patch.setattr(bundle_import, "plan_merge", verified_then_changed)
        patch.setattr(own_weights, "check_imported", lambda merge: None)  # between that and the writing
        assert "changed while it was imported" in there.refused("import", file)
    assert list(there.store.runs.iterdir()) == []
    here.bundle("export", file, "--checkpoints", "--force")
    assert there.merged(file)["weights"]["new"] == [record.train_id]


def test_what_another_process_wrote_meanwhile_stays(here: Site, there: Site, file: Path) -> None:
    record = record_of(job_of())
    put_run(here.store, record, b"weights")
    here.bundle("export", file, "--checkpoints")
    merge = bundle_import.plan_merge(there.store, [read_bundle(file)])
    put_result(there.store, record_of(job_of(), 5.0))
    with pytest.raises(RecordError, match="in the meantime"):
        bundle_import.apply_merge(there.store, merge)
    there.store.committed(record).unlink()
    put_run(there.store, record, b"theirs")
    with pytest.raises(RecordError, match="in the meantime"):
        bundle_import.apply_merge(there.store, merge)
    assert there.store.run_dir(record.train_id).final.read_bytes() == b"theirs"


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Experiments of seconds, for weights that are really built."""
    folder = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    return folder


def put_trained(store: Store, experiments: Path, *, seconds: float, weights_seed: int = 0) -> RunDir:
    """A run whose final weights are a real, untrained network."""
    import torch

    from detector.build import build_model
    from detector.weights import checkpoint
    from detector.weights.network import network_of

    job = micro_job(experiments)
    run = put_run(store, record_of(job))
    torch.manual_seed(weights_seed)
    state = {
        "model": build_model(job.train, num_classes=3, test=job.test).state_dict(),
        "network": to_builtins(network_of(job.train)),
        "category_ids": [1, 2, 3],
        "category_names": ["a", "b", "c"],
        "executions": [[1, 1]],
        "seconds": seconds,
    }
    checkpoint.save(run.final, state)
    return run


def test_weights_of_equal_tensors_are_the_same_however_long_they_took(
    here: Site, there: Site, file: Path, micro: Path
) -> None:
    run = put_trained(here.store, micro, seconds=1.0)
    here.bundle("export", file, "--checkpoints")
    mine = put_trained(there.store, micro, seconds=2.0)
    assert mine.final.read_bytes() != run.final.read_bytes()
    assert there.merged(file)["weights"]["already_there"] == [run.root.name]
    put_trained(there.store, micro, seconds=1.0, weights_seed=1)
    assert there.merged(file, code=1)["weights"]["in_conflict"] == [run.root.name]


def test_weights_of_another_training_are_neither_packed_nor_imported(
    here: Site, there: Site, file: Path, micro: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.weights import checkpoint

    run = put_trained(here.store, micro, seconds=1.0)
    state = checkpoint.load(run.final)
    checkpoint.save(run.final, {**state, "train_id": "0123456789abcdef"})
    message = here.refused("export", file, "--checkpoints")
    assert f"{run.final} holds the weights of another training: 0123456789abcdef, not {run.root.name}" in message
    assert not file.exists()

    monkeypatch.setattr(own_weights, "check_packed", lambda contents: None)
    here.bundle("export", file, "--checkpoints")
    message = there.refused("import", file)
    assert f"{file} is refused, nothing was written: weights/{run.root.name}.pt holds the weights of another" in message
    assert not there.store.runs.exists()


def test_imported_weights_detect_and_their_run_counts_as_done(
    here: Site, there: Site, file: Path, micro: Path, tmp_path: Path
) -> None:
    from PIL import Image

    put_trained(here.store, micro, seconds=1.0)
    here.bundle("export", file, "--checkpoints")
    there.merged(file)
    selection = Selection("table2/L6", "tiny", [], None)
    run, test = find_trained(selection, 0)
    assert test == micro_job(micro).test
    assert read_json(run.job, TrainJob) == micro_job(micro).train
    assert missing(selection.plan(1), there.store) == []
    assert json.loads(
        CliRunner().invoke(app, ["eval", "table2/L6", "--profile", "tiny", "--json"], catch_exceptions=False).stdout
    )["metrics"] == {"AP": 20.0, "APL": None}
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    arguments = ["detect", str(tmp_path / "image.png"), "--out", str(tmp_path / "drawn"), "--profile", "tiny"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "objects" in result.output
