"""What is wrong in a root, counted by kind: a few examples say more than ten thousand lines. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.storage.shown import one_line

LISTED = 1_000  # of one kind in one file, each as a problem of its own
SHOWN_KINDS = 3  # in one line
SHOWN_EXAMPLES = 3  # of each kind, in a report


@dataclass(frozen=True)
class Finding:
    """All entries of one file that have one thing wrong, or worth a note.

    kind: what they are, in the plural. examples: (id, message) of the first ``LISTED``.
    """

    kind: str
    count: int
    examples: tuple[tuple[int | None, str], ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a root: ``file`` relative to the root, ``id`` of the image, category or annotation.

    kind: what is counted together. count: above 1 where it stands for all that are not listed one by one.
    """

    file: str
    id: int | None
    message: str
    kind: str = ""
    count: int = 1

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.message}")


def finding(wrong: ArrayLike, ids: NDArray[np.int64], kind: str, message: Callable[[int], str]) -> Finding:
    """The entries where ``wrong`` [B] is true. message: called with the positions of the first of them."""
    positions = np.flatnonzero(wrong)
    return Finding(kind, len(positions), tuple((int(ids[i]), message(i)) for i in positions[:LISTED].tolist()))


def as_problems(file: str, findings: Iterable[Finding]) -> list[Problem]:
    """Each example as a problem; the entries beyond them together as one."""
    listed = []
    for found in findings:
        listed += [Problem(file, key, message, found.kind) for key, message in found.examples]
        if more := found.count - len(found.examples):
            listed.append(Problem(file, None, f"{more:,} more {found.kind}", found.kind, count=more))
    return listed


def as_note(found: Finding) -> str:
    """One line: how many, and the first few."""
    shown = "; ".join(message for _, message in found.examples[:SHOWN_EXAMPLES])
    return f"{found.count:,} {found.kind}, such as {shown}" if shown else f"{found.count:,} {found.kind}"


def total(problems: Iterable[Problem]) -> int:
    """How many things are wrong."""
    return sum(problem.count for problem in problems)


def summary(problems: Sequence[Problem]) -> str:
    """One line: an example of each of the first kinds, and how many there are."""
    groups = list(_by_kind(problems).values())
    parts = []
    for group in groups[:SHOWN_KINDS]:
        more = total(group) - 1
        parts.append(f"{group[0]} (and {more:,} more {group[0].kind or 'like it'})" if more else str(group[0]))
    if rest := groups[SHOWN_KINDS:]:
        parts.append(f"and {sum(map(total, rest)):,} more of other kinds")
    return "; ".join(parts)


def report_lines(problems: Sequence[Problem]) -> list[str]:
    """For a report: up to three examples of each kind in each file, and how many more there are."""
    lines = []
    for (place, kind), group in _by_kind(problems).items():
        lines += [str(problem) for problem in group[:SHOWN_EXAMPLES]]
        if more := total(group) - min(len(group), SHOWN_EXAMPLES):
            lines.append(f"{place}: and {more:,} more {kind}")
    return lines


def _by_kind(problems: Iterable[Problem]) -> dict[tuple[str, str], list[Problem]]:
    """By file and kind, in their order; of image files, which each have a name of their own, by folder."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        place = problem.file if problem.file.endswith(".json") else problem.file.partition("/")[0]
        groups.setdefault((place, problem.kind or problem.message), []).append(problem)
    return groups
