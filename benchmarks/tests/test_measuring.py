"""The benchmarks run, and what they found becomes a table and a page; how long anything took is not looked at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
import yaml
from msgspec.structs import replace

from benchmarks.gpu.step import Execution, speed_of
from benchmarks.measure import Curve, Goal, Report, Row, compare
from benchmarks.page import Measured, as_table, kept, slug, write_page
from detector.storage.files import write_json
from harness.folders import experiments_folder
from harness.planning.speeds import add_speed
from harness.registry.load import Registry
from harness.registry.speeds import SpeedsFile

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
    measured = Measured(device="cpu X", versions={"torch": "2"}, day="2026-01-01", reports={"losses": report})
    write_page(tmp_path / "docs" / "speed.md", [measured])
    page = (tmp_path / "docs" / "speed.md").read_text()
    for text in (
        *("## cpu X", "Measured 2026-01-01 (torch 2)", "/cpu-x.json", "| a loss", "on fewer entries"),
        "No GPU has been measured with this version",
    ):
        assert text in page
    assert "- memory: 1.02\n- compiler: not there" in page
    assert "![Loss over anchors](speed/loss-over-anchors.png)" in page
    assert (tmp_path / "docs" / "speed" / "loss-over-anchors.png").read_bytes().startswith(b"\x89PNG")


def test_page_shows_all_devices_and_what_several_did_side_by_side(tmp_path: Path) -> None:
    curve = Curve(title="Loss over anchors", x="anchors", xs=(1.0, 10.0), series={"ours": (0.1, 0.9)})
    goals = (
        Goal(what="DR loss", value=75.0, unit="% of the limit", goal=80, at_least=True),
        Goal(what="a step", value=58.0, unit="ms", goal=60),
    )
    reports = {
        "cpu X": Report(rows=(replace(ROW, work="a loss, 2 images, one thread"), ROW)),
        "NVIDIA Y": Report(
            rows=(replace(ROW, work="a loss, 2 images, NVIDIA Y", seconds=0.002),), goals=goals, curves=(curve,)
        ),
    }
    for device, report in reports.items():
        measured = Measured(device=device, versions={}, day="2026-01-01", reports={"losses": report})
        write_json(tmp_path / "results" / f"{slug(device)}.json", measured)
    write_json(tmp_path / "results" / "another.json", [1])
    devices = kept(tmp_path / "results")
    assert [measured.device for measured in devices] == ["cpu X", "NVIDIA Y"]
    write_page(tmp_path / "speed.md", devices)
    page = (tmp_path / "speed.md").read_text()
    assert "No GPU has been measured" not in page
    assert re.search(r"\| a loss, 2 images +\| 20 ms +\| 2 ms +\|", page)
    assert re.search(r"\| DR loss +\| 75 % of the limit +\| >= 80 % of the limit +\| not reached +\|", page)
    assert re.search(r"\| a step +\| 58 ms +\| <= 60 ms +\| reached +\|", page)
    assert "![Loss over anchors](speed/nvidia-y/loss-over-anchors.png)" in page
    assert (tmp_path / "speed" / "nvidia-y" / "loss-over-anchors.png").exists()


def test_measured_speeds_take_the_place_of_lines_of_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    file = tmp_path / "speeds.yaml"
    file.write_text((experiments_folder() / "speeds.yaml").read_text())
    before = Registry().speeds
    known, new = (speed_of(Execution("bf16", groups), replace(ROW, seconds=0.0123), 16, 800) for groups in (8, 4))
    assert any(speed.key == known.key for speed in before.speeds)
    add_speed(file, known, new)
    found = msgspec.convert(yaml.safe_load(file.read_text()), SpeedsFile)
    assert found == before.merged(SpeedsFile(speeds=(known, new)))


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
        "training step, focal loss",
        "training step, DR loss",
        "training iteration, DR loss",
        "All pairs, logistic",
        "harness table",
    )
    for work in works:
        assert f"\n{work}" in done.stdout
    assert "64 a process, two processes" in done.stdout or len(os.sched_getaffinity(0)) < 2
