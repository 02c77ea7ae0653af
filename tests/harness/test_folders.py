"""Folders that environment variables name: what is no folder is told, with the variable."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from detector.errors import RegistryError, UsageError
from harness.folders import named_folder
from harness.registry.load import Registry
from harness.registry.resolve import recipe
from tests.command import error

VARIABLES = ("HARNESS_RUNS", "HARNESS_RESULTS", "HARNESS_EXPERIMENTS", "HARNESS_CLUSTERS", "HARNESS_DATA")
COMMANDS = {
    "HARNESS_CLUSTERS": ("run", "table2/L6", "--profile", "tiny", "--cluster", "mine"),
    "HARNESS_DATA": ("plan", "table2/L6", "--profile", "smoke"),
}


@pytest.mark.usefixtures("empty_folders")
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("kind", ["file", "loop", "dangling", "below a file", "too long", "device"])
def test_a_variable_that_names_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str
) -> None:
    path = tmp_path / "place"
    if kind in ("file", "below a file"):
        path.touch()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    named = {"below a file": path / "x", "too long": tmp_path / ("x" * 300), "device": Path("/dev/null")}
    monkeypatch.setenv(variable, str(named.get(kind, path)))
    message = error(*COMMANDS.get(variable, ("table", "table2", "--profile", "tiny")))
    assert message.startswith(f"{variable} names {named.get(kind, path)}, which ")


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a test may run as root, who may read all
    with pytest.raises(UsageError, match=r"HARNESS_RUNS names .*, which you may not read"):
        named_folder("HARNESS_RUNS")


def test_a_folder_that_is_not_there_yet_and_an_empty_variable_are_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "new"))
    assert named_folder("HARNESS_RUNS") == tmp_path / "new"
    monkeypatch.setenv("HARNESS_RUNS", "")
    assert named_folder("HARNESS_RUNS") is None


@pytest.mark.usefixtures("empty_folders")
def test_an_empty_folder_of_experiments_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path / "mine"))
    assert re.match(r"HARNESS_EXPERIMENTS names .*/mine, which has no experiments", error("table", "table2"))


@pytest.mark.parametrize("length", [1, 3, 2000])
def test_recipes_that_extend_one_another_in_a_circle_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for i in range(length):
        text = f"name: r{i}\ntitle: x\nextends: r{(i + 1) % length}\nsettings: {{}}\nsources: {{}}\n"
        (folder / f"r{i}.yaml").write_text(text)
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path))
    with pytest.raises(RegistryError, match=rf"r{length - 1}\.yaml:3: the recipes extend one another in a circle"):
        recipe(Registry(), "r0")
