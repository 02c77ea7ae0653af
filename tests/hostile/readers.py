"""Every reader with a good document of its kind, for the property tests and the fuzzer."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from detector.data.coco.index import load_index
from detector.data.images import open_image
from detector.evaluation.detections import check_detections, read_detections
from detector.evaluation.test_dev.answer import read_answer
from detector.runs.folder import RunDir, read_train_job
from detector.runs.record import read_record
from harness.bundles.format import read_bundle
from harness.bundles.pack import gather, write_bundle
from harness.registry.declarations import Table
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, parse_overrides, resolve
from harness.registry.sources import load
from harness.slurm.clusters import read_cluster
from harness.store.curves import read_curve
from harness.store.records import Store
from tests.answers import TEST_DEV, json_text, scores_text, summary_text
from tests.hostile.coco import TRAIN, VAL, annotations, content, picture, write_root
from tests.hostile.invariant import PROJECT
from tests.hostile.mutate import Kind

RECORD: Final = next(iter(sorted((PROJECT / "results" / "records" / "tiny").glob("*.json"))))
_STATUS: Final = {"phase": "failed", "time": 1.0, "pid": 1, "iteration": 5, "iterations": 10, "message": "no"}


@dataclass(frozen=True)
class Reader:
    """good: documents without a fault. read: takes what was written into an empty folder, whatever it is."""

    name: str
    area: str
    kind: Kind
    good: Callable[[], list[bytes]]
    read: Callable[[Path, bytes], Any]


def _written(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    def reader(folder: Path, data: bytes) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return reader


def _annotations(folder: Path, data: bytes) -> None:
    root = folder / "root"
    if not root.exists():
        write_root(folder)
    annotations(root).write_bytes(data)
    load_index(root, TRAIN)


def _image(folder: Path, data: bytes) -> None:
    root = folder / "root"
    if not root.exists():
        write_root(folder)
    (root / TRAIN / "1.jpg").write_bytes(data)
    open_image(load_index(root, TRAIN), 0)


def _detections(folder: Path, data: bytes) -> None:
    root = folder / "root"
    if not root.exists():
        write_root(folder)
    path = folder / ("d.json.gz" if data.startswith(b"\x1f\x8b") else "d.json")
    path.write_bytes(data)
    check_detections(load_index(root, VAL), read_detections(path))


def _set(folder: Path, data: bytes) -> None:
    registry = _registry()
    items = data.decode("utf-8", "replace").split("\n")[:5]
    eval_job(resolve(registry, "table2/L6", registry.profile("tiny"), overrides=parse_overrides(items)), 0)


_KNOWN: list[Registry] = []


def _registry() -> Registry:
    if not _KNOWN:
        _KNOWN.append(Registry(PROJECT / "experiments"))
    return _KNOWN[0]


def _weights(path: Path) -> None:
    from detector.weights.read import read_weights

    read_weights(path)


def _checkpoint(path: Path) -> None:
    from detector.weights.checkpoint import load as load_checkpoint

    load_checkpoint(path)


def _status(path: Path) -> None:
    run = RunDir(path.parent)
    run.read_status()
    run.first_failure()


def _rows() -> list[bytes]:
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}] * 2
    text = json.dumps(rows).encode()
    return [text, gzip.compress(text, mtime=0)]


def _pickles() -> list[bytes]:
    arrays = {
        "conv1_w": np.zeros((2, 3), np.float32),
        "res2_0_branch2a_w": np.ones(4),
        "n": 1,
        "blobs": {"a": [1, "x"]},
    }
    return [pickle.dumps(arrays, protocol=protocol) for protocol in (2, 4)] + _archives()


def _archives() -> list[bytes]:
    import torch

    stream = BytesIO()
    torch.save({"model": {"layer1.0.conv1.weight": torch.ones(2, 3)}, "iteration": 5}, stream)
    return [stream.getvalue()]


def _bundles() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = folder / "results" / "records" / "tiny"
        tiny.mkdir(parents=True)
        (tiny / RECORD.name).write_bytes(RECORD.read_bytes())
        store = Store(folder / "runs", folder / "results")
        write_bundle(folder / "b.zip", gather(store, profile=None, eval_ids=None, with_weights=False))
        return [(folder / "b.zip").read_bytes()]


def _table() -> list[bytes]:
    return [(PROJECT / "experiments" / name).read_bytes() for name in ("table2.yaml", "table3.yaml")]


def _job() -> list[bytes]:
    return [json.dumps(json.loads(RECORD.read_text())["job"]["train"]).encode()]


READERS: Final = (
    Reader("yaml", "experiments", "yaml", _table, _written("table2.yaml", lambda path: load(path, Table))),
    Reader("set", "--set", "text", lambda: [b"optimizer.lr=0.005\nloss.margin=0.3", b"model.weights=none"], _set),
    Reader(
        "cluster",
        "clusters",
        "yaml",
        lambda: [(PROJECT / "experiments" / "clusters" / "example.yaml").read_bytes()],
        _written("example.yaml", read_cluster),
    ),
    Reader("annotations", "annotations", "json", lambda: [json.dumps(content()).encode()], _annotations),
    Reader("image", "images", "bytes", lambda: [picture(), picture("PNG"), picture("PNG", "P")], _image),
    Reader("detections", "detections", "json", _rows, _detections),
    Reader("record", "records", "json", lambda: [RECORD.read_bytes()], _written(RECORD.name, read_record)),
    Reader("job", "run folders", "json", _job, _written("job.json", lambda path: read_train_job(RunDir(path.parent)))),
    Reader("status", "run folders", "json", lambda: [json.dumps(_STATUS).encode()], _written("status.json", _status)),
    Reader(
        "metrics",
        "run folders",
        "lines",
        lambda: [b'{"iteration": 5, "loss": 1.0, "lr": 0.1}\n' * 3],
        _written("metrics.jsonl", lambda path: read_curve(RunDir(path.parent))),
    ),
    Reader("weights", "weights", "bytes", _pickles, _written("w.pkl", _weights)),
    Reader("checkpoint", "weights", "bytes", _archives, _written("final.pt", _checkpoint)),
    Reader("bundle", "bundles", "bytes", _bundles, _written("b.zip", read_bundle)),
    Reader(
        "answer",
        "answers",
        "text",
        lambda: [text.encode() for text in (summary_text(), scores_text(), json_text())],
        _written("answer.txt", lambda path: read_answer(path, TEST_DEV)),
    ),
)
