"""The harness's share of a training's time: all that is not data, forward, backward and the optimiser's step.

    python benchmarks/overhead/overhead.py [--data COCO] [--repeats 3] [--pairs 5]

Runs ``harness run table3/dr`` at profile tiny (400 iterations, one process) and, where there are real images, at
profile smoke (the real ResNet-50 RetinaNet, 10 iterations), each ``--repeats`` times with a clock around the calls
(clock.py beside this file). To check the clock, the tiny training runs undisturbed, clocked, and with the harness's
calls replaced by nothing, in turn, ``--pairs`` times; all must end with the same weights to the last bit.
Results: benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch
from tabulate import tabulate

from benchmarks.overhead.agree import two_processes
from benchmarks.overhead.clock import (
    AGREE,
    BEAT,
    BEATS,
    CHECKPOINTS,
    FIRST_BATCH,
    HARNESS,
    METRICS,
    OUTSIDE,
    STEP,
    WINDOW,
    WORK,
)
from detector.weights import checkpoint
from harness.machine import usable_cores

HERE = Path(__file__).parents[1]
RESULTS = HERE / "results" / "overhead.json"
ROW = "table3/dr"
MODES = ("plain", "clocked", "nothing")
# The paper's scale: its schedule, our pace (experiments/profiles/paper.yaml), eight GPUs.
PAPER_SECONDS, PAPER_ITERATIONS, PAPER_CHECKPOINT_EVERY, LOG_EVERY = 0.3, 90_000, 1000, 10
Found = dict[str, Any]


def run(profile: str, mode: str, folder: Path, data: Path) -> Found:
    """One ``harness run`` from an empty runs folder; its worker's times, the command's, and the weights."""
    folder.mkdir()
    environment = {
        **os.environ,
        "OVERHEAD_MODE": mode,
        "OVERHEAD_OUT": str(folder / "times.json"),
        "PYTHONPATH": str(HERE.parent),
        "HARNESS_RUNS": str(folder / "runs"),
        "HARNESS_RESULTS": str(folder / "results"),
    }
    command = [sys.executable, "-m", "benchmarks.overhead.clock", "run", ROW, "--profile", profile, "--data", str(data)]
    began = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    ended = time.time()
    (final,) = (folder / "runs").glob("*/checkpoints/final.pt")
    assert (done.returncode == 0) == (mode == "clocked"), done.stdout + done.stderr  # else there is no evaluation
    found: Found = msgspec.json.decode((folder / "times.json").read_bytes())
    found |= {"began": began, "command_ended": ended, "weights": checkpoint.load(final)["model"]}
    return found


def loop_parts(found: Found) -> dict[str, float]:
    """Seconds of each part of the loop; ``the loop itself`` is what no clock was around."""
    seconds = {part: found["seconds"].get(part, 0.0) for part in (*WORK, *HARNESS)}
    return {**seconds, "the loop itself": found["loop_ended"] - found["loop_began"] - sum(seconds.values())}


def whole_parts(found: Found) -> dict[str, float]:
    """Seconds of each part of the command, one after the other."""
    outside = found["outside"]
    parts = {
        "command: start, imports, plan, data check": found["process"] - found["began"],
        "process: start, submitit": found["called"] - found["process"],
        "imports of torch and the detector": found["imported"] - found["called"],
        "data index, model, TensorBoard": found["loop_began"] - found["imported"],
        "training loop": found["loop_ended"] - found["loop_began"],
        **{part: outside.get(part, 0.0) for part in OUTSIDE},
    }
    after = found["ended"] - found["loop_ended"] - sum(outside.values())
    return {
        **parts,
        "reading weights and annotations again, the rest": after,
        "process: end; command: notices it, ends": found["command_ended"] - found["ended"],
    }


def harness_share(loop: dict[str, float]) -> float:
    """The harness's share of the loop: all that is not WORK, unclocked time included."""
    return 1 - sum(loop[part] for part in WORK) / sum(loop.values())


def medians(items: list[dict[str, float]]) -> dict[str, float]:
    """Median over the runs, for each part."""
    return {part: median(item[part] for item in items) for part in items[0]}


def describe(profile: str, runs: list[Found]) -> tuple[dict[str, Any], list[list[str]]]:
    """The results of one profile, and its table."""
    loop, whole = medians([loop_parts(found) for found in runs]), medians([whole_parts(found) for found in runs])
    loop_total, whole_total = sum(loop.values()), sum(whole.values())
    shares = [harness_share(loop_parts(found)) for found in runs]
    together = harness_share(loop)
    lines = [[part, f"{s:.3f}", percent(s / loop_total), percent(s / whole_total)] for part, s in loop.items()]
    lines.append(["the harness's, together", f"{together * loop_total:.3f}", percent(together), ""])
    lines += [[part, f"{s:.3f}", "", percent(s / whole_total)] for part, s in whole.items()]
    result = {
        "runs": len(runs),
        "iterations": runs[0]["calls"][STEP],
        "loop, seconds": rounded(loop),
        "whole run, seconds": rounded(whole),
        "calls in the loop": dict(runs[0]["calls"]),
        "harness's share of the loop": {
            "median": round(median(shares), 5),
            "min": round(min(shares), 5),
            "max": round(max(shares), 5),
        },
    }
    return result, lines


def paper_scale(tiny: list[Found], model: list[Found], agree: float) -> dict[str, float]:
    """Seconds per iteration at the paper's scale, by part.

    From the cost of one call here: the model-sized calls (checkpoints, first batch) as in ``model``, the others as in
    ``tiny``; the agreement as between two processes.
    """

    def each(runs: list[Found], part: str, calls: str) -> float:
        costs: list[float] = [found["seconds"][part] / found["calls"][calls] for found in runs]
        return median(costs)

    return {
        BEAT: each(tiny, BEATS, BEATS) / LOG_EVERY,
        METRICS: each(tiny, METRICS, METRICS) / LOG_EVERY,
        WINDOW: each(tiny, WINDOW, STEP),  # per iteration, in which its losses are added
        AGREE: agree,
        CHECKPOINTS: each(model, CHECKPOINTS, CHECKPOINTS) / PAPER_CHECKPOINT_EVERY,
        FIRST_BATCH: median([found["seconds"][FIRST_BATCH] for found in model]) / PAPER_ITERATIONS,
    }


def compare(folder: Path, data: Path, pairs: int) -> tuple[dict[str, Any], list[list[str]]]:
    """The loop in the three modes, in turn; ratios of one repeat's times, and whether the weights are the same."""
    seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    weights: list[dict[str, torch.Tensor]] = []
    for pair in range(pairs):
        for mode in MODES if pair % 2 == 0 else MODES[::-1]:
            found = run("tiny", mode, folder / f"{mode}-{pair}", data)
            seconds[mode].append((found["loop_ended"] - found["loop_began"], found["cpu_ended"] - found["cpu_began"]))
            weights.append(found["weights"])
            print(f"pair {pair + 1} of {pairs}, {mode}: loop {seconds[mode][-1][0]:.2f} s", file=sys.stderr, flush=True)
    for other in weights[1:]:
        assert all(torch.equal(value, other[name]) for name, value in weights[0].items()), "the weights differ"
    result: dict[str, Any] = {"repeats": pairs, "same weights to the last bit": True}
    lines = []
    for mode in ("plain", "clocked"):
        for kind, name in enumerate(("wall time", "CPU time")):
            ratios = [a[kind] / b[kind] for a, b in zip(seconds[mode], seconds["nothing"], strict=True)]
            spread = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
            result[f"{mode} to nothing, {name}"] = rounded(spread)
            lines.append([f"{mode} / nothing", name, *(f"{value:.4f}" for value in spread.values())])
    result["seconds"] = {mode: [rounded({"wall": w, "cpu": c}) for w, c in items] for mode, items in seconds.items()}
    return result, lines


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Round to a tenth of a millisecond."""
    return {name: round(value, 4) for name, value in values.items()}


def percent(share: float) -> str:
    """Round to two decimals."""
    return f"{100 * share:.2f}%"


def coco_root() -> Path | None:
    """Where the tests look for real images."""
    root = Path(os.environ.get("HARNESS_COCO_TINY", HERE.parents[1] / "shared" / "data" / "coco-tiny"))
    return root if (root / "annotations").is_dir() else None


def main() -> None:
    """Measure, write the results, print them as tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=coco_root())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"torch": str(torch.__version__), "cores": usable_cores()}
    clocked: dict[str, list[Found]] = {}
    roots = {"tiny": None, **({"smoke": arguments.data.absolute()} if arguments.data else {})}
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        # Draws the data; not counted.
        run("tiny", "plain", folder / "warm-up", folder / "shapes")
        for profile, root in roots.items():
            for repeat in range(arguments.repeats):
                found = run(profile, "clocked", folder / f"{profile}-{repeat}", root or folder / "shapes")
                clocked.setdefault(profile, []).append(found)
                print(f"{profile}, run {repeat + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
            results[profile], lines = describe(profile, clocked[profile])
            print(f"\nProfile {profile}, {results[profile]['iterations']} iterations, {arguments.repeats} runs")
            print(tabulate(lines, ["part", "seconds", "of the loop", "of the run"], disable_numparse=True))
        agreeing = two_processes()
        results["agreement of two processes over gloo, seconds a call"] = agreeing
        if "smoke" in clocked:
            parts = paper_scale(clocked["tiny"], clocked["smoke"], agreeing["median"])
            results[f"at an iteration of {PAPER_SECONDS} s"] = {part: round(s, 7) for part, s in parts.items()}
            lines = [[part, f"{1e6 * s:.1f}", f"{100 * s / PAPER_SECONDS:.4f}%"] for part, s in parts.items()]
            total = sum(parts.values())
            lines.append(["together", f"{1e6 * total:.1f}", f"{100 * total / PAPER_SECONDS:.4f}%"])
            print(f"\nThe same calls against an iteration of {PAPER_SECONDS} s")
            print(tabulate(lines, ["part", "microseconds per iteration", "share"], disable_numparse=True))
        results["check of the clock"], lines = compare(folder, folder / "shapes", arguments.pairs)
        print("\nThe loop with the harness's calls, against the loop with none of them")
        print(tabulate(lines, ["", "", "median", "min", "max"], disable_numparse=True))
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


if __name__ == "__main__":
    main()
