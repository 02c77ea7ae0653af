"""The tiny profile's learning rate, measured on a generated set that no table reports (data.seed=1).

    python -m benchmarks.calibration.tune_tiny [--rates 0.1 0.2 0.4] [--seeds 2]

Trains the focal and the DR row at each rate through ``harness run``.
Results: benchmarks/results/tiny_learning_rate.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from harness.folders import results_folder, runs_folder
from harness.planning.plan import make_plan
from harness.registry.load import Registry
from harness.store.records import Store

ROWS = ("table2/focal", "table2/L6")
TUNING_DATA_SEED = 1
RESULT = Path(__file__).parents[1] / "results" / "tiny_learning_rate.json"


def average_precision(ref: str, rate: float, seeds: int) -> list[float]:
    """AP of each seed, trained now where it is missing."""
    overrides = {"data.seed": TUNING_DATA_SEED, "optimizer.lr": rate}
    command = [sys.executable, "-m", "harness.cli", "run", ref, "--profile", "tiny", "--seeds", str(seeds)]
    for path, value in overrides.items():
        command += ["--set", f"{path}={value}"]
    subprocess.run(command, check=True)
    registry = Registry()
    plan = make_plan(registry, [ref], registry.profile("tiny"), seeds=seeds, overrides=overrides)
    store = Store(runs_folder(), results_folder())
    records = [store.run_dir(cell.job.train.id).read_record(cell.job.id) for cell in plan.cells]
    return [record.metrics["AP"] or 0.0 for record in records if record is not None]


def main() -> None:
    """Train, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.2, 0.4])
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    found = {
        ref: {str(rate): average_precision(ref, rate, arguments.seeds) for rate in arguments.rates} for ref in ROWS
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"data_seed": TUNING_DATA_SEED, "AP": found}, indent=2) + "\n")
    lines = [[ref, *(" ".join(f"{ap:.1f}" for ap in aps) for aps in rates.values())] for ref, rates in found.items()]
    print(tabulate(lines, ["row", *(f"lr {rate}" for rate in arguments.rates)], disable_numparse=True))


if __name__ == "__main__":
    main()
