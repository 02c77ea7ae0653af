"""A trained row of Table 4 and the commands between it and the evaluation server."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from detector.data.shapes.generate import shapes_folder_name
from detector.runs.job import EvalJob
from support.micro import micro_job
from support.workplace import Workplace, make_workplace
from tests.answers import TEST_DEV
from tests.command import error, invoke

ROW = "table4/dr-r101"


def train_row(folder: Path) -> Workplace:
    """One row of Table 4 trained, at a scale that may stand against the paper; test-dev is val2017 without labels."""
    place = make_workplace(folder, iterations=8)
    path = place.root / "experiments" / "profiles" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"compare_with_paper": True}))
    place.harness("run", ROW, "--profile", "tiny")
    root = data_root(place)
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    del content["annotations"]
    (root / "annotations" / f"image_info_{TEST_DEV}.json").write_text(json.dumps(content))
    shutil.copytree(root / "val2017", root / "test2017")
    return place


@contextlib.contextmanager
def copy_of(trained: Workplace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """A copy of a workplace, which the command in this process works in; no unfinished file may be left there."""
    place = Workplace(Path(shutil.copytree(trained.root, folder / "place")))
    for name, value in place.environment.items():
        if name.startswith("HARNESS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    before = files(place)
    yield place
    left = [path for path in files(place) - before if path.suffix == ".tmp"]
    assert not left, left


def data_root(place: Workplace) -> Path:
    return place.root / "runs" / "data" / shapes_folder_name(job(place).train.data)  # type: ignore[arg-type]


def job(place: Workplace, ref: str = ROW) -> EvalJob:
    return replace(micro_job(place.root / "experiments", ref), split=TEST_DEV)


def files(place: Workplace) -> set[Path]:
    return {path for path in place.root.rglob("*") if path.is_file()}


def run(*arguments: str) -> str:
    """The command: its standard output and error."""
    return invoke(*arguments, "--profile", "tiny").output


def refused(place: Workplace, *arguments: str) -> str:
    """The message of a command that must refuse, having written nothing."""
    before = files(place)
    message = error(*arguments, "--profile", "tiny")
    assert files(place) == before, files(place) ^ before
    return message


def answer(place: Workplace, text: str) -> tuple[str, str]:
    """The options that name a file with that text."""
    path = place.root / "answer.txt"
    path.write_text(text)
    return "--from-server", str(path)


def row_of_table(place: Workplace) -> dict[str, Any]:
    (table,) = json.loads(run("table", ROW, "--json"))
    (row,) = table["rows"]
    return row
