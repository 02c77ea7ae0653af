"""What hostile weight files cost: a process of its own reads one after the other, and says how large it grew."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.detector.weights.programs import PROTOCOL, archive_of, legacy_of, named, tensor
from tests.weight_files import blank, peer_shapes, save_torch

PROJECT = Path(__file__).resolve().parents[3]
MOST_GROWTH = 300 * 2**20  # bytes, above what torch's import takes
READ = """
import resource, sys
from pathlib import Path
from detector.errors import WeightsError
from detector.weights.read import read_weights
def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
refused, before = 0, memory()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_weights(path)
    except WeightsError as error:
        refused += 1
        assert len(str(error)) < 6_000, path
print(refused, memory() - before)
"""


def nested(levels: int) -> Any:
    value: Any = "ha"
    for _ in range(levels):
        value = [value] * 10
    return value


def bomb() -> bytes:
    """Inflates to a gigabyte."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", PROTOCOL + b"}.")
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(2**24))
    return out.getvalue()


def head_of(convs: int, channels: int) -> dict[str, Any]:
    """A RetinaNet with a head of absurdly many layers or channels, in tensors that are small."""
    state: dict[str, Any] = blank(peer_shapes("maskrcnn_benchmark_r50"))
    one = state["rpn.head.cls_tower.0.bias"][:1]
    state |= {f"rpn.head.cls_tower.{2 * i}.bias": one for i in range(convs)}
    inner = "backbone.fpn.fpn_inner2.weight"
    state[inner] = one.new_zeros(channels).view(channels, 1, 1, 1) if channels else state[inner]
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    files = {
        "expanded": archive_of(tensor((5, 2**30), (0, 0), 0)),
        "expanded legacy": legacy_of(tensor((5, 2**30), (0, 0), 0)),
        "large storage": archive_of(tensor((2**32,), (1,), 0, count=2**32)),
        "large legacy storage": legacy_of(tensor((2**32,), (1,), 0, count=2**32)),
        "laughs": pickle.dumps({"model": nested(9)}),
        "laughs in torch": archive_of(pickle.dumps({"model": nested(9)}, protocol=2)),
        "endless keys": PROTOCOL + b"}" + b")" + b"2\x86" * 2000 + b"Ns.",
        "memo": PROTOCOL + b"Nr\xff\xff\xff\x7f.",
        "many steps": PROTOCOL + b"N0" * 3_000_000 + b".",
        "copies": PROTOCOL
        + b"(" + b"N" * 100_000 + b"lq\x00(" + (named("builtins", "list") + b"h\x00\x85R") * 10_000 + b"l.",
        "bomb": bomb(),
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    save_torch(folder / "many layers", {"model": head_of(20_000, 0)})
    save_torch(folder / "many channels", {"model": head_of(4, 1_000_000)})
    return folder


@pytest.mark.slow
def test_hostile_files_are_refused_before_they_take_memory(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    refused, growth = map(int, done.stdout.split())
    assert refused == len(list(folder.iterdir()))
    assert growth < MOST_GROWTH
