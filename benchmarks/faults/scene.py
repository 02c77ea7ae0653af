"""One trial: its folder, the commands that are typed in it, its processes, and what is seen of the training."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from benchmarks.faults.verdict import Reference, records_in
from detector.runs.folder import RunDir
from detector.runs.log_lines import STARTED, iteration_resumed, of_worker, stopped_at
from support.hang import hang, write_hang
from support.slurm.machine import LOCAL_WORKER, WORKER, environment_of, living_processes
from support.workplace import Workplace, make_workplace

PROJECT = Path(__file__).resolve().parents[2]
ROW = ("run", "table3/dr", "--profile", "tiny")
CHECKPOINT_EVERY = 5  # iterations; losses are logged as often
COMMAND_SECONDS = 900.0
END_SECONDS = 15.0
WORDS = "words"  # the folder in a workplace through which a process is told to hang
FRESH = {"HARNESS_QUEUE_SECONDS": "0"}  # each command asks the queue for itself
LOOK_SECONDS = 0.02
LOGGED = re.compile(r'^\{"iteration": (\d+)', flags=re.MULTILINE)


class Hung(Exception):
    """Something did not end in time."""


@dataclass(frozen=True)
class Place(Workplace):
    """A workplace whose commands get more environment variables."""

    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.root / WORDS), str(PROJECT)])
        return {**super().environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **FRESH, **self.variables}


@dataclass
class Scene:
    """A trial under way. moments: when to strike, as shares of an undisturbed course; a second counts from the restart.

    phases: where the training was at each strike, in words.
    """

    place: Place
    folder: Path  # for what commands print and a cluster's files; no fault touches it
    random: Random
    reference: Reference
    moments: tuple[float, ...]
    runs: Path  # the runs folder by a path that stays readable while the commands' path fails
    program: str = "harness.cli"
    extra: Any = None  # what a way needs besides
    commands: int = 0
    phases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def type(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the command, in a process group of its own as a terminal does."""
        self.commands += 1
        with open(self.folder / f"command-{self.commands}.txt", "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", self.program, *ROW, *options],
                env=self.place.environment,
                stdout=output,
                stderr=output,
                cwd=PROJECT,
                start_new_session=True,
                preexec_fn=heed_signals,
            )
        self.started.append(process)
        return process

    def said(self) -> str:
        """What the newest command printed."""
        return (self.folder / f"command-{self.commands}.txt").read_text(errors="replace")

    def wait(self, process: subprocess.Popen[bytes], seconds: float = COMMAND_SECONDS) -> int:
        """The exit code. Raises Hung."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Hung(f"command {self.commands} did not end within {seconds:.0f} s") from error

    def reach(self, number: int, lives: Callable[[], bool]) -> bool:
        """Wait for a moment while the training ``lives``; returns whether it still does.

        Within the training a moment is counted in logged iterations: their time depends on what else the machine does.
        """
        course, iterations = self.reference.course, self.reference.logged[-1]
        at = self.moments[number] * course.end
        if number or at < course.first:
            phase = "after a restart" if number else "start-up"
            self._pass(at, lives, lambda: number == 0 and self.progress() > 0)
        elif at < course.last:
            phase, target = "training", iterations * (at - course.first) / (course.last - course.first)
            self._pass(COMMAND_SECONDS, lives, lambda: self.progress() >= target)
        else:
            phase = "evaluation"
            self._pass(COMMAND_SECONDS, lives, lambda: self.progress() == iterations)
            self._pass(at - course.last, lives, lambda: False)
        return self.note_strike(phase) if lives() else False

    def lives_until(self, seconds: float, lives: Callable[[], bool], phase: str) -> bool:
        """Wait so many seconds while it lives; returns whether it still does."""
        self._pass(seconds, lives, lambda: False)
        return self.note_strike(phase) if lives() else False

    def note_strike(self, phase: str) -> bool:
        """Note in which phase the training is about to be struck."""
        self.phases.append(phase)
        return True

    def progress(self) -> int:
        """The newest iteration with a loss in the log; 0 before the first."""
        run = self.run_dir()
        try:
            found = LOGGED.findall(run.metrics.read_text()) if run is not None else []
        except OSError:
            return 0
        return int(found[-1]) if found else 0

    def _pass(self, seconds: float, lives: Callable[[], bool], early: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and lives() and not early():
            time.sleep(min(LOOK_SECONDS, max(0.0, end - time.monotonic())))

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for it. Raises Hung."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Hung(f"{what}: not within {seconds:.0f} s")
            time.sleep(LOOK_SECONDS)

    def is_recorded(self) -> bool:
        """Whether the run has its record."""
        return bool(records_in(self.runs))

    def hang(self, rank: int) -> Path:
        """Let the process of that rank stop for ever, or the next one. The file is gone when it has."""
        return hang(self.place.root / WORDS, rank)

    def run_dir(self) -> RunDir | None:
        """The run's folder, as soon as there is one."""
        found = sorted(self.runs.glob("*/.lock")) + sorted(self.runs.glob("*/job.json"))
        return RunDir(found[0].parent) if found else None

    def processes(self) -> list[int]:
        """All living processes of the trial, recognised by the folder in their environment."""
        mark = f"HARNESS_RUNS={self.place.root / 'runs'}\0".encode()
        return [pid for pid in living_processes() if mark in environment_of(pid)]

    def end_everything(self) -> int:
        """Kill what does not end by itself soon; returns how many processes that were."""
        with suppress(Hung):
            self.until(lambda: not self.processes(), END_SECONDS, "the end of all processes")
        left = self.processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.kill()
            process.wait()
        return len(left)


def heed_signals() -> None:
    """Let Ctrl-C work as in a terminal, also where the campaign itself was started with SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def make_place(folder: Path, *, iterations: int, variables: dict[str, str] | None = None) -> Place:
    """The tests' micro training, with checkpoints less often."""
    made = make_workplace(folder, iterations=iterations)
    profile = folder / "experiments" / "profiles" / "tiny.yaml"
    values = yaml.safe_load(profile.read_text())
    values["execution"]["checkpoint_every"] = CHECKPOINT_EVERY
    profile.write_text(yaml.safe_dump(values))
    write_hang(folder / WORDS, WORKER, LOCAL_WORKER)
    return Place(made.root, variables or {})


class Watch(threading.Thread):
    """Counts iterations that were done again: losses logged before a start, less the iteration that it resumed at.

    An upper bound: as many as fit between two lines of the log may have been done after the last one.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self.scene, self.ended = scene, threading.Event()
        self.file, self.highest, self.again = 0, 0, 0

    def run(self) -> None:
        while not self.ended.wait(LOOK_SECONDS):
            with suppress(OSError, ValueError):
                self.look()

    def look(self) -> None:
        """Compare the log with what it was before; each start writes it anew."""
        run = self.scene.run_dir()
        if run is None or not run.metrics.exists():
            return
        file, text = run.metrics.stat().st_ino, run.metrics.read_text()
        found = LOGGED.findall(text)
        newest = int(found[-1]) if found else 0
        if self.file and file != self.file and self.highest:
            self.again += iterations_again(run.log.read_text(), self.highest)
            self.highest = 0
        self.file, self.highest = file, max(self.highest, newest)


def iterations_again(log: str, logged: int) -> int:
    """How many the newest start of a run does again, at most. logged: the last with a loss in the log before it."""
    at = iteration_resumed(log.rpartition(of_worker("INFO", STARTED))[2]) or 0
    if stopped_at(at, saved=True) in log:
        return 0
    return max(0, logged + CHECKPOINT_EVERY - 1 - at)
