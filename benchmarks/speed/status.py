"""How long ``harness status`` takes over many runs.

    python benchmarks/speed/status.py [--runs 1000]

Makes run folders of the four tables' rows at profile tiny in a temporary folder (a sixth each: done, training with a
living process, silent, failed, stopped, started and without a word) and times the command from its start to its end:
all of them, and one table of them. Then as many runs that are held in a queue and have no folder; the queue is a
stand-in that answers at once. Results: benchmarks/results/status.json.
"""

from __future__ import annotations

import argparse
import getpass
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
from harness.slurm.backend.slurm import COLUMNS, COMMENT
from harness.slurm.submissions import Member, Options, Submission, write_submission
from support.records import record_of

RESULTS = Path(__file__).parents[1] / "results" / "status.json"
KINDS = ("done", "training", "silent", "failed", "stopped", "wordless")
TRACEBACK = "Traceback (most recent call last):\n" + '  File "x.py", line 1, in f\n    f()\n' * 100
REPEATS = 5
ARRAY = 100  # runs per job


def make_runs(runs: Path, count: int, stack: ExitStack) -> None:
    """``count`` folders; those that train are locked until the stack is left."""
    for i, (_, job) in enumerate(wanted(count)):
        make_run(RunDir(runs / job.train.id), job, KINDS[i % len(KINDS)], stack)


def wanted(count: int) -> Iterator[tuple[str, EvalJob]]:
    """``count`` trainings, each with a row that it serves: each seed of each training in turn."""
    registry = Registry()
    profile = registry.profile("tiny")
    jobs = {}
    for ref in registry.select("all", "tiny"):
        job = eval_job(resolve(registry, ref, profile), 0)
        jobs.setdefault(job.train, (ref, job))
    rows = list(jobs.values())
    for i in range(count):
        ref, job = rows[i % len(rows)]
        yield ref, replace(job, train=replace(job.train, seed=i // len(rows)))


def hold_runs(runs: Path, count: int) -> None:
    """``count`` runs that wait in a queue, as arrays; ``programs`` in the folder answer for the queue."""
    lines, members = [], list(wanted(count))
    for first in range(0, count, ARRAY):
        token, job, some = f"{first:010x}-0", 1000 + first, members[first : first + ARRAY]
        entry = Submission(
            token=token,
            cluster="mine",
            runs=tuple(item.train.id for _, item in some),
            time=time.time(),
            code="0",
            state="submitted",
            job_id=str(job),
            members=tuple(Member(train=item.train, refs=(ref,), evals=(item.id,)) for ref, item in some),
            options=Options(profile="tiny", cluster="mine"),
            slurm="bench",
            user=getpass.getuser(),
        )
        write_submission(runs, entry)
        lines += [_queue_line(f"{job}_{index}", token) for index in range(len(some))]
    programs = runs / "programs"
    programs.mkdir()
    (programs / "lines").write_text("".join(lines))
    for name, body in (("squeue", f"cat {programs}/lines"), ("scontrol", "echo 'ClusterName = bench'")):
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)


def _queue_line(job: str, token: str) -> str:
    """A held job as squeue prints it."""
    values = {"JobArrayID": job, "State": "PENDING", "RestartCnt": "0", "UserName": getpass.getuser()}
    values |= {"Comment": f"{COMMENT}{token}", "exit_code": "0", "Name": "x", "Reason": "JobHeldUser"}
    return "".join(f"{values[field]:{width}}" for field, width in COLUMNS.items()) + "\n"


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
    environment["PATH"] = f"{runs / 'programs'}{os.pathsep}{environment['PATH']}"
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
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as held, ExitStack() as stack:
        hold_runs(Path(held), arguments.runs)
        make_runs(Path(folder), arguments.runs, stack)
        results = {
            "runs": arguments.runs,
            "seconds, all": seconds(Path(folder)),
            "seconds, all, as JSON": seconds(Path(folder), "--json"),
            "seconds, table2 with 10 seeds": seconds(Path(folder), "table2", "--seeds", "10"),
            "seconds, an empty folder": seconds(Path(folder) / "empty"),
            "seconds, all held in a queue": seconds(Path(held)),
        }
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())


if __name__ == "__main__":
    main()
