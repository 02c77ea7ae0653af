"""Processes that hang: the batch script ends their step, keeps their stacks, and queues the job again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.hang import hang
from support.workplace import Workplace, make_workplace
from tests.slurm.jobs import (
    ROW,
    Undisturbed,
    assert_as_undisturbed,
    cluster_text,
    log_of,
    runs_of,
    said_by_jobs,
    show,
    the_submission,
    trained,
    wait_for_checkpoint,
    wait_until,
    wait_until_queue_is_empty,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

# Under it even the imports of a busy machine do not look like a hang.
SILENCE_SECONDS = "15"


def test_a_rank_that_hangs_is_ended_with_its_stack_in_the_log_and_the_run_goes_on(
    undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 of the first run of an array, rank 1 of the second."""
    monkeypatch.setenv("HARNESS_SILENCE_SECONDS", SILENCE_SECONDS)
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--seeds", "2", "--cluster", str(cluster_file))
    entry = the_submission(place)
    waiting = dict(enumerate(entry.runs))
    while waiting:
        wait_until(lambda: any(is_under_way(place, name) for name in waiting.values()), place, every=0.02)
        for index in [index for index, name in waiting.items() if is_under_way(place, name)]:
            hang(words, rank=index, index=index)
            del waiting[index]
    wait_until(lambda: not list(words.glob("hang-*")), place)  # taken
    wait_until_queue_is_empty(place)
    for run in trained(place):
        log, rank = log_of(run), entry.runs.index(run.root.name)
        assert re.search(r"no progress for \d+ min \d+ s; the stacks of its processes follow", log), log
        assert re.search(rf"rank {rank}:\n(?s:.)*sitecustomize.*wait_and_hang", log), log
        assert re.search(r"retry 1 of at most 3 from here; queued again \(1 of", log), log
        assert_as_undisturbed(run, place, undisturbed)
    assert len(trained(place)) == 2, said_by_jobs(place)


def is_under_way(place: Workplace, name: str) -> bool:
    """Whether the first iterations, which take longer than the others, no longer count in the run's pace."""
    found = (runs_of(place) / name / "checkpoints").glob("0*.pt")
    return max((int(path.stem) for path in found), default=0) >= 30


def test_a_time_limit_that_comes_while_no_process_hears_is_queued_again(
    undisturbed: Undisturbed, tmp_path: Path, words: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    given = tmp_path / "short.yaml"
    # Two minutes: on a slow machine a start alone takes one.
    given.write_text(cluster_text("short", time_minutes="2", signal_delay_seconds="5"))
    place.harness(*ROW, "--cluster", str(given))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    taken = hang(words, rank=1)
    wait_until(lambda: not taken.exists(), place)
    wait_until_queue_is_empty(place)
    assert int(show(entry.job_id)["Restarts"]) >= 1  # a busy machine needs more of these short jobs
    log = log_of(run)
    assert re.search(r"the time limit was there before the run had stopped; queued again \(1 of", log), log
    assert_as_undisturbed(run, place, undisturbed)
