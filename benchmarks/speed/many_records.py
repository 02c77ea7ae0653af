"""How long the commands that show results take over ten thousand records, and over a thousand.

    python -m benchmarks.speed.many_records [--records 10000] [--only report,table]

Makes committed records of 16 rows at profile tiny in a temporary folder, many seeds each, and takes the processor time
of each command from its start to its end, so that what else the machine does counts little. The ratio tells how it
grows: 10 where ten times the records take ten times as long. The results stand beside those of other benchmarks.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from detector.storage.files import write_json
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of

RESULTS: Final = Path(__file__).parents[1] / "results" / "many_records.json"
ROWS: Final = 16
FEWER: Final = 10  # times
COMMANDS: Final = {
    "report": ("report", "all", "-p", "tiny", "--out", "{out}/report"),
    "table": ("table", "all", "-p", "tiny"),
    "check": ("check", "all", "-p", "tiny"),
    "list": ("list", "--runs", "-p", "tiny"),
    "dump": ("dump", "-p", "tiny", "--to", "csv", "--out", "{out}/records.csv"),
    "show": ("show", "all", "-p", "tiny"),
    "compare": ("compare", "table2/focal", "table2/L6", "-p", "tiny"),
    "audit": ("audit", "all", "-p", "tiny"),
    "figure": ("figure", "all", "-p", "tiny", "--out", "{out}/figures"),
}


def make_records(results: Path, count: int) -> None:
    """``count`` records of different trainings, about as many seeds for each row."""
    registry, chance = Registry(), random.Random(0)
    profile = registry.profile("tiny")
    jobs = {}
    for ref in registry.select("all", "tiny"):
        job = eval_job(resolve(registry, ref, profile), 0)
        jobs.setdefault(job.train, job)
    rows = list(jobs.values())[:ROWS]
    folder = results / "records" / "tiny"
    folder.mkdir(parents=True)
    for i in range(count):
        row = rows[i % len(rows)]
        record = record_of(replace(row, train=replace(row.train, seed=i // len(rows))))
        scores = {"AP": 20 + 5 * chance.random(), "positive_score": chance.random()}
        record = replace(record, metrics=record.metrics | scores)
        write_json(folder / f"{record.eval_id}.json", record, flush=False)


def seconds(folder: Path, command: tuple[str, ...]) -> float:
    """Processor time of one command. Raises CalledProcessError where it fails."""
    environment = {**os.environ, "HARNESS_RUNS": str(folder / "runs"), "HARNESS_RESULTS": str(folder / "results")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [part.format(out=folder) for part in command]
    subprocess.run([sys.executable, "-m", "harness.cli", *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Make the records, time the commands, write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(COMMANDS), metavar="NAME,NAME,...")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        make_records(Path(few) / "results", options.records // FEWER)
        make_records(Path(many) / "results", options.records)
        for name in options.only.split(","):
            small, large = (seconds(Path(folder), COMMANDS[name]) for folder in (few, many))
            found[name] = {"seconds": round(large, 1), "of a tenth": round(small, 1), "ratio": round(large / small, 1)}
            print(f"{name:8} {large:6.1f} s, {large / small:4.1f} times that of a tenth of the records", flush=True)
            results = {"records": options.records, "processor seconds": found}
            RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


if __name__ == "__main__":
    main()
