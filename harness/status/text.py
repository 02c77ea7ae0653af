"""The states of runs as lines of text and as data, and the next command after each class of failure."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from msgspec import to_builtins

from harness.console.legend import legend
from harness.failures.advice import CommandArguments, advise
from harness.failures.classes import FailureName
from harness.status.find import FoundRuns, KnownRun
from harness.status.kinds import RESUMABLE, Kind
from harness.status.observe import Observed
from harness.status.words import health_lines, state_text, timing_lines

NAME_WIDTH = 46
SHORTEST_NAME = 20
ID_WIDTH = 28  # columns of the seed, the training's id, and the space around them
STATE_WIDTH = 22  # of most states: "running 42%, ETA 10:17"


def state_lines(observed: Sequence[Observed], width: int | None = None) -> list[str]:
    """For each run one line: its rows, seed, training id and state; below it, where the time goes and what is wrong.

    width: of the terminal, if it is one; in a narrow one, names of several rows are cut.
    """
    most = NAME_WIDTH if width is None else max(SHORTEST_NAME, min(NAME_WIDTH, width - ID_WIDTH - STATE_WIDTH))
    names = [_cut(item.known.title, most) for item in observed]
    name_width = max(map(len, names), default=0)
    return [
        f"{name:{name_width}}  seed {item.known.seed}  {item.known.run.root.name if item.known.run else '-':16}  "
        + "\n  ".join([state_text(item.state), *timing_lines(item.state), *health_lines(item.state)])
        for name, item in zip(names, observed, strict=True)
    ]


def _cut(name: str, most: int) -> str:
    """A name of several rows with as many of them as fit, and how many more there are."""
    if len(name) <= most or most == NAME_WIDTH:
        return name if len(name) <= most else f"{name[: most - 3]}..."
    rows = name.split(" = ")
    for kept in range(len(rows) - 1, 0, -1):
        shorter = f"{' = '.join(rows[:kept])} (+{len(rows) - kept})"
        if len(shorter) <= most:
            return shorter
    return name if len(rows) == 1 else f"{rows[0]} (+{len(rows) - 1})"


def words_of_states(lines: Sequence[str]) -> str:
    """What the abbreviations in the lines of states mean; empty where there are none."""
    text = "\n".join(lines)
    words = legend(text, {"data": "share of its time in which it waits for images", "-": "no folder, never started"})
    more = "(+N): so many more rows that are the same training." if re.search(r" \(\+\d+\)  ", text) else ""
    return " ".join(filter(None, [words, more]))


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
    """For each class of failure its sentence, and the command for the first run with it; then how the rest goes on."""
    said: dict[FailureName, str] = {}
    for item in observed:
        name = item.state.failure
        if item.state.kind == "no progress":
            name = "no progress"
        if item.state.kind in ("failed", "died before start", "no progress") and name is not None and name not in said:
            sentence, command = advise(name, arguments.of(_as_begun(item)))
            said[name] = f"{name}: {sentence}\n  next: {command}"
    return [*said.values(), *resuming_commands(observed, arguments)]


def resuming_commands(observed: Sequence[Observed], arguments: ArgumentsFor) -> list[str]:
    """For the runs that go on, or are submitted again, where they ended: one command for all with the same options."""
    commands: dict[tuple[str, ...], dict[Kind, list[KnownRun]]] = {}
    for item in observed:
        if item.state.kind in (*RESUMABLE, "refused"):
            known = _as_begun(item)
            commands.setdefault(arguments.options_of(known), {}).setdefault(item.state.kind, []).append(known)
    lines = []
    for kinds in commands.values():
        runs = [known for found in kinds.values() for known in found]
        lines.append(f"{', '.join(kinds)}: {len(runs)} run{'s' if len(runs) > 1 else ''}")
        lines.append(f"  next: harness run {arguments.of(*runs).run}")
    return lines


def _as_begun(item: Observed) -> KnownRun:
    """The run with its submission, if its newest start was submitted, and not a person's on some machine."""
    return item.known if item.state.submitted else replace(item.known, submitted=None)


@dataclass(frozen=True)
class ArgumentsFor:
    """Makes the arguments of commands for some runs of the same options.

    options: those of ``harness run`` other than profile and seeds, for runs whose submission does not tell its own.
    runs: the runs folder.
    """

    profile: str
    options: tuple[str, ...]
    data: Path | None
    runs: Path

    def options_of(self, known: KnownRun) -> tuple[str, ...]:
        """The options of ``harness run`` for one run: those that it was submitted with, if it was."""
        if known.submitted is None:
            return self.options
        # Older submissions tell their cluster alone.
        return known.submitted.words or (*self.options, "--cluster", known.submitted.submission.cluster)

    def of(self, *known: KnownRun) -> CommandArguments:
        """The arguments for these runs."""
        first, profile = known[0], f"--profile {self.profile}"
        refs = " ".join(dict.fromkeys(item.ref for item in known))
        seeds = max(item.seed for item in known) + 1
        submitted = first.submitted.options if first.submitted is not None else None
        data = (submitted.data if submitted is not None else None) or (str(self.data) if self.data is not None else "")
        options = "".join(f" {shlex.quote(option)}" for option in self.options_of(first))
        return CommandArguments(
            run=f"{refs} {profile}{f' --seeds {seeds}' if seeds > 1 else ''}{options}",
            logs=first.run.root.name if first.run is not None else first.ref,
            explain=f"{first.ref} {profile}",
            data=shlex.quote(data) if data else "DIR",
            runs=shlex.quote(str(self.runs)),
            cluster=shlex.quote(first.submitted.cluster) if first.submitted is not None else "",
        )


def states_as_data(observed: Sequence[Observed], found: FoundRuns) -> dict[str, Any]:
    """Lines and summary for --json."""
    return {
        "runs": [
            {
                "rows": list(item.known.refs),
                "seed": item.known.seed,
                "options": list(item.known.submitted.words if item.known.submitted is not None else ()),
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
