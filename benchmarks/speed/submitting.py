"""How long a submission takes: ``harness run --cluster`` beside bare ``sbatch``, on a real Slurm of two nodes.

    python benchmarks/speed/submitting.py [--sizes 1 10 100] [--repeats 5]

Starts the tests' cluster and submits N seeds of one row at profile tiny as held jobs, so that none starts. The harness
does it with --dry-run, then into an empty runs folder (with the data drawn beforehand), then by the same command again,
which must submit nothing. The peers submit the same script, held too: as one array, and N times one by one. Every
repeat does all of them in turn. Wall times of whole commands. Results: benchmarks/results/submitting.json.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
from tabulate import tabulate

from harness.machine import usable_cores
from harness.slurm.submissions import read_submissions
from support.slurm.cluster import slurm_cluster

RESULTS = Path(__file__).parents[1] / "results" / "submitting.json"
ROW = "table3/dr"
CLUSTER = """\
name: held
title: two nodes without GPUs, whose jobs wait until they are released
partition: main
nodes: 2
cpus_per_gpu: 1
memory_gb_per_gpu: 2
time_minutes: 30
signal_delay_seconds: 60
extra: {hold: true}
"""
PYTHON = "an empty Python process"
TABLE = "harness table table3"
DRY = "harness run --dry-run"
FIRST = "harness run"
AGAIN = "harness run, again"
ARRAY = "sbatch, one array"
SINGLE = "sbatch, one by one"
WAYS = (PYTHON, TABLE, DRY, FIRST, AGAIN, ARRAY, SINGLE)


class Bench:
    """A running cluster, its file, and data that is drawn once."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.cluster = folder / "held.yaml"
        self.cluster.write_text(CLUSTER)
        self.environment = {**os.environ, **variables}
        self.environment.pop("HARNESS_CLUSTERS", None)

    def timed(self, *command: str, runs: Path, script: str | None = None) -> tuple[float, str]:
        """Seconds from the command's start to its end, and what it printed."""
        environment = {**self.environment, "HARNESS_RUNS": str(runs), "HARNESS_RESULTS": str(runs / "results")}
        started = time.perf_counter()
        done = subprocess.run(
            command, env=environment, input=script, capture_output=True, text=True, check=False, cwd=self.folder
        )
        seconds = time.perf_counter() - started
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return seconds, done.stdout + done.stderr

    def harness(self, *arguments: str, runs: Path) -> tuple[float, str]:
        """``harness`` at the tiny profile."""
        return self.timed(sys.executable, "-m", "harness.cli", *arguments, "--profile", "tiny", runs=runs)

    def queued(self, name: str) -> int:
        """Jobs and array elements of that name."""
        command = ["squeue", "-h", "-r", "-o", "%i", f"--name={name}"]
        return len(subprocess.check_output(command, env=self.environment, text=True).split())

    def empty_queue(self) -> None:
        """End every job."""
        subprocess.run(["scancel", "--user", str(os.getuid())], env=self.environment, check=True)
        while subprocess.check_output(["squeue", "-h"], env=self.environment, text=True):
            time.sleep(0.2)


def measure(bench: Bench, size: int, data: Path, runs: Path) -> dict[str, float]:
    """Every way once, from nothing; seconds. Fails where not exactly ``size`` jobs were queued by each."""
    row = ("run", ROW, "--seeds", str(size), "--cluster", str(bench.cluster), "--data", str(data))
    seconds = {PYTHON: bench.timed(sys.executable, "-c", "pass", runs=runs)[0]}
    seconds[TABLE] = bench.harness("table", "table3", runs=runs)[0]
    seconds[DRY], printed = bench.harness(*row, "--dry-run", runs=runs)
    seconds[FIRST], said = bench.harness(*row, runs=runs)
    (entry,) = read_submissions(runs)
    assert bench.queued(entry.name) == size == len(entry.runs), said
    seconds[AGAIN], said = bench.harness(*row, runs=runs)
    assert "Nothing was submitted." in said, said
    assert len(read_submissions(runs)) == 1
    assert bench.queued(entry.name) == size, said
    bench.empty_queue()

    script = printed[printed.index("#!/bin/bash") : printed.index("Nothing was submitted")]
    script = script.replace(entry.name, "bare")
    seconds[ARRAY], _ = bench.timed("sbatch", runs=runs, script=script)
    assert bench.queued("bare") == size
    bench.empty_queue()
    single = re.sub(r"(?m)^#SBATCH --array=.*\n", "", script)
    seconds[SINGLE] = sum(bench.timed("sbatch", runs=runs, script=single)[0] for _ in range(size))
    assert bench.queued("bare") == size
    bench.empty_queue()
    return seconds


def summary(found: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of each way: the median, the smallest and the largest of its seconds, and the median's ratio to both peers."""
    middle = {way: median(item[way] for item in found) for way in WAYS}
    return {
        way: {
            "median": round(middle[way], 3),
            "min": round(min(item[way] for item in found), 3),
            "max": round(max(item[way] for item in found), 3),
            "to one array": round(middle[way] / middle[ARRAY], 2),
            "to one by one": round(middle[way] / middle[SINGLE], 2),
        }
        for way in WAYS
    }


def main() -> None:
    """Measure, write the results, print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {size: [] for size in arguments.sizes}
    with tempfile.TemporaryDirectory(prefix="submit-") as name:
        folder = Path(name)
        with slurm_cluster(folder / "slurm") as variables:
            bench, data = Bench(folder, variables), folder / "data"
            # The first submission draws the data; it also warms the disk's cache, and is not counted.
            measure(bench, 1, data, folder / "warm-up")
            for repeat in range(arguments.repeats):
                for size in arguments.sizes:
                    found[size].append(measure(bench, size, data, folder / f"{size}-{repeat}"))
            version = subprocess.check_output(["sinfo", "--version"], env=bench.environment, text=True).strip()
    results = {
        "slurm": version,
        "cores": usable_cores(),
        "repeats": arguments.repeats,
        "seconds": {str(size): summary(items) for size, items in found.items()},
    }
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    for size, items in found.items():
        ways = summary(items)
        print(f"\n{size} run{'' if size == 1 else 's'}, {arguments.repeats} repeats ({version})")
        lines = [[way, *(f"{value:.3f}" for value in values.values())] for way, values in ways.items()]
        print(tabulate(lines, ["seconds", *next(iter(ways.values()))], disable_numparse=True))


if __name__ == "__main__":
    main()
