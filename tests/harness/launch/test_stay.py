"""``--stay``, with stand-ins for the queue and for submitting: what is submitted again, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from detector.errors import SchedulerError
from detector.runs.job import EvalJob
from harness.launch import stay as module
from harness.launch.local import Failure
from harness.launch.stay import MOST_TIMES, POLL_SECONDS, stay
from harness.slurm.arrays import Site, Work, plan_arrays
from harness.slurm.backend.slurm import Slurm
from harness.slurm.clusters import Cluster
from harness.slurm.submissions import Submission
from harness.slurm.submit import Outcome
from harness.status.kinds import Kind, RunState
from harness.store.records import Store
from tests.slurm_work import cluster, run, work


@dataclass
class Queue:
    """Stands in for the states and for submitting. looks: the kinds of the runs, one list for each look."""

    work: Work
    looks: list[list[Kind | RunState]]
    submitted: list[list[int]] = field(default_factory=list)
    outcomes: list[Outcome | str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [item.train.id for item in self.work.assignments]

    def states(self, planned: object, store: Store) -> Mapping[str, RunState]:
        seen = [state if isinstance(state, RunState) else RunState(state) for state in self.looks.pop(0)]
        return {**dict(zip(self.ids, seen, strict=True)), "of another target": RunState("running")}

    def submit(self, some: Work, clusters: Sequence[Cluster]) -> Outcome:
        self.submitted.append([item.train.seed for item in some.assignments])
        outcome = self.outcomes.pop(0) if self.outcomes else taken(some)
        if isinstance(outcome, str):
            raise SchedulerError(outcome)
        return outcome

    def stay(self, first: Outcome) -> list[Failure]:
        return stay(
            self.work,
            [cluster()],
            first,
            None,  # type: ignore[arg-type]
            Store(runs=self.work.runs, results=self.work.runs),
            self.said.append,
            names={train_id: f"run {index}" for index, train_id in enumerate(self.ids)},
            pause=self.pauses.append,
        )


def taken(some: Work, job: str = "18", **changes: Any) -> Outcome:
    """What ``submit`` says of work that Slurm took whole."""
    arrays = plan_arrays(some.assignments, some, [Site(cluster(), Slurm())], code="0").arrays
    entries = [
        Submission(
            token=array.token,
            cluster="c",
            runs=tuple(item.train.id for item in array.members),
            time=0.0,
            code="0",
            state="submitted",
            job_id=job,
        )
        for array in arrays
    ]
    return replace(Outcome(tuple(zip(entries, arrays, strict=True)), {}, ()), **changes)


@pytest.fixture
def queue(job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(2)), runs=tmp_path)
    found = Queue(wanted, [])
    monkeypatch.setattr(module, "states_of", found.states)
    monkeypatch.setattr(module, "submit", found.submit)
    return found


def only(wanted: Work, *seeds: int) -> Work:
    return replace(wanted, assignments=tuple(item for item in wanted.assignments if item.train.seed in seeds))


def test_it_stays_until_all_have_ended_and_says_each_end_once(queue: Queue) -> None:
    failed = RunState("failed", "DataError: 17.jpg is no image", failure="data")
    queue.looks = [["pending", "running"], ["running", failed], ["running", failed], ["done", failed]]
    (failure,) = queue.stay(taken(queue.work))
    assert (failure.train_id, failure.message, failure.stopped) == (queue.ids[1], failed.message, False)
    assert queue.submitted == []
    assert queue.pauses == [POLL_SECONDS] * 4
    assert queue.said[0].startswith("Submitted job 18 (table2-2runs): 2 runs")
    assert [line for line in queue.said if line.startswith("run ")] == [
        "run 1: failed (data): DataError: 17.jpg is no image",
        "run 0: done (AP -)",
    ]


def test_what_was_held_back_is_submitted_once_there_is_room(queue: Queue) -> None:
    first = taken(only(queue.work, 0), held_back=(queue.ids[1],), why_held_back=("no room",))
    full = Outcome((), {}, (), held_back=(queue.ids[1],), why_held_back=("no room",))
    queue.outcomes = [full, taken(only(queue.work, 1), "19")]
    queue.looks = [["running", "not started"], ["done", "not started"], ["done", "running"], ["done", "done"]]
    assert queue.stay(first) == []
    assert queue.submitted == [[1], [1]]
    assert [line for line in queue.said if line.startswith(("Submitted", "Held"))] == [
        "Submitted job 18 (table2-L6-s0): 1 run, each on 1 node of 1 process.",
        "Held back: 1 run. no room.",
        "Submitted job 19 (table2-L6-s1): 1 run, each on 1 node of 1 process.",
    ]


@pytest.mark.parametrize("kind", ["lost", "lost?", "preempted"])
def test_what_ended_although_nobody_asked_for_it_is_submitted_again(queue: Queue, kind: Kind) -> None:
    queue.looks = [["running", kind], ["running", "running"], ["done", "done"]]
    assert queue.stay(taken(queue.work)) == []
    assert queue.submitted == [[1]]


@pytest.mark.parametrize("kind", ["cancelled", "stopped", "failed", "refused", "died before start"])
def test_what_was_ended_on_purpose_or_would_fail_again_is_left_alone(queue: Queue, kind: Kind) -> None:
    queue.looks = [["done", kind]]
    (failure,) = queue.stay(taken(queue.work))
    assert queue.submitted == []
    assert (failure.train_id, failure.stopped) == (queue.ids[1], kind in ("cancelled", "stopped"))


def test_what_is_lost_again_and_again_is_given_up(queue: Queue) -> None:
    queue.looks = [["done", "lost"] for _ in range(MOST_TIMES)]
    (failure,) = queue.stay(taken(queue.work))
    assert queue.submitted == [[1]] * (MOST_TIMES - 1)
    assert failure.train_id == queue.ids[1]


def test_a_run_that_is_lost_twice_is_told_twice(queue: Queue) -> None:
    queue.looks = [["done", "lost"], ["done", "running"], ["done", "lost"], ["done", "done"]]
    queue.stay(taken(queue.work))
    assert len([line for line in queue.said if line.startswith("run 1: lost")]) == 2


def test_a_queue_that_does_not_answer_is_waited_for(queue: Queue) -> None:
    queue.looks = [["unknown", "unknown"], ["unknown", "unknown"], ["done", "done"]]
    assert queue.stay(taken(queue.work)) == []
    assert queue.submitted == []


def test_a_submission_that_fails_is_tried_again_at_the_next_look(queue: Queue) -> None:
    queue.outcomes = ["squeue failed: down. Nothing was submitted.", taken(only(queue.work, 1), "19")]
    queue.looks = [["running", "lost"], ["running", "lost"], ["done", "done"]]
    assert queue.stay(taken(queue.work)) == []
    assert queue.submitted == [[1], [1]]
    assert "Not submitted now: squeue failed: down. Nothing was submitted." in queue.said


def test_the_same_refusal_is_said_once(queue: Queue) -> None:
    queue.outcomes = ["squeue failed: down."] * 3
    queue.looks = [["running", "lost"]] * 3 + [["done", "done"]]
    queue.stay(taken(queue.work))
    assert queue.said.count("Not submitted now: squeue failed: down.") == 1


def test_runs_of_other_targets_are_not_waited_for(queue: Queue) -> None:
    queue.looks = [["done", "done"]]
    assert queue.stay(taken(queue.work)) == []


def test_an_interrupt_passes_on(queue: Queue) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stay(
            queue.work,
            [cluster()],
            taken(queue.work),
            None,  # type: ignore[arg-type]
            Store(runs=queue.work.runs, results=queue.work.runs),
            queue.said.append,
            names=dict.fromkeys(queue.ids, "a run"),
            pause=interrupt,
        )
    assert "Ctrl-C ends this command, not the jobs." in queue.said[-1]
