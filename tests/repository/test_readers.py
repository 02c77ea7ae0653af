"""One door for files: who opens a file by itself is listed here, with the reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository.layers import modules

# Calls that read a file, or decode what a file held, without asking what it is or how large.
READERS = {
    *("open", "os.open", "os.fdopen", "io.open", "gzip.open", "gzip.decompress", "zlib.decompress", "bz2.open"),
    *("json.load", "json.loads", "tomllib.load", "pickle.load", "np.load", "np.fromfile", "np.memmap", "torch.load"),
    *("msgspec.json.decode", "yaml.load", "yaml.safe_load"),
}
DOOR = "detector.storage.reading"
_OWN = "what this process, or the one before it, has written into a file of its own"
_LINUX = "Linux' own text about processes and memory"
_CODE = "the code of this package"
# Module: why it may.
ALONE = {
    DOOR: "the door itself",
    "detector.storage.files": "writes",
    "detector.storage.locks": "a lock, whose content nobody reads",
    "detector.storage.http": "writes a download",
    "detector.training.metrics": "appends",
    "detector.training.board": "appends to what came through the door",
    "detector.runs.starts": "appends",
    "detector.worker.missing_loss": "decodes what came through the door, or what the launcher pickled",
    "detector.worker.worker": "decodes what rank 0 sent",
    "detector.runs.findings": "a line of a file that came through the door",
    "detector.evaluation.detections": "decodes what came through the door",
    "detector.evaluation.matches": "an archive that came through the door, whose size was looked at",
    "detector.evaluation.test_dev.answer": "text that came through the door; a key twice must stay visible",
    "detector.data.coco.cache": "arrays of its own, which are mapped and have checksums",
    "detector.data.bottleneck": _LINUX,
    "detector.worker.trace": _OWN,
    "harness.doctor.node_job": _OWN,
    "harness.doctor.node_checks": _OWN,
    "harness.cli.app": "opens /dev/null, for what nobody reads any more",
    "harness.code.version": _CODE,
    "harness.report.page.page": _CODE,
    "harness.code.snapshot": _CODE,
    "harness.slurm.batch.script": _CODE,
    "harness.machine": _LINUX,
    "harness.launch.cancel": _LINUX,
    "harness.launch.hangs": _LINUX,
    "harness.launch.lease": "writes; others read it through the door",
    "harness.scaffold.render": "writes",
    "harness.bundles.merge": "writes",
    "harness.bundles.own_weights": "writes a copy for the reader of weights",
    "detector.worker.reports": "overwrites its own heartbeat on a full disk",
    "drloss.numba_cache": "code that it has compiled, which numba runs as it is",
    "drloss.plugins": "installed packages; drloss imports nothing of detector",
}
# Readers of data sets, images, weights and YAML, which have rules of their own beside the door's.
OWN_RULES = ("detector.data.", "detector.weights.", "detector.evaluation.load", "harness.registry.")


def calls(tree: ast.AST) -> Iterator[str]:
    """The readers that are called, as they are written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            method = isinstance(node.func, ast.Attribute) and node.func.attr in ("read_bytes", "read_text")
            opened = isinstance(node.func, ast.Attribute) and node.func.attr == "open" and not _is_archive(node.func)
            if name in READERS or method or opened:
                yield name


def _is_archive(function: ast.Attribute) -> bool:
    """``archive.open(...)`` opens a member of what is open already."""
    return ast.unparse(function.value) in ("archive", "opened", "webbrowser")


def readers(paths: dict[str, Path]) -> set[str]:
    return {name for name, path in paths.items() if any(calls(ast.parse(path.read_text())))}


def test_every_module_that_opens_a_file_by_itself_is_listed_with_its_reason() -> None:
    found = readers(modules("drloss") | modules("detector") | modules("harness"))
    found = {name for name in found if not name.startswith(OWN_RULES) or name in ALONE}
    assert found - set(ALONE) == set(), f"read it through {DOOR}"
    assert set(ALONE) - found == set(), "it reads no file any more"


@pytest.mark.parametrize(
    "line", ["path.read_bytes()", "open(path)", "self.log.open('rb')", "np.load(path)", "gzip.decompress(data)"]
)
def test_a_new_reader_would_be_seen(line: str) -> None:
    assert list(calls(ast.parse(line)))
    assert not list(calls(ast.parse("archive.open(name); read_bytes(path, most=5); text.decode()")))
