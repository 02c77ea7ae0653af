"""The benchmarks run, and what they found becomes a table and a page; how long anything took is not looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measure import Curve, Report, Row, compare
from benchmarks.page import Measured, as_table, write_page

ROOT = Path(__file__).parents[2]
ROW = Row(
    work="a loss",
    peer="as usually written",
    peer_seconds=0.3,
    seconds=0.02,
    limit="reading once",
    limit_seconds=0.005,
    goal=">= 10x",
    note="on fewer entries",
)


def test_table_says_ratio_and_share_of_the_limit() -> None:
    table = as_table({"losses": Report(rows=(ROW,))})
    header, _, line, _, note = table.splitlines()
    assert header.split()[:2] == ["work", "peer"]
    assert note == "[1] on fewer entries"
    for cell in ("a loss [1]", "as usually written", "300 ms", "20 ms", "15", ">= 10x", "5 ms (reading once)", "25%"):
        assert cell in line


def test_page_shows_rows_notes_facts_and_plots(tmp_path: Path) -> None:
    series: dict[str, tuple[float, ...]] = {"ours": (0.1, 0.9)}
    curve = Curve(title="Loss over anchors", x="anchors", xs=(1.0, 10.0), series=series, note="one thread")
    report = Report(rows=(ROW,), curves=(curve,), facts={"memory": 1.02, "compiler": "not there"})
    measured = Measured(device="CPU X", versions={"torch": "2"}, day="2026-01-01", reports={"losses": report})
    write_page(tmp_path / "docs" / "speed.md", measured)
    page = (tmp_path / "docs" / "speed.md").read_text()
    for text in ("on CPU X (torch 2), 2026-01-01", "results/cpu-x.json", "| a loss", "on fewer entries"):
        assert text in page
    assert "- memory: 1.02\n- compiler: not there" in page
    assert "![Loss over anchors](speed/loss-over-anchors.png)" in page
    assert (tmp_path / "docs" / "speed" / "loss-over-anchors.png").read_bytes().startswith(b"\x89PNG")


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    found = compare({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)  # type: ignore[misc]
    assert "".join(calls) == "ab" * 4  # one round warms up
    assert found.keys() == {"a", "b"}


def test_an_unknown_module_is_refused_with_the_known_ones() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "speed"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown: speed. Known: losses, pairs, data" in done.stderr


@pytest.mark.slow
def test_every_benchmark_runs_on_small_sizes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    works = (
        "DR loss, forward and backward",
        "all pairs, logistic",
        "COCO index",
        "score ",
        "training step",
        "harness table",
    )
    for work in works:
        assert f"\n{work}" in done.stdout
    assert "64 a process, two processes" in done.stdout or len(os.sched_getaffinity(0)) < 2
