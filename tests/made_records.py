"""Records of rows at the tiny scale, made without training, as ``Store`` finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from detector.runs.findings import Curves
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of

CURVES = Curves(iterations=(1, 400), values={"loss": (2.0, 1.25), "lr": (0.01, None)})


def made_record(ref: str, seed: int, **changes: Any) -> Record:
    """A record of format 2 with a short curve."""
    registry = Registry()
    record = record_of(eval_job(resolve(registry, ref, registry.profile("tiny")), seed))
    changed = {"format": 2, "curves": CURVES, "health": (), "train_seconds": 40.0, "eval_seconds": 2.0} | changes
    if changed["format"] == 1:
        return replace(record, **{name: value for name, value in changed.items() if name not in ("curves", "health")})
    record = replace(record, **changed)
    return replace(record, sha256=content_hash(record))


def commit(record: Record, results: Path) -> Path:
    """Write the record where ``harness collect`` would. Returns its file."""
    path = results / "records" / record.profile / f"{record.eval_id}.json"
    write_json(path, record, flush=False)
    return path
