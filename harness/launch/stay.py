"""``harness run --cluster NAME --stay``: what was held back or lost is submitted again, until all runs have ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from detector.errors import SchedulerError
from harness.launch.local import Failure
from harness.launch.submit import submission_lines
from harness.planning.plan import Plan
from harness.slurm.arrays import Work
from harness.slurm.clusters import Cluster
from harness.slurm.submit import Outcome, submit
from harness.status.kinds import LIVING, Kind, RunState
from harness.status.observe import states_of
from harness.status.words import state_text
from harness.store.records import Store

POLL_SECONDS = 60.0
# States of runs that are to be submitted: held back before, or ended although nobody asked for it.
AGAIN: tuple[Kind, ...] = ("not started", "preempted", "lost", "lost?")
MOST_TIMES = 4  # that one run is submitted, at most: what is lost again and again needs a person


def stay(
    work: Work,
    clusters: Sequence[Cluster],
    first: Outcome,
    planned: Plan,
    store: Store,
    say: Callable[[str], None],
    *,
    names: Mapping[str, str],
    pause: Callable[[float], None] = time.sleep,
) -> list[Failure]:
    """Wait until no run of ``work`` lives or can be submitted; those that have no record then.

    first: of the submission so far. names: what a person calls each run. say: told of each submission and each end. A
    queue that does not answer is waited for. KeyboardInterrupt passes on: the jobs stay in the queue.
    """
    wanted = [item.train.id for item in work.assignments]
    times = Counter(run for entry, _ in first.submitted for run in entry.runs)
    for line in submission_lines(first, names):
        say(line)
    told, refused = dict[str, str](), ""
    say(f"Staying until all have ended (a look every {POLL_SECONDS:.0f} s). Ctrl-C ends this command, not the jobs.")
    while True:
        pause(POLL_SECONDS)
        states = {run: state for run, state in states_of(planned, store).items() if run in wanted}
        for run, state in states.items():
            if state.kind in LIVING:
                told.pop(run, None)  # its next end is told too
            elif state.kind != "not started" and told.get(run) != state.kind:
                told[run] = state.kind
                say(f"{names[run]}: {state_text(state)}")
        again = [run for run, state in states.items() if state.kind in AGAIN and times[run] < MOST_TIMES]
        if not again and not any(state.kind in (*LIVING, "unknown") for state in states.values()):
            return _without_record(states, store)
        if again:
            some = replace(work, assignments=tuple(item for item in work.assignments if item.train.id in again))
            try:
                outcome = submit(some, clusters)
            except SchedulerError as error:
                if str(error) != refused:
                    say(f"Not submitted now: {error}")
                refused = str(error)
                continue
            refused = ""
            times.update(run for entry, _ in outcome.submitted for run in entry.runs)
            if outcome.submitted:
                for line in submission_lines(replace(outcome, skipped={}), names):
                    say(line)


def _without_record(states: Mapping[str, RunState], store: Store) -> list[Failure]:
    left = {run: state for run, state in states.items() if state.kind != "done"}
    return [
        Failure(
            run, state.message or state.kind, store.run_dir(run).log, stopped=state.kind in ("stopped", "cancelled")
        )
        for run, state in left.items()
    ]
