"""A worker that notes where its time goes: the project's own code, with a clock around the calls named here.

``$OVERHEAD_MODE``: clocked; plain (only the loop is timed); nothing (the harness's calls in the loop do nothing).
``$OVERHEAD_OUT``: the file that the times are written to when the worker ends. Run as a program it is
``harness``, with this worker in place of the real one.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from detector.storage.files import write_json
from detector.worker.reports import Heartbeat
from detector.worker.worker import Worker

DATA, STEP, OPTIMISER = "data", "forward and backward", "optimiser's step"
BEAT, METRICS, WINDOW, AGREE = "heartbeat", "metrics log", "window sums, finite check", "agreement to stop"
CHECKPOINTS, FIRST_BATCH = "checkpoints", "checks of the first batch"
WORK = (DATA, STEP, OPTIMISER)
HARNESS = (BEAT, METRICS, WINDOW, AGREE, CHECKPOINTS, FIRST_BATCH)
BEATS = "heartbeats written"  # within BEAT; most calls find nothing to write
FINAL, DETECTION, SCORES, RECORD = "final weights", "detection", "COCO metrics", "fingerprints, detections and record"
OUTSIDE = (FINAL, DETECTION, SCORES, RECORD)


class Clock:
    """Seconds and calls of each part of the loop, and of the named parts outside of it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.outside: defaultdict[str, float] = defaultdict(float)
        self.in_loop = False

    def add(self, part: str, since: float) -> None:
        """Count a call that began at ``since``."""
        self.seconds[part] += time.perf_counter() - since
        self.calls[part] += 1

    def around(self, owner: Any, name: str, part: str) -> None:
        """Time the calls that the loop makes."""
        original = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            if not self.in_loop:
                return original(*arguments, **named)
            since = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                self.add(part, since)

        setattr(owner, name, timed)

    def outside_around(self, owner: Any, name: str, part: str) -> None:
        """Time calls outside of the loop."""
        original = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            if self.in_loop:
                return original(*arguments, **named)
            since = time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                self.outside[part] += time.perf_counter() - since

        setattr(owner, name, timed)


class TimedWorker(Worker):
    """The worker with a clock; the times are written when it ends."""

    def __call__(self) -> None:
        """Import what the worker imports, put the clock around it, and run."""
        found: dict[str, Any] = {"process": process_start(), "called": time.time()}
        import detector.device.world  # noqa: F401

        found["imported"] = time.time()
        clock, mode = Clock(), os.environ["OVERHEAD_MODE"]
        bound_loop(clock, found)
        if mode == "clocked":
            clock_loop(clock)
            clock_outside(clock)
        elif mode == "nothing":
            silence_harness(clock)
        if mode != "clocked":
            import detector.worker.worker as worker

            setattr(worker.Worker, "_run", training_only)  # noqa: B010
        try:
            super().__call__()
        finally:
            found |= {"ended": time.time(), "seconds": clock.seconds, "calls": clock.calls, "outside": clock.outside}
            write_json(Path(os.environ["OVERHEAD_OUT"]), found)


def process_start() -> float:
    """When this process began, in seconds since the epoch (to a hundredth)."""
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    ticks: int = os.sysconf("SC_CLK_TCK")
    return time.time() - float(Path("/proc/uptime").read_text().split()[0]) + started / ticks


def training_only(worker: Worker, run: Any, heartbeat: Any, stop: Any, stack: Any) -> None:
    """``Worker._run`` without the evaluation."""
    import torch

    from detector.device.world import join_world
    from detector.worker.run import train_to_final

    torch.set_num_threads(worker.assignment.threads)
    world = stack.enter_context(join_world(worker.assignment.device))
    train_to_final(worker.assignment, run, world=world, heartbeat=heartbeat, stop=stop)


def bound_loop(clock: Clock, found: dict[str, Any]) -> None:
    """The loop goes from the first request for a batch to the return of ``train``."""
    import detector.training.train as training
    import detector.worker.run as finish
    from detector.data.loader import training_batches
    from detector.training.train import train

    def counted(*arguments: Any, **named: Any) -> Iterator[Any]:
        iterator = iter(training_batches(*arguments, **named))
        found.update(loop_began=time.time(), cpu_began=time.process_time())
        clock.in_loop = True
        while True:
            since = time.perf_counter()
            groups = next(iterator, None)
            clock.add(DATA, since)
            if groups is None:
                return
            yield groups

    def bounded(*arguments: Any, **named: Any) -> Any:
        result = train(*arguments, **named)
        clock.in_loop = False
        found.update(loop_ended=time.time(), cpu_ended=time.process_time())
        return result

    setattr(training, "training_batches", counted)  # noqa: B010
    setattr(finish, "train", bounded)  # noqa: B010


def clock_loop(clock: Clock) -> None:
    """Put the clock around everything that the loop calls."""
    import torch

    import detector.training.train as training
    import detector.worker.worker as worker
    from detector.training.metrics import MetricsLog

    clock.around(training.Passes, "run", STEP)
    for name in ("learning_rate", "set_learning_rate"):
        clock.around(training, name, OPTIMISER)
    for name in ("step", "update"):
        clock.around(torch.amp.GradScaler, name, OPTIMISER)
    clock.around(Heartbeat, "beat", BEAT)
    clock.around(worker, "write_json", BEATS)
    for name in ("write", "__exit__"):
        clock.around(MetricsLog, name, METRICS)
    for name in ("add", "close"):
        clock.around(training.Window, name, WINDOW)
    clock.around(training.Agreement, "__call__", AGREE)
    clock.around(training, "_save", CHECKPOINTS)
    for name in ("_look", "_check_first_loss"):
        clock.around(training, name, FIRST_BATCH)


def clock_outside(clock: Clock) -> None:
    """Put the clock around what comes before and after the loop."""
    import detector.worker.run as finish
    from detector.weights import checkpoint

    clock.outside_around(checkpoint, "save", FINAL)
    clock.outside_around(finish, "detect_split", DETECTION)
    clock.outside_around(finish, "coco_metrics", SCORES)
    for name in ("write_detections", "fingerprint", "write_json"):
        clock.outside_around(finish, name, RECORD)


def silence_harness(clock: Clock) -> None:
    """Make the calls of HARNESS do nothing inside the loop; none of them changes the weights."""
    import detector.training.train as training
    from detector.training.metrics import MetricsLog

    beat = Heartbeat.beat
    silent: dict[tuple[Any, str], Callable[..., Any]] = {
        (Heartbeat, "beat"): lambda *a, **named: None if clock.in_loop else beat(*a, **named),
        (MetricsLog, "__enter__"): lambda log: log,
        (MetricsLog, "__exit__"): lambda *_: None,
        (MetricsLog, "write"): lambda *_: None,
        (training.Window, "add"): lambda *_: None,
        (training.Window, "close"): lambda *_: ({"loss": 0.0}, 0.0),
        (training.Agreement, "__call__"): lambda *_: False,
        (training, "_save"): lambda *_, **__: True,
        (training, "_look"): lambda *_: [],
    }
    for (owner, name), call in silent.items():
        setattr(owner, name, call)


if __name__ == "__main__":
    # The worker is pickled by name: by this module's own, not as part of __main__.
    import benchmarks.overhead.clock as this
    import harness.launch.local as launch
    from harness.cli import main

    setattr(launch, "Worker", this.TimedWorker)  # noqa: B010
    main()
