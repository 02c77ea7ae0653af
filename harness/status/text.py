"""The states of runs as lines of text and as data, and the next command after each class of failure."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from msgspec import to_builtins

from harness.failures.classes import CommandArguments, FailureName, advise
from harness.status.find import FoundRuns, KnownRun
from harness.status.observe import Observed
from harness.status.state import Kind, health_lines, state_text, timing_lines

NAME_WIDTH = 46


def state_lines(observed: Sequence[Observed]) -> list[str]:
    """For each run one line: its rows, seed, training id and state; below it, where the time goes and what is wrong."""
    names = [_cut(" = ".join(item.known.refs)) for item in observed]
    width = max(map(len, names), default=0)
    return [
        f"{name:{width}}  seed {item.known.seed}  {item.known.run.root.name if item.known.run else '-':16}  "
        + "\n  ".join([state_text(item.state), *timing_lines(item.state), *health_lines(item.state)])
        for name, item in zip(names, observed, strict=True)
    ]


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."


def summary_lines(observed: Sequence[Observed], found: FoundRuns, runs: Path, profile: str) -> list[str]:
    """Counts of the states, and what else is in the runs folder."""
    kinds: Counter[Kind] = Counter(item.state.kind for item in observed)
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Kind) if kinds[kind])
    plural = "" if len(observed) == 1 else "s"
    said = [f"{len(observed)} run{plural}{': ' if counted else ''}{counted}; in {runs}"]
    if found.others:
        said.append(f"Other run folders there, of no requested row at profile {profile}: {found.others}.")
    if found.replaced:
        newest = found.replaced[-1].name
        said.append(f"Kept there, replaced by --fresh, never counted: {len(found.replaced)}, such as {newest}.")
    return [*said, *found.unreadable.values()]


def next_commands(observed: Sequence[Observed], arguments: ArgumentsFor) -> list[str]:
    """For each class of failure its sentence, and the command for the first run with it."""
    said: dict[FailureName, str] = {}
    for item in observed:
        name = item.state.failure
        if item.state.kind == "failed" and name is not None and name not in said:
            sentence, command = advise(name, arguments.of(item.known))
            said[name] = f"{name}: {sentence}\n  next: {command}"
    return list(said.values())


@dataclass(frozen=True)
class ArgumentsFor:
    """Makes the arguments of commands for one run after the other.

    options: those of ``harness run`` other than profile and seeds. runs: the runs folder.
    """

    profile: str
    options: tuple[str, ...]
    data: Path | None
    runs: Path

    def of(self, known: KnownRun) -> CommandArguments:
        """The arguments for one run."""
        ref, profile = known.refs[0], f"--profile {self.profile}"
        options = "".join(f" {shlex.quote(option)}" for option in self.options)
        folder = known.run.root.name if known.run is not None else ref
        return CommandArguments(
            run=f"{ref} {profile}{f' --seeds {known.seed + 1}' if known.seed else ''}{options}",
            logs=folder,
            explain=f"{ref} {profile}",
            data=shlex.quote(str(self.data)) if self.data is not None else "DIR",
            runs=shlex.quote(str(self.runs)),
        )


def states_as_data(observed: Sequence[Observed], found: FoundRuns) -> dict[str, Any]:
    """Lines and summary for --json."""
    return {
        "runs": [
            {
                "rows": list(item.known.refs),
                "seed": item.known.seed,
                "training": item.known.run.root.name if item.known.run is not None else None,
                "folder": str(item.known.run.root) if item.known.run is not None else None,
                "state": item.state.kind,
                **{name: value for name, value in to_builtins(item.state).items() if name != "kind"},
                "text": state_text(item.state),
            }
            for item in observed
        ],
        "other_folders": found.others,
        "unreadable": [str(path) for path in found.unreadable],
        "replaced": [str(path) for path in found.replaced],
    }
