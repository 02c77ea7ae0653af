"""How a training was executed, start by start, and what that means for its bits. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import convert

from detector.runs.provenance import Start

UNKNOWN = "unknown"  # what the starts of older checkpoints did not note
# Of the environment, what decides how pixels are made and sums are rounded; the driver and Python do not.
ROUNDING = ("torch", "numpy", "pillow", "numba", "triton", "cudnn", "cpu_capability", "matmul_precision", "device")
MOST_STARTS = 8  # in a record


def execution_notes(starts: Sequence[Start]) -> tuple[str, ...]:
    """A record's notes on a training that does not repeat to the last bit, or was resumed under other conditions."""
    ways: list[Start] = []
    for start in starts:
        if all(changes(way, start) for way in ways):
            ways.append(start)
    changed = list(dict.fromkeys(name for way in ways[1:] for name in changes(ways[0], way)))
    words = ", then ".join(described(way, changed) for way in ways)
    notes = _code_notes(starts)
    if len(ways) > 1:
        notes += [f"resumed in another way ({words}): equal to an undisturbed run up to float rounding only"]
    elif not all(is_repeatable(way) for way in ways):
        notes += [f"{words}: equal to other runs up to float rounding only"]
    if len(starts) > MOST_STARTS:
        notes += [f"started {len(starts)} times, of which the first and the last are listed"]
    return tuple(notes)


def changes(before: Start, after: Start) -> list[str]:
    """Names of the conditions in which two starts differ and on which bits depend; what one does not know is none."""
    first, second = _conditions(before), _conditions(after)
    return [name for name, value in first.items() if name in second and second[name] != value]


def described(start: Start, changed: Sequence[str] = ()) -> str:
    """``1 processes of 2 threads on NVIDIA H100``, and the values of the other conditions that are in ``changed``."""
    on = f" on {gpu_of(start)}" if gpu_of(start) else ""
    extra = f"{', compiled' if start.compiled else ''}{', deterministic' if start.deterministic else ''}"
    conditions = _conditions(start)
    more = {
        "groups_per_forward": f", {start.groups_per_forward} groups per forward pass",
        "precision": f", {start.precision}",
        **{name: f", {name.replace('_', ' ')} {conditions.get(name, UNKNOWN)}" for name in ROUNDING},
    }
    if gpu_of(start):
        more.pop("device")  # said already
    told = "".join(text for name, text in more.items() if name in changed)
    return f"{start.processes} processes of {start.threads} threads{on}{extra}{told}"


def gpu_of(start: Start) -> str:
    """Its name; empty on a CPU."""
    kind, _, name = start.environment.get("device", "").partition(" ")
    return name.strip("()") if kind == "cuda" else ""


def is_repeatable(start: Start) -> bool:
    """Whether the same training under these conditions gives the same bits."""
    return not start.compiled and (not gpu_of(start) or start.deterministic)


def starts_of(state: Mapping[str, Any], precision: str) -> list[Start]:
    """The starts in a checkpoint or in final weights; of an older one, what it knows of them."""
    known = state["starts"] if "starts" in state else [_from_list(way, precision) for way in state["executions"]]
    return convert(known, list[Start])


def recorded_starts(starts: Sequence[Start]) -> tuple[Start, ...]:
    """Those that a record lists: of very many, the first and the last."""
    half = MOST_STARTS // 2
    return tuple(starts) if len(starts) <= MOST_STARTS else (*starts[:half], *starts[-half:])


def _conditions(start: Start) -> dict[str, Any]:
    """What is known of everything that the rounding of sums depends on."""
    known: dict[str, Any] = {
        "processes": start.processes,
        "threads": start.threads,
        "precision": start.precision,
        "compiled": start.compiled,
        "deterministic": start.deterministic,
        "gpu": gpu_of(start),
    }
    if start.time != UNKNOWN:
        known["groups_per_forward"] = start.groups_per_forward
    return known | {name: start.environment[name] for name in ROUNDING if name in start.environment}


def _code_notes(starts: Sequence[Start]) -> list[str]:
    """That a training was begun by one state of the code and ended by another."""
    codes = [start.code for start in starts if start.code.commit is not None]
    versions = list(dict.fromkeys((code.commit, code.diff_sha256) for code in codes))
    if len(versions) < 2:
        return []
    words = ", then ".join(_code_text(commit, diff) for commit, diff in versions)
    return [f"resumed with other code ({words}): whether it computes the same is not known"]


def _code_text(commit: str | None, diff: str | None) -> str:
    return f"{str(commit)[:8]}{f' with changes {diff[:8]}' if diff else ''}"


def _from_list(way: Sequence[Any], precision: str) -> dict[str, Any]:
    """A start as older checkpoints have it: processes, threads, compiled, name of the GPU, deterministic."""
    whole = [*way, *(False, "", False)[len(way) - 2 :]]
    gpu = whole[3]
    return {
        "time": UNKNOWN,
        "code": {"version": UNKNOWN, "commit": None, "modified": None},
        "environment": {"device": f"cuda ({gpu})"} if gpu else {},
        "processes": whole[0],
        "threads": whole[1],
        "precision": precision,
        "compiled": whole[2],
        "deterministic": whole[4],
    }
