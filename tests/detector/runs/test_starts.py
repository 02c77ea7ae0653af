"""A job whose starts get the training ahead too slowly is given up, with its numbers; no other one is."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import TrainingError
from detector.runs.folder import RunDir
from detector.runs.starts import Began, check_starts, newest_step, too_slow, won_in_time
from harness.failures.classes import classify

ADVICE = (
    "Give the job more time (time_minutes in the cluster file), let it save later (a lower signal_delay_seconds), or "
    "let it save more often (execution.checkpoint_every in the profile); then submit it again: it goes on from its "
    "checkpoint."
)


@pytest.mark.parametrize(
    ("won", "left", "starts_left", "told"),
    [
        ([], 90_000, 100, ""),
        ([0, 0], 90_000, 100, ""),  # two starts say too little
        (
            [0, 0, 0],
            90_000,
            98,
            "The last 3 starts of this job won no iteration before their time was up, and 90,000 are left",
        ),
        ([500, 0, 0, 0], 90_000, 400, "The last 3 starts of this job won no iteration before their time was up, and"),
        (
            [100, 140, 120],
            88_500,
            98,
            "The last 3 starts of this job won 120 iterations each before their time was up, so that the other "
            "88,500 take 738 more, and 98 are left (max_requeues)",
        ),
        ([100, 140, 120], 11_760, 98, ""),  # just enough
        ([100, 140, 120], 11_761, 98, "take 99 more, and 98 are left"),
        ([1, 1, 900, 900, 900, 900, 900], 88_000, 98, ""),  # of the last five
        ([900, 0, 900, 0, 900], 88_000, 98, "won 540 iterations each"),
        ([7, 7, 7], 0, 1, ""),
    ],
)
def test_whether_the_starts_so_far_are_too_slow(won: list[int], left: int, starts_left: int, told: str) -> None:
    said = too_slow(won, left=left, starts_left=starts_left)
    assert told in said
    assert bool(told) == bool(said)
    if said:
        assert said.endswith(ADVICE)
        assert classify(said) == "time"


def test_only_starts_that_the_time_limit_ended_are_counted() -> None:
    began = [Began(0, 0), Began(400, 1), Began(410, 2), Began(900, 2), Began(1300, 3)]
    # The third ended with its node: the batch script noted nothing.
    assert won_in_time(began, ["time", "preempted", "time"]) == [400, 400]
    assert won_in_time(began, []) == []
    assert won_in_time(began[:1], ["time"]) == []
    assert won_in_time([Began(400, 0), Began(200, 1)], ["time"]) == [0]  # its newest checkpoint was damaged


def test_a_job_is_given_up_at_the_start_that_shows_it_to_be_too_slow(tmp_path: Path) -> None:
    run, starts, ends = RunDir(tmp_path / "run"), tmp_path / "task-0.starts", tmp_path / "task-0.ends"
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "notes.pt").touch()

    def start(restarts: int) -> None:
        check_starts(run, starts, ends, iterations=1000, restarts=restarts, max_requeues=10)

    for number, step in enumerate((0, 20, 40)):
        if step:
            (run.checkpoints / f"{step:07d}.pt").touch()
        assert newest_step(run) == step
        start(number)
        with ends.open("a") as file:
            file.write(f"time {step + 20:07d}.pt\n")
    (run.checkpoints / "0000060.pt").touch()
    with pytest.raises(TrainingError, match=r"won 20 iterations each .* the other 940 take 47 more, and 8 are"):
        start(3)
    assert starts.read_text() == "0 0\n20 1\n40 2\n60 3\n"
    run.final.touch()  # what is left is to evaluate
    start(4)
    assert len(starts.read_text().splitlines()) == 4


def test_damaged_notes_end_no_run(tmp_path: Path) -> None:
    starts, ends = tmp_path / "task-0.starts", tmp_path / "task-0.ends"
    starts.write_bytes(b"\xff\n1\n-3 4\n5 1\n6 ")
    ends.mkdir()
    check_starts(RunDir(tmp_path), starts, ends, iterations=9, restarts=1, max_requeues=1)
    assert starts.read_bytes().endswith(b"0 0\n")
    check_starts(RunDir(tmp_path), tmp_path / "none" / "x.starts", ends, iterations=9, restarts=1, max_requeues=1)
