"""Folders with experiments of one's own, as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ROWS = """\
rows:
  - id: low
    cells: ["0.3"]
    recipe: dr-r50-1x
    set: {loss.margin: 0.3}
  - id: high
    cells: ["0.7"]
    recipe: dr-r50-1x
    set: {loss.margin: 0.7}
"""
CLAIM = """\
claims:
  - id: low-is-worse
    text: "A margin of 0.3 costs AP."
    where: "my notes"
    metric: AP
    kind: greater
    contrasts: [{a: table3/dr, b: table5/low}]
    decidable_in: [tiny]
"""
RECIPE = """\
name: mine
title: the DR loss with another margin
extends: dr-r50-1x
settings: {loss: {margin: 0.4}}
sources: {ours: [loss.margin]}
"""


def write_own(folder: Path, file: str) -> Path:
    """Put one valid file into a folder; returns the folder."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if file == "claims.yaml":
        path.write_text(CLAIM)
    elif file.startswith("recipes/"):
        path.write_text(RECIPE)
    elif file.startswith("profiles/"):
        tiny = (PROJECT / "experiments" / "profiles" / "tiny.yaml").read_text()
        path.write_text(tiny.replace("name: tiny", f"name: {path.stem}"))
    else:
        column = "Ablation" if path.stem == "ablations" else "Margin"
        path.write_text(f"id: {path.stem}\ntitle: Margins\nsplit: minival\ncolumns: [{column}]\n{ROWS}")
    return folder


def own_folder(folder: Path, table: str) -> Path:
    """A folder with nothing but one table."""
    return write_own(folder, f"{table}.yaml")


def set_folders(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Name them in HARNESS_EXPERIMENTS."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", os.pathsep.join(map(str, folders)))
