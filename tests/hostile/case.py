"""One case of the list: what is given, and how a command or reader must answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.hostile.invariant import Action, Answer, Command, answer_of, answer_of_process, changed, snapshot

ANYTHING: Final = object()
# Where commands work; a case may write beside them.
RUNS, RESULTS, CACHE, HOME = "runs", "results", "cache", "home"


@dataclass(frozen=True)
class Expected:
    """codes: those that are right. says: words of the text, in any case. value: of a reader; a function judges it."""

    codes: tuple[int, ...]
    says: tuple[str, ...] = ()
    value: Any = ANYTHING


@dataclass(frozen=True)
class Case:
    """given: writes the input into a folder and returns what to run. writes: what may change below the folder."""

    area: str
    name: str
    given: Callable[[Path], Action]
    expected: Expected
    writes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.area}: {self.name}"


def right(*says: str, value: Any = ANYTHING) -> Expected:
    """It is taken."""
    return Expected((0,), says, value)


def refused(*says: str) -> Expected:
    """It is refused in words."""
    return Expected((2,), says)


def told(*says: str) -> Expected:
    """A check of data finds it and says so, or the command ends with a failure that says so."""
    return Expected((1, 2), says)


def noted(*says: str) -> Expected:
    """It is taken, or counted as a problem, but not in silence."""
    return Expected((0, 1, 2), says)


def either() -> Expected:
    """Both are right: to take it and to refuse it. The invariant holds."""
    return Expected((0, 1, 2))


def run_case(case: Case, folder: Path, *, as_process: bool = False) -> None:
    """Raise AssertionError or BrokenInvariantError unless the answer is right and nothing else has changed."""
    with workplace(folder):
        action = case.given(folder)
        before = snapshot(folder)
        if as_process:
            assert isinstance(action, Command)
            answer = answer_of_process(action, folder)
        else:
            answer = answer_of(action)
        judge(case.expected, answer)
        other = changed(before, snapshot(folder), (*case.writes, CACHE, HOME))
        assert not other, f"changed: {other}"


def judge(expected: Expected, answer: Answer) -> None:
    """Raise AssertionError unless the answer is the right one."""
    assert answer.code in expected.codes, f"exit code {answer.code}, not one of {expected.codes}: {answer.text[-600:]}"
    for words in expected.says:
        assert words.lower() in answer.text.lower(), f"does not say {words!r}: {answer.text[-600:]}"
    if expected.value is ANYTHING or answer.code != 0:
        return
    if callable(expected.value):
        assert expected.value(answer.value), f"gave {answer.value!r:.300}"
    else:
        assert answer.value == expected.value, f"gave {answer.value!r:.300}, not {expected.value!r:.300}"


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Folders of its own for all that commands read and write; ``folder`` is the working directory."""
    before, here = dict(os.environ), Path.cwd()
    for name in [name for name in before if name.startswith(("HARNESS_", "SLURM_"))]:
        del os.environ[name]
    os.environ |= {f"HARNESS_{name.upper()}": str(folder / name) for name in (RUNS, RESULTS, CACHE)}
    os.environ |= {"HOME": str(folder / HOME), "XDG_CACHE_HOME": str(folder / HOME), "COLUMNS": "200"}
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ |= before
