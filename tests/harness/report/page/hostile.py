"""Records, tables, logs and images whose every text tries to become a part of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.storage.files import write_json
from harness.figures.images import pictures
from harness.planning.selection import Selection
from harness.store.records import Store
from support.records import record_of
from tests.harness.report.page.reading import image

HOSTILE = (
    "<script>alert(1)</script>\"'></style><img src=x onerror=alert(2)>\u202etxt{{ 7 * 7 }}"
    "]]>--><a href=javascript:alert(3)>"
)


def put(store: Store, ref: str = "table2/L6", *, seeds: int = 1, **changes: object) -> None:
    """Committed records of a row at the profile tiny, each seed with an AP of its own."""
    for cell in Selection(ref, "tiny", [], None).plan(seeds).cells:
        plain = record_of(cell.job)
        record = replace(plain, metrics=plain.metrics | {"AP": 20.0 + 0.1 * cell.seed}, **changes)
        write_json(store.committed(record), record)


def hostile_project(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of the user's own with a run, and a run of a row of the paper."""
    own = tmp_path / "own"
    own.mkdir()
    row = {"id": "mine", "cells": [HOSTILE], "recipe": "dr-r50-1x", "set": {"loss.surrogate.L": 5.0}}
    table = {"id": "table9", "title": HOSTILE, "split": "minival", "columns": [HOSTILE], "rows": [row]}
    (own / "table9.yaml").write_text(json.dumps(table))
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(own))
    monkeypatch.setattr(pictures, "pictures_of", lambda selection: [image(HOSTILE, alt=HOSTILE)])
    put(store, notes=(HOSTILE,), environment={"device": HOSTILE, HOSTILE: HOSTILE})
    put(store, "table9/mine", notes=(HOSTILE,))
    (cell,) = Selection("table9/mine", "tiny", [], None).plan(1).cells
    log = store.run_dir(cell.job.train.id).log
    log.parent.mkdir(parents=True)
    log.write_text(HOSTILE)
