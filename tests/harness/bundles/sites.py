"""Records, runs and bundles for tests, some of them tampered with, and the folders of those who exchange them."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.record import Record, SplitFingerprint
from detector.storage.files import write_json
from harness.cli import app
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.store.records import Store
from tests.command import error

PROJECT = Path(__file__).resolve().parents[3]
Members = list[tuple[str, bytes]]


@cache
def registry() -> Registry:
    return Registry(PROJECT / "experiments")


def job_of(ref: str = "table2/L6", seed: int = 0, profile: str = "tiny") -> EvalJob:
    return eval_job(resolve(registry(), ref, registry().profile(profile)), seed)


def record_of(job: EvalJob, ap: float = 20.0, profile: str = "tiny") -> Record:
    split = SplitFingerprint(images=1, boxes=1, sha256="0")
    return Record(
        **{"format": 1, "eval_id": job.id, "train_id": job.train.id, "profile": profile, "job": job},
        **{"metrics": {"AP": ap, "APL": None}, "train_split": split, "test_split": split, "environment": {}},
        **{"code": Code(version="0", commit=None, modified=None), "train_seconds": 1.0, "eval_seconds": 1.0},
        **{"finished": "2026-01-01T00:00:00+00:00", "notes": ()},
    )


def with_threshold(job: EvalJob, value: float) -> EvalJob:
    """Another evaluation of the same training."""
    return replace(job, test=replace(job.test, score_threshold=value))


def place(root: Path) -> Store:
    return Store(root / "runs", root / "results")


def put_result(store: Store, record: Record) -> Path:
    write_json(store.committed(record), record)
    return store.committed(record)


def put_run(store: Store, record: Record, weights: bytes | None = None) -> RunDir:
    """A finished run; weights: the bytes of final.pt, None for a run whose weights were removed."""
    run = store.run_dir(record.train_id)
    write_json(run.job, record.job.train)
    write_json(run.record(record.eval_id), record)
    if weights is not None:
        run.checkpoints.mkdir(exist_ok=True)
        run.final.write_bytes(weights)
    return run


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below ``root``: its bytes and when it was written."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def members(file: Path) -> Members:
    with zipfile.ZipFile(file) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def manifest(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(dict(members(file))["manifest.json"])
    return content


def write_members(file: Path, given: Members, compression: int = zipfile.ZIP_STORED) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore", UserWarning)  # a name may be there twice
        for name, data in given:
            archive.writestr(name, data)


def change(file: Path, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Another content for the one member whose name ends so; the zip stays whole."""
    found = members(file)
    assert sum(given.endswith(name) for given, _ in found) == 1
    write_members(file, [(given, edit(data) if given.endswith(name) else data) for given, data in found])


def change_manifest(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    def edited(data: bytes) -> bytes:
        content = json.loads(data)
        edit(content)
        return json.dumps(content).encode()

    change(file, "manifest.json", edited)


def forge(file: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a record and write the hash that fits."""
    hashes: list[tuple[str, str]] = []

    def edited(data: bytes) -> bytes:
        content = json.loads(data)
        edit(content)
        fresh = json.dumps(content).encode()
        hashes.append((hashlib.sha256(data).hexdigest(), hashlib.sha256(fresh).hexdigest()))
        return fresh

    change(file, name, edited)
    ((old, new),) = hashes
    change(file, "manifest.json", lambda data: data.replace(old.encode(), new.encode()))


@dataclass
class Site:
    """One person's folders and command."""

    root: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def store(self) -> Store:
        return place(self.root)

    def bundle(self, *arguments: str | Path, code: int = 0) -> Result:
        self.enter()
        result = CliRunner().invoke(app, ["bundle", *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    def merged(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self.bundle("import", *arguments, "--json", code=code).stdout)

    def refused(self, *arguments: str | Path) -> str:
        self.enter()
        return error("bundle", *map(str, arguments))

    def enter(self) -> None:
        self.monkeypatch.setenv("HARNESS_RUNS", str(self.root / "runs"))
        self.monkeypatch.setenv("HARNESS_RESULTS", str(self.root / "results"))
        self.monkeypatch.delenv("HARNESS_DATA", raising=False)
