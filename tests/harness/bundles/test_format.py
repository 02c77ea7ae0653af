"""Bundles: what is packed, and what is said of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from harness.cli import app
from tests.harness.bundles.sites import (
    PROJECT,
    Site,
    job_of,
    manifest,
    members,
    put_result,
    put_run,
    record_of,
    tree,
    with_threshold,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "here", monkeypatch)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "there", monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bundle.zip"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_committed_records_come_out_as_they_went_in_and_twice_changes_nothing(
    here: Site, there: Site, file: Path
) -> None:
    shutil.copytree(PROJECT / "results" / "records", here.root / "results" / "records")
    count = len(list((PROJECT / "results" / "records").glob("*/*.json")))
    assert f"{count} records ({count} of tiny)" in here.bundle("export", file).output
    assert f"records: {count} new, 0 already there, 0 in conflict" in there.bundle("import", file).output
    before = tree(there.root)
    assert {name: data for name, (data, _) in before.items()} == {
        name: data for name, (data, _) in tree(here.root).items()
    }
    assert f"records: 0 new, {count} already there, 0 in conflict" in there.bundle("import", file).output
    assert tree(there.root) == before


def test_the_same_content_gives_the_same_bytes_wherever_it_lies(here: Site, there: Site, tmp_path: Path) -> None:
    records = [record_of(job_of(seed=seed), float(seed)) for seed in range(3)]
    for record in records:
        put_run(here.store, record, b"weights %d" % record.job.train.seed)
    for record in reversed(records):
        put_result(there.store, record)
        put_run(there.store, record, b"weights %d" % record.job.train.seed)
        os.utime(there.store.committed(record), (1e9, 1e9))
    here.bundle("export", tmp_path / "a.zip", "--checkpoints")
    there.bundle("export", tmp_path / "b.zip", "--checkpoints")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_bundle_says_what_is_in_it_and_not_who_packed_it(here: Site, file: Path) -> None:
    record = record_of(job_of())
    put_run(here.store, record, b"weights")
    data = put_result(here.store, record).read_bytes()
    here.bundle("export", file, "--checkpoints")
    ids = {"eval_id": record.eval_id, "train_id": record.train_id}
    assert manifest(file) == {
        "format": 1,
        "records": [{**ids, "profile": "tiny", "sha256": sha256(data)}],
        "weights": [{"train_id": record.train_id, "sha256": sha256(b"weights")}],
    }
    assert members(file)[:-1] == [
        (f"records/tiny/{record.eval_id}.json", data),
        (f"weights/{record.train_id}.pt", b"weights"),
    ]
    with zipfile.ZipFile(file) as archive:
        assert archive.comment == b""
        assert {(info.date_time, info.external_attr >> 16, info.extra) for info in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 0o644, b"")
        }
    assert list(file.parent.glob(".*")) == []


def test_export_packs_the_profile_or_target_that_was_asked_for(here: Site, file: Path) -> None:
    wanted = [
        record_of(job_of(seed=0)),
        record_of(job_of(seed=7)),
        record_of(replace(job_of(seed=1), split="test-dev2017")),
    ]
    focal, small = record_of(job_of("table2/focal")), record_of(job_of(profile="small"), profile="small")
    for record in (*wanted, focal, small):
        put_run(here.store, record)

    def packed(*arguments: str) -> set[str]:
        here.bundle("export", file, "--force", *arguments)
        return {entry["eval_id"] for entry in manifest(file)["records"]}

    put_run(here.store, focal, b"weights")  # which nobody asks for
    own = {record.eval_id for record in wanted}
    assert packed() == own | {focal.eval_id, small.eval_id}
    assert manifest(file)["weights"] == []
    assert packed("--profile", "tiny") == own | {focal.eval_id}
    assert packed("--target", "table2/L6") == own | {small.eval_id}
    assert packed("--target", "table3", "--profile", "tiny") == own  # its row "dr" is the same training
    assert packed("--target", "table2", "--profile", "tiny") == own | {focal.eval_id}


def test_export_refuses_what_it_cannot_pack(here: Site, file: Path) -> None:
    assert "no finished record to pack" in here.refused("export", file)
    run = put_run(here.store, record_of(job_of()))
    assert "no finished record to pack" in here.refused("export", file, "--profile", "small")
    assert "for this target" in here.refused("export", file, "--target", "table2/focal")
    assert "table9" in here.refused("export", file, "--target", "table9")
    assert "huge" in here.refused("export", file, "--profile", "huge")
    here.bundle("export", file)
    assert "exists and is not overwritten" in here.refused("export", file)
    record = run.record(job_of().id)
    record.write_text(record.read_text().replace(job_of().train.id, "0" * 16))
    message = here.refused("export", file, "--force")
    assert str(record) in message
    assert "Move it away" in message


def test_export_names_a_run_that_contradicts_the_results_and_leaves_its_weights_out(here: Site, file: Path) -> None:
    job = job_of()
    put_run(here.store, record_of(job, 21.0), b"weights")
    put_run(here.store, record_of(with_threshold(job, 0.4)))  # agrees, and is of the same weights
    committed = put_result(here.store, record_of(job, 20.0))
    put_run(here.store, record_of(job_of(seed=1)), b"others")
    result = here.bundle("export", file, "--checkpoints", code=1)
    assert f"has other numbers than {committed}" in result.output
    assert "final weights of 1 of their 2 trainings" in result.output
    assert dict(members(file))[f"records/tiny/{job.id}.json"] == committed.read_bytes()
    assert [entry["train_id"] for entry in manifest(file)["weights"]] == [job_of(seed=1).train.id]


def test_export_takes_no_weights_of_a_run_without_records(here: Site, file: Path) -> None:
    record = record_of(job_of())
    put_result(here.store, record)
    run = here.store.run_dir(record.train_id)  # trained, not yet evaluated
    run.checkpoints.mkdir(parents=True)
    run.final.write_bytes(b"weights")
    here.bundle("export", file, "--checkpoints")
    assert manifest(file)["weights"] == []


def test_bundles_of_records_need_neither_torch_nor_pandas(here: Site, there: Site, file: Path) -> None:
    """Weights are looked into before they are passed on, which takes torch."""
    record = record_of(job_of())
    put_run(here.store, record)
    here.enter()
    check = "assert not {'torch', 'pandas'} & set(sys.modules), 'imported'"
    for arguments in (["export", str(file), "--target", "table2", "--checkpoints"], ["import", str(file)]):
        code = f"import sys; from harness.cli import app; app({['bundle', *arguments]}, standalone_mode=False); {check}"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
        there.enter()
    assert there.store.committed(record).exists()


def test_help_promises_no_more_than_the_hashes_hold() -> None:
    for arguments in (["bundle", "--help"], ["bundle", "import", "--help"]):
        text = " ".join(CliRunner().invoke(app, arguments).output.split())
        assert "damage and careless edits" in text
        assert "hash that fits" in text
