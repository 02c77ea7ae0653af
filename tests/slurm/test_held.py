"""Runs that are held in the queue: found by any of their names, cancelled at once, and never submitted twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.slurm.submissions import read_submissions
from support.own_data import own_data
from support.slurm.stand_in import StandIn, stand_in
from support.workplace import Workplace, make_workplace
from tests.slurm.jobs import ROW, runs_of, squeue, wait_until, wait_until_queue_is_empty

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

PROGRAMS = ("sbatch", "squeue", "sacct", "scancel")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, StandIn]:
    """Slurm's programs, whose calls are counted."""
    found = {name: stand_in(tmp_path / "programs", name) for name in PROGRAMS}
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}")
    return found


def pending(place: Workplace) -> list[str]:
    """The elements in the queue that are this place's."""
    ours = {str(item.job_id) for item in read_submissions(runs_of(place))}
    return [line for line in squeue("-r", "-t", "PENDING", "-o", "%A %i") if line.split()[0] in ours]


def test_held_runs_of_any_seed_and_option_are_found_and_cancelled(
    tmp_path: Path, holding_file: Path, programs: dict[str, StandIn]
) -> None:
    place = make_workplace(tmp_path, iterations=8)
    root = own_data(tmp_path / "mine", splits=("train2017", "val2017"))
    cluster = ("--cluster", str(holding_file))
    groups = {
        "seeds": (*ROW[1:], "--seeds", "13"),
        "set": (*ROW[1:], "--set", "optimizer.lr=0.005"),
        "data": ("table3/dr", "--profile", "overfit", "--data", str(root)),
    }
    for group in groups.values():
        place.harness("run", *group, *cluster)
        assert "Nothing was submitted." in place.harness("run", *group, *cluster)
    assert len(pending(place)) == 15
    for profile, count in (("tiny", 14), ("overfit", 1)):
        assert place.harness("status", "--profile", profile).count("held") >= count
    for name, group in groups.items():
        assert "held" in place.harness("status", *group), name
    assert "held" in place.harness("status", *ROW[1:], "--seeds", "13")
    before = programs["scancel"].count()
    for words in (ROW[1:], groups["set"], groups["data"]):
        place.harness("cancel", *words)
    assert pending(place) == []
    assert programs["scancel"].count() - before <= 3
    said = place.harness("status", *groups["set"])
    assert "cancelled" in said
    assert "--cluster" in said  # the next command is complete
    assert "optimizer.lr=0.005" in said


def test_a_thousand_held_runs_take_few_calls(
    tmp_path: Path, holding_file: Path, programs: dict[str, StandIn], capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_workplace(tmp_path, iterations=8)
    command = (*ROW, "--seeds", "1000", "--cluster", str(holding_file))
    seconds = {}
    for name, words in (
        ("submitting", command),
        ("status", ("status", *ROW[1:], "--seeds", "1000")),
        ("again", command),
        ("cancel", ("cancel", *ROW[1:])),
    ):
        calls, began = {name: made.count() for name, made in programs.items()}, time.monotonic()
        said = place.harness(*words)
        seconds[name] = time.monotonic() - began
        calls = {name: made.count() - calls[name] for name, made in programs.items()}
        if name == "submitting":
            assert calls["sbatch"] == 1  # MaxArraySize is 1,001
            assert len(pending(place)) == 1000
        elif name == "status":
            assert said.count("held") >= 1000
            assert calls["squeue"] + calls["sacct"] <= 2
        elif name == "again":
            assert calls["sbatch"] == 0
            assert "Nothing was submitted." in said
        else:
            assert calls["scancel"] <= 3
            assert pending(place) == []
    with capsys.disabled():
        print("\n1,000 held runs: " + ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()))


def test_a_watch_goes_on_while_the_queue_does_not_answer_and_asks_it_seldom(
    tmp_path: Path, holding_file: Path, programs: dict[str, StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_workplace(tmp_path, iterations=8)
    place.harness(*ROW, "--cluster", str(holding_file))
    monkeypatch.setenv("HARNESS_QUEUE_SECONDS", "4")
    squeue_calls = programs["squeue"]
    before, began = squeue_calls.count(), time.monotonic()
    outputs = [tmp_path / f"watch-{number}.txt" for number in range(2)]
    watchers = [watch(place, output) for output in outputs]
    try:
        wait_until(lambda: all("held" in output.read_text() for output in outputs), place)
        squeue_calls.fails.touch()
        wait_until(lambda: squeue_calls.count() - before >= 3, place)
        wait_until(lambda: all("Unable to contact" in output.read_text() for output in outputs), place)
        squeue_calls.fails.unlink()
        wait_until(lambda: all(output.read_text().count("held") >= 2 for output in outputs), place)
        assert [process.poll() for process in watchers] == [None, None]
        # Two watchers, and about one call in the time that an answer is used.
        assert squeue_calls.count() - before <= 2 + (time.monotonic() - began) / 4
    finally:
        for process in watchers:
            os.killpg(process.pid, signal.SIGINT)
    assert [process.wait(60) for process in watchers] == [130, 130]
    subprocess.run(["scancel", *[line.split()[0] for line in pending(place)]], check=True)
    wait_until_queue_is_empty(place)


def watch(place: Workplace, output: Path) -> subprocess.Popen[bytes]:
    """``harness status --watch``, printing into a file."""
    with open(output, "wb") as file:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "harness.cli", "status", *ROW[1:], "--watch"],
            env=place.environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
