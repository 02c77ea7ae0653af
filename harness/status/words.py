"""The state of a run as a person reads it: one line, and lines below it."""

from __future__ import annotations

import textwrap

from detector.runs.timing import timing_text
from detector.storage.shown import one_line
from harness.status.kinds import STALE_SECONDS, RunState
from harness.status.reasons import reason_text
from harness.units import duration

MESSAGE_WIDTH = 90
NOTE_WIDTH = 76
RESUMES = "resumes with the same command"
LAST_SEEN = "Last seen: "  # before what a queue said that does not answer now
OLD_SECONDS = 60.0  # an answer of the queue that is older is shown with its age


def state_text(state: RunState) -> str:
    """The state as one line, whatever a run or the scheduler said."""
    return one_line(_state_text(state))


def _state_text(state: RunState) -> str:
    suffix = f", requeued {state.requeues}x" if state.requeues and state.kind != "requeued" else ""
    if state.user:
        suffix += f", by {state.user}"
    if state.asked is not None and state.asked >= OLD_SECONDS and state.kind != "refused":
        suffix += f", as of {duration(state.asked)} ago"
    return _describe(state, duration(state.age) if state.age is not None else "?") + suffix


def _describe(state: RunState, age: str) -> str:
    said = f"{state.message}; " if state.message else ""
    match state.kind:
        case "done":
            ap = f"AP {state.ap:.1f}" if state.ap is not None else "AP -"
            return f"done ({ap}{f'; {state.message}' if state.message else ''})"
        case "pending" | "requeued" | "held":
            return _describe_queued(state)
        case "waiting":
            return f"{state.message}{_doubt(state, age)}"
        case "starting" | "running" | "evaluating":
            return _describe_living(state, age)
        case "no progress":
            return f"no progress for {long_time(state.silent or 0.0)}{_where(state)}{_doubt(state, age)}"
        case "stopped" | "cancelled" | "preempted":
            return f"{state.kind} ({said}{RESUMES})"
        case "failed":
            return f"failed ({state.failure}): {_short(state.message) or 'without a word'}"
        case "refused" | "died before start":
            return f"{state.kind}: {_short(state.message) or 'without a word'}"
        case "lost":
            return f"lost: gone from the queue{f' ({state.message})' if state.message else ''}; {RESUMES}"
        case "lost?":
            perhaps = f" (perhaps: {state.failure})" if state.failure else ""
            return f"lost? no word for {age}, no process here{perhaps}; if it runs nowhere else: {RESUMES}"
        case "unknown":
            return f"unknown ({_last_known(state, age)}{_short(_why_unknown(state)[0])})"
        case _:
            return f"{state.kind}{_percent(state)}"


def _describe_queued(state: RunState) -> str:
    named = f"requeued {state.requeues}x" if state.kind == "requeued" else state.kind
    at = f" at {state.progress:.0%}" if state.progress else ""
    release = f"; scontrol release {state.job}" if state.kind == "held" and state.job else ""
    return f"{named}{at} ({reason_text(state.message) or 'no reason yet'}{release})"


def _describe_living(state: RunState, age: str) -> str:
    doubt = _doubt(state, age)
    if state.kind == "starting" or state.progress is None:
        return f"starting{doubt}"
    if state.kind == "evaluating":
        return f"evaluating {state.progress:.0%}{doubt}"
    eta = duration(state.eta) if state.eta is not None else "?"
    so_far = f", AP so far {state.ap:.1f}" if state.ap is not None else ""
    return f"running {state.progress:.0%}, ETA {eta}{so_far}{doubt}"


def _where(state: RunState) -> str:
    """Where a run without progress is."""
    if state.last == "waiting":
        return f", {state.message}"
    if state.last == "starting":
        return " since its start"
    return f", evaluating{_percent(state)}" if state.last == "evaluating" else f" at{_percent(state)}"


def _last_known(state: RunState, age: str) -> str:
    """What a run's heartbeat said last, and what its queue did."""
    heard = f"last: {state.last}{_percent(state)}, {age} ago; " if state.last else ""
    seen = _why_unknown(state)[1]
    return f"{heard}in the queue: {seen}; " if seen else heard


def _why_unknown(state: RunState) -> tuple[str, str]:
    """Why a state is not known, and what the queue said last, if it ever did."""
    why, _, seen = state.message.partition(LAST_SEEN)
    return why.strip().rstrip(".") or "its queue does not answer", seen.strip().rstrip(".")


def _percent(state: RunState) -> str:
    return f" {state.progress:.0%}" if state.progress else ""


def _doubt(state: RunState, age: str) -> str:
    """What speaks against a run being alive, for the end of its line."""
    if not state.here:
        return ", just launched" if state.age is None else f", last word {age} ago, no process here"
    old = state.age is not None and state.age >= STALE_SECONDS and state.kind != "no progress"
    return f", but no word for {age}" if old else ""


def _short(message: str) -> str:
    line = next(iter(message.splitlines()), "")
    return line if len(line) <= MESSAGE_WIDTH else f"{line[: MESSAGE_WIDTH - 3]}..."


def long_time(seconds: float) -> str:
    """Some minutes or hours, in one number."""
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"


def timing_lines(state: RunState) -> list[str]:
    """Where the time of a training goes, and why it waits for its data or its disk; nothing of other states."""
    if state.kind == "waiting":
        return [one_line(f"note: {state.note}")] if state.note else []
    if state.seconds_per_iteration is None or state.kind == "no progress":
        return []
    timing = timing_text(state.seconds_per_iteration, state.data_share, state.device_busy)
    return [timing, *textwrap.wrap(f"note: {state.note}" if state.note else "", NOTE_WIDTH)]


def health_lines(state: RunState) -> list[str]:
    """What is wrong with a training although no step failed."""
    return [line for text in state.health for line in textwrap.wrap(f"health: {text}", NOTE_WIDTH)]
