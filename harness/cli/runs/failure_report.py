"""What ``harness run`` says about runs that failed: the class of failure, the end of the log, what to type next."""

from __future__ import annotations

from harness.failures.advice import advise
from harness.failures.classes import classify, last_error
from harness.failures.log_tail import last_lines, tail
from harness.launch.local import NOT_STARTED, Failure
from harness.planning.plan import Plan
from harness.status.find import of_plan
from harness.status.text import ArgumentsFor


def failure_lines(failures: list[Failure], planned: Plan, arguments: ArgumentsFor) -> list[str]:
    """The lines to print, run by run; first those that were only stopped."""
    known = {item.run.root.name: item for item in of_plan(planned, arguments.runs) if item.run is not None}
    stopped = [item for item in failures if item.stopped and item.message != NOT_STARTED]
    lines = [f"stopped: {known[item.train_id].name}: {item.message}" for item in stopped]
    if waiting := sum(item.message == NOT_STARTED for item in failures):
        lines.append(f"{waiting} more: {NOT_STARTED}")
    for failure in failures:
        if failure.stopped:
            continue
        text = tail(failure.log)
        name = classify(failure.message, text)
        sentence, command = advise(name, arguments.of(known[failure.train_id]))
        lines.append(f"failed: {known[failure.train_id].name}: {failure.message}")
        lines.append(f"  {name}: {sentence}")
        lines.append(f"  log: {failure.log}")
        lines += [f"    {line}" for line in last_lines(last_error(text), without=failure.message)]
        lines.append(f"  next: {command}")
    return lines
