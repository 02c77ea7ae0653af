"""How long ``harness status`` takes over many runs.

    python benchmarks/speed/status.py [--runs 1000]

Makes run folders of the four tables' rows at profile tiny in a temporary folder (a sixth each: done, training with a
living process, silent, failed, stopped, started and without a word) and times the command from its start to its end:
all of them, and one table of them. Results: benchmarks/results/status.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import msgspec
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of

RESULTS = Path(__file__).parents[1] / "results" / "status.json"
KINDS = ("done", "training", "silent", "failed", "stopped", "wordless")
TRACEBACK = "Traceback (most recent call last):\n" + '  File "x.py", line 1, in f\n    f()\n' * 100
REPEATS = 5


def make_runs(runs: Path, count: int, stack: ExitStack) -> None:
    """``count`` folders, each seed of each training in turn; those that train are locked until the stack is left."""
    registry = Registry()
    profile = registry.profile("tiny")
    jobs = {}
    for ref in registry.select("all", "tiny"):
        job = eval_job(resolve(registry, ref, profile), 0)
        jobs.setdefault(job.train, job)
    rows = list(jobs.values())
    for i in range(count):
        job = rows[i % len(rows)]
        job = replace(job, train=replace(job.train, seed=i // len(rows)))
        make_run(RunDir(runs / job.train.id), job, KINDS[i % len(KINDS)], stack)


def make_run(run: RunDir, job: EvalJob, kind: str, stack: ExitStack) -> None:
    """One folder as a run in that state leaves it."""
    now = time.time()
    run.submitit.mkdir(parents=True)
    (run.submitit / "1_0_log.out").write_text("submitit INFO - Starting\n" * 20)
    run.job.write_bytes(msgspec.json.encode(job.train))
    (run.root / ".lock").touch()
    common = {"pid": 1, "iteration": 50, "iterations": 400, "seconds_per_iteration": 0.02}
    if kind == "done":
        run.record(job.id).parent.mkdir(parents=True)
        run.record(job.id).write_bytes(msgspec.json.encode(record_of(job)))
        write_json(run.status, Status(phase="done", time=now, **common))
    elif kind == "training":
        stack.enter_context(run.lock())
        write_json(run.status, Status(phase="training", time=now, **common))
    elif kind == "silent":
        write_json(run.status, Status(phase="training", time=now - 3600, **common))
    elif kind == "failed":
        run.log.write_text(f"2024-05-01 10:00:00,000 ERROR detector.worker.worker: {TRACEBACK}KeyError: 1\n")
        write_json(run.status, Status(phase="failed", time=now, message="KeyError: 1", **common))
    elif kind == "stopped":
        write_json(run.status, Status(phase="stopped", time=now, message="the state is saved", **common))


def seconds(runs: Path, *arguments: str) -> float:
    """Median wall time of the command."""
    environment = {**os.environ, "HARNESS_RUNS": str(runs), "HARNESS_RESULTS": str(runs / "results")}
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "harness.cli", "status", *arguments, "--profile", "tiny"],
            env=environment,
            check=True,
            capture_output=True,
        )
        taken.append(time.perf_counter() - started)
    return round(median(taken), 2)


def main() -> None:
    """Make the runs, time the command, write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_runs(Path(folder), arguments.runs, stack)
        results = {
            "runs": arguments.runs,
            "seconds, all": seconds(Path(folder)),
            "seconds, all, as JSON": seconds(Path(folder), "--json"),
            "seconds, table2 with 10 seeds": seconds(Path(folder), "table2", "--seeds", "10"),
            "seconds, an empty folder": seconds(Path(folder) / "empty"),
        }
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())


if __name__ == "__main__":
    main()
