"""How long ``harness`` takes to start, and to make tables and verdicts from many records. Whole processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

from msgspec.structs import replace

from benchmarks.measure import Curve, Report, Row, compare
from detector.evaluation.scoring import METRICS
from detector.runs.job import EvalJob
from detector.storage.files import write_json
from harness.machine import usable_cores
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of

PROFILE = "tiny"
RECORDS = (10, 100, 1_000)
GOALS = {"harness --help": "< 0.25 s", "harness table all": "< 1.5 s from 1,000 records"}


def report(*, quick: bool) -> Report:
    """Seconds of the commands, and how those that read records grow with them. Five minutes; quick: no training."""
    counts, rounds, warmup = ((3, 30), 1, 0) if quick else (RECORDS, 7, 1)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in counts]
        for place, number in zip(places, counts, strict=True):
            make_records(place, number)
        seconds = compare(commands(places[-1]), rounds=rounds, warmup=warmup)
        grown = [compare(readers(place), rounds=rounds, warmup=warmup) for place in places[:-1]]
        series = {name: tuple(taken[name] for taken in (*grown, seconds)) for name in readers(places[-1])}
        facts: dict[str, float | str] = {}
        if not quick:
            began = time.perf_counter()
            process(Path(folder) / "new", "-m", "harness.cli", "run", "table2", "--profile", PROFILE)()
            minutes = (time.perf_counter() - began) / 60
            facts[f"harness run table2 --profile tiny from nothing, minutes, {usable_cores()} cores"] = minutes
    rows = tuple(
        Row(
            work=f"{name}, {counts[-1]:,} records" if name in series else name,
            peer="python -c 'import torch'",
            peer_seconds=seconds["torch"],
            seconds=taken,
            limit="python -c pass",
            limit_seconds=seconds["pass"],
            goal=GOALS.get(name, ""),
        )
        for name, taken in seconds.items()
        if name.startswith("harness")
    )
    curve = Curve(title="Reading records", x="records", xs=counts, series=series)
    return Report(rows=rows, curves=(curve,), facts=facts)


def commands(place: Path) -> dict[str, Callable[[], object]]:
    """What is timed side by side, over the records at ``place``."""
    return {
        "pass": process(place, "-c", "pass"),
        "torch": process(place, "-c", "import torch"),
        "harness --help": process(place, "-m", "harness.cli", "--help"),
        "harness list": process(place, "-m", "harness.cli", "list"),
        **readers(place),
    }


def readers(place: Path) -> dict[str, Callable[[], object]]:
    """The commands that read every record."""
    names = ("table", "check")
    return {
        f"harness {name} all": process(place, "-m", "harness.cli", name, "all", "--profile", PROFILE) for name in names
    }


def process(place: Path, *arguments: str) -> Callable[[], object]:
    """Runs a Python process to its end; raises where its exit code is not 0."""
    environment = {**os.environ, "HARNESS_RESULTS": str(place), "HARNESS_RUNS": str(place / "runs")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiles the modules once, as an installed package is
    return lambda: subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


def make_records(results: Path, number: int) -> None:
    """Write finished records of the four tables' rows: seeds 0, 1, ... of each training, APs between 20 and 21."""
    rng = random.Random(0)
    for job in islice(all_jobs(), number):
        record = record_of(job)
        metrics = {name: 20 + rng.random() for name in METRICS} | {"positive_score": 0.5, "negative_score": 0.1}
        path = results / "records" / PROFILE / f"{record.eval_id}.json"
        write_json(path, replace(record, metrics=metrics), flush=False)


def all_jobs() -> Iterator[EvalJob]:
    """The evaluations of the profile's rows, each training once, with the seeds 0, 1, ..."""
    registry = Registry()
    profile = registry.profile(PROFILE)
    jobs = [eval_job(resolve(registry, ref, profile), 0) for ref in registry.select("all", PROFILE)]
    distinct = {job.train: job for job in reversed(jobs)}.values()
    for seed in count():
        for job in distinct:
            yield replace(job, train=replace(job.train, seed=seed))
