"""What ``benchmarks/gpu_check.sh`` runs: tests, benchmarks and trainings on this machine's GPU, then one table.

Each part is a process of its own with a time limit, and what a part prints goes to a file. A part that fails or does
not end leaves a row that says so, and the next one starts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct
from tabulate import tabulate

from benchmarks.__main__ import measured_here
from benchmarks.gpu.images import make_images
from benchmarks.measure import Report
from benchmarks.page import slug
from detector.storage.files import write_json
from detector.storage.reading import read_json

PROJECT = Path(__file__).resolve().parents[2]
PRECISIONS = ("bf16", "tf32", "fp16", "fp32")
EXPERIMENTS = PROJECT / "benchmarks" / "gpu" / "experiments"
LEAST_SECONDS = 5.0  # with less, a part is not started
HEADERS = ("what", "value", "goal", "")


class Line(Struct, frozen=True):
    """A row of the table at the end."""

    what: str
    value: str
    goal: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Part:
    """A command, the most seconds that it may take, and how its rows are read from what it left."""

    name: str
    seconds: float
    arguments: tuple[str, ...]
    rows: Callable[[], list[Line]]


@dataclass(frozen=True)
class Check:
    """Where results go, the COCO root of the trainings, and whether a CPU stands in for the GPU at small sizes."""

    out: Path
    data: Path
    on_cpu: bool

    def parts(self) -> list[Part]:
        """What matters most comes first. On a busy CPU each may take its time."""
        module = (sys.executable, "-m")
        several = ("-n", "8", "-p", "no:benchmark") if find_spec("xdist") else ()  # most of their time is compilation
        tests = ("pytest", "-q", "-k", "cpu", str(PROJECT / "tests/detector/training/test_gpu_training.py"))
        quick = ("--quick",) if self.on_cpu else ()
        parts = [
            Part(
                "tests",
                self._limit(130),
                (*module, *(tests if self.on_cpu else ("tests.gpu", "-q", *several))),
                self._tests,
            )
        ]
        for name, seconds in (("gpu_losses", 90), ("gpu_step", 105), ("gpu_shapes", 35)):
            into = self.out / f"{name}.json"
            arguments = (*module, "benchmarks", "--only", name, "--into", str(into), *quick)
            parts.append(
                Part(name, self._limit(seconds), arguments, lambda into=into: goal_rows(read_json(into, Report)))
            )
        for precision in ("fp32",) if self.on_cpu else PRECISIONS:
            profile = "gpu-trial" if self.on_cpu else "gpu800"
            command = ("run", "table2/L6", "--profile", profile, "--data", str(self.data))
            changes = ("--set", f"precision={precision}")
            arguments = (*module, "harness.cli", *command, *changes)
            parts.append(
                Part(f"train-{precision}", self._limit(30), arguments, lambda of=precision: self._training(of))
            )
        return parts

    def _limit(self, seconds: float) -> float:
        return 4 * seconds if self.on_cpu else seconds

    def environment(self, name: str) -> dict[str, str]:
        """Each training has folders of its own."""
        folders = {"HARNESS_RUNS": str(self.out / name / "runs"), "HARNESS_RESULTS": str(self.out / name / "results")}
        return {**os.environ, **folders, "HARNESS_EXPERIMENTS": str(EXPERIMENTS)}

    def _tests(self) -> list[Line]:
        last = [line for line in (self.out / "tests.log").read_text().splitlines() if line.strip()][-1]
        return [Line("tests", last, "all pass", "not reached" if "failed" in last else "reached")]

    def _training(self, precision: str) -> list[Line]:
        (metrics,) = (self.out / f"train-{precision}" / "runs").glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        first, last = lines[0]["loss"], lines[-1]["loss"]
        what = f"training, {precision}"
        said = "reached" if last < first else "not reached"
        speed = min(line["seconds_per_iteration"] for line in lines[1:])
        return [
            Line(f"{what}: loss", f"{first:.3f} to {last:.3f} in {lines[-1]['iteration']} iterations", "falls", said),
            Line(f"{what}: the fastest window", f"{speed:.3f} s per iteration"),
        ]


def goal_rows(report: Report) -> list[Line]:
    """The goals of a benchmark; its rows are in its file."""
    return [
        Line(goal.what, f"{goal.value:.3g} {goal.unit}", goal.aim, "reached" if goal.is_met else "not reached")
        for goal in report.goals
    ]


def run_part(part: Part, check: Check, left: float) -> list[Line]:
    """Run it for at most its limit and what is left of the whole; its rows, or one that says what went wrong."""
    limit = min(part.seconds, left)
    log = check.out / f"{part.name}.log"
    if limit < LEAST_SECONDS:
        return [Line(part.name, "not started: no time left", "", "not reached")]
    started, late = time.monotonic(), False
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            part.arguments,
            cwd=PROJECT,
            env=check.environment(part.name),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code, late = process.wait(), True
    print(f"{part.name}: exit code {code} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    rows: list[Line] = []
    try:
        rows = part.rows()
    except Exception as error:  # whatever it left: the other parts go on
        if not late:
            return [Line(part.name, f"failed ({type(error).__name__}); see {log.name}", "", "not reached")]
    if late:
        return [*rows, Line(part.name, f"ended after {limit:.0f} s, its limit; see {log.name}", "", "not reached")]
    return (
        rows if code == 0 or part.name == "tests" else [*rows, Line(part.name, f"exit code {code}", "0", "not reached")]
    )


def keep(reports: Mapping[str, Report], out: Path) -> None:
    """The reports together as ``make bench`` keeps them, to be copied to benchmarks/results."""
    if reports:
        measured = measured_here(dict(reports))
        write_json(out / f"{slug(measured.device)}.json", measured)


def main() -> int:
    """Exit code 0 where every part ended well, whatever the goals; 1 otherwise, and 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="bash benchmarks/gpu_check.sh")
    parser.add_argument("--out", type=Path, required=True, help="the folder of all results")
    parser.add_argument("--data", type=Path, help="a COCO root; without it images are generated")
    parser.add_argument("--cpu", action="store_true", help="small sizes on the CPU, to see that every part runs")
    parser.add_argument("--seconds", type=float, default=480.0, help="after which everything has ended")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    import torch

    if not options.cpu and not torch.cuda.is_available():
        print("no CUDA device: nothing ran on a GPU. --cpu runs all parts on the CPU at small sizes.")
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = options.data.resolve() if options.data else make_images(out / "images")
    check = Check(out, data, options.cpu)
    lines: list[Line] = []
    for part in check.parts():
        lines += run_part(part, check, end - time.monotonic())
    names = ("gpu_losses", "gpu_step", "gpu_shapes")
    keep({name: read_json(file, Report) for name in names if (file := out / f"{name}.json").exists()}, out)
    device = "the CPU, at small sizes: no value means anything" if options.cpu else torch.cuda.get_device_name()
    rows = [(line.what, line.value, line.goal, line.verdict) for line in lines]
    table = f"{device}\n\n{tabulate(rows, HEADERS, tablefmt='simple', disable_numparse=True)}"
    (out / "table.txt").write_text(table + "\n", encoding="utf-8")
    print(table)
    return int(any(line.verdict == "not reached" and not line.goal.startswith(("<=", ">=")) for line in lines))


if __name__ == "__main__":
    sys.exit(main())
