"""What every command and reader keeps to, whatever it is given: the one place where this is said and checked.

A command ends with 0, 1 or 2 (130 after Ctrl-C), says one thing without a traceback, changes nothing outside of the
named output, and takes less than 20 s of a processor and 2 GB. Only a HarnessError may leave a reader. What is shown
cannot act: no control characters come out but the ends of lines.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from detector.errors import HarnessError
from detector.storage.shown import shown
from harness.cli import app
from harness.cli.app import _message

CODES = (0, 1, 2, 130)
SECONDS = 20  # of a processor: the machine may be busy with other things
WAIT_SECONDS = 240  # for something that never comes
BYTES = 2 * 2**30
LONGEST = 20_000  # characters of a refusal; tables may be longer
PROJECT = Path(__file__).resolve().parents[2]


class BrokenInvariantError(BaseException):
    """Of no kind that code under test catches."""


@dataclass(frozen=True)
class Answer:
    """How a command or reader ended. value: what a reader returned."""

    code: int
    text: str = ""
    value: Any = None


@dataclass(frozen=True)
class Command:
    """A command line, and the variables of its environment beside the usual ones."""

    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)


def command(*arguments: str | Path, **variables: str | Path) -> Command:
    """``harness`` with these arguments."""
    return Command(tuple(map(str, arguments)), {name: str(value) for name, value in variables.items()})


Action = Command | Callable[[], Any]


def answer_of(action: Action) -> Answer:
    """Run in this process, within the limits. Raises BrokenInvariantError."""
    with _limits():
        answer = _run_here(action) if isinstance(action, Command) else _ask(action)
    check(answer, command=isinstance(action, Command))
    return answer


def answer_of_process(action: Command, folder: Path) -> Answer:
    """Run as a process of its own, in ``folder``, with the limits set by the kernel. Raises BrokenInvariantError."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **action.variables}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *action.arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_limit,
    )
    try:
        said, _ = process.communicate(timeout=WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise BrokenInvariantError(f"{action.arguments}: not done after {WAIT_SECONDS} s") from None
    if process.returncode == -signal.SIGXCPU:
        raise BrokenInvariantError(f"{action.arguments}: not done after {SECONDS} s of a processor")
    answer = Answer(process.returncode, said.decode(errors="backslashreplace"))
    check(answer, command=True)
    return answer


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))


def check(answer: Answer, *, command: bool) -> None:
    """Raise BrokenInvariantError unless the answer is one that a user can use."""
    if answer.code not in CODES:
        raise BrokenInvariantError(f"exit code {answer.code}: {answer.text[-2000:]}")
    if "Traceback (most recent call last)" in answer.text:
        raise BrokenInvariantError(f"a traceback: {answer.text[-2000:]}")
    if answer.code == 2 and not answer.text.strip():
        raise BrokenInvariantError("refused without a word")
    if answer.code == 2 and len(answer.text) > LONGEST:
        raise BrokenInvariantError(f"a refusal of {len(answer.text):,} characters: {answer.text[:200]}...")
    if command and answer.text.count("error: ") > 1 and answer.code == 2:
        raise BrokenInvariantError(f"more than one error: {answer.text[:2000]}")
    if command and (acting := sorted({mark for mark in answer.text if _acts(mark)})):
        raise BrokenInvariantError(f"control characters {acting} come out: {answer.text[:2000]!r}")


def snapshot(folder: Path) -> dict[str, str]:
    """Everything below a folder: kind and content. Times do not count, and no pipe is opened."""
    found = {}
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(top) / name
            if path.is_symlink():
                state = f"link to {os.readlink(path)}"
            elif path.is_file():
                state = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                state = oct(path.stat().st_mode)
            found[str(path.relative_to(folder))] = state
    return found


def changed(before: dict[str, str], after: dict[str, str], allowed: Sequence[str]) -> list[str]:
    """What differs outside of the ``allowed`` files and folders."""
    different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return [name for name in different if not any(f"{name}/".startswith(f"{given}/") for given in allowed)]


def _acts(mark: str) -> bool:
    return mark not in "\n\t" and unicodedata.category(mark) == "Cc"


def _run_here(action: Command) -> Answer:
    result = CliRunner().invoke(app, list(action.arguments), env=action.variables, color=True)
    error = result.exception
    if isinstance(error, HarnessError):
        return Answer(2, result.output + shown(_message(error)))  # as the command's entry point says it
    if isinstance(error, OSError):
        return Answer(1, result.output + shown(_message(error)))
    if error is not None and not isinstance(error, SystemExit):
        raise BrokenInvariantError(f"{action.arguments}: {_where(error)}") from error
    return Answer(result.exit_code, result.output)


def _ask(reader: Callable[[], Any]) -> Answer:
    try:
        return Answer(0, value=reader())
    except HarnessError as error:
        return Answer(2, str(error))
    except Exception as error:
        raise BrokenInvariantError(_where(error)) from error


def _where(error: BaseException) -> str:
    """The error and the last line of ours that it passed."""
    place, trace = "", error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(PROJECT) and path.parts[len(PROJECT.parts)] in ("detector", "harness", "drloss"):
            place = f"{path.relative_to(PROJECT)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place or 'no line of ours'}: {str(error)[:300]}"


@contextmanager
def _limits() -> Iterator[None]:
    """At most ``SECONDS``, ``WAIT_SECONDS`` of waiting, and ``BYTES`` beside what this process has taken before."""

    def late(number: int, _: object) -> None:
        _release_pipes(Path.cwd())  # a thread that waits for a writer would outlive the alarm
        took = f"{SECONDS} s of a processor" if number == signal.SIGPROF else f"{WAIT_SECONDS} s"
        raise BrokenInvariantError(f"not done after {took}")

    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    handlers = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
    resource.setrlimit(resource.RLIMIT_DATA, (taken + BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS, 1)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 1)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _release_pipes(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_fifo():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
