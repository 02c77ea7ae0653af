"""Compares everything here with its peers, in one run: a table, and benchmarks/results/DEVICE.json.

    python -m benchmarks [--only losses,pairs] [--quick] [--page docs/performance.md]

Without ``--only``, a machine with a GPU measures the GPU, and another one its CPU. Each module runs in a process of its
own. ``--only`` runs these alone, and keeps the earlier numbers of the others.
``--quick`` takes small sizes, to see that everything runs, and keeps nothing. ``--page`` writes the page and its plots.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from msgspec.structs import replace

from benchmarks.measure import Report, processor
from benchmarks.modules import MODULES, ON_CPU, ON_GPU
from benchmarks.page import Measured, as_table, goal_lines, kept, slug, write_page
from detector.storage.files import write_json
from detector.storage.reading import read_json
from harness.folders import experiments_folder
from harness.planning.speeds import add_speed

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Exit code 1 where a module failed; the others' numbers are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="MODULE,...")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is kept")
    parser.add_argument("--page", type=Path, help="write the page and its plots from what is kept for all devices")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # where a module's own process puts its report
    options = parser.parse_args()
    chosen = options.only or _of_this_machine(quick=options.quick)
    unknown = set(chosen) - set(MODULES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join(MODULES)}.")
    if options.into:
        (name,) = chosen
        write_json(options.into, import_module(MODULES[name]).report(quick=options.quick))
        return 0
    reports, failed = _run_all(chosen, quick=options.quick)
    print(as_table(reports), *goal_lines(reports), sep="\n")
    if not options.quick:
        _keep(reports)
    if options.page:
        write_page(options.page, kept(RESULTS))
    print(*(f"\n{name} failed." for name in failed), sep="")
    return 1 if failed else 0


def _of_this_machine(*, quick: bool) -> list[str]:
    """The modules of its GPU, else of its CPU; with ``quick`` all, on whatever device there is."""
    import torch

    if quick:
        return list(MODULES)
    return list(ON_GPU if torch.cuda.is_available() else ON_CPU)


def _run_all(names: list[str], *, quick: bool) -> tuple[dict[str, Report], list[str]]:
    reports, failed = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"{name} ...", file=sys.stderr, flush=True)
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "benchmarks", "--only", name, "--into", str(path)]
            done = subprocess.run([*command, *(["--quick"] if quick else [])], check=False)
            if done.returncode == 0:
                reports[name] = read_json(path, Report)
            else:
                failed.append(name)
    return reports, failed


def _keep(reports: dict[str, Report]) -> None:
    """Merge the reports with what is kept for this device, and write them."""
    measured = measured_here(reports)
    path = RESULTS / f"{slug(measured.device)}.json"
    earlier = read_json(path, Measured).reports if path.exists() else {}
    write_json(path, replace(measured, reports=earlier | reports))
    if speeds := [speed for report in reports.values() for speed in report.speeds]:
        add_speed(experiments_folder() / "speeds.yaml", *speeds)
    print(f"\n{path}")


def measured_here(reports: dict[str, Report]) -> Measured:
    """The reports of today, with this machine's device and versions."""
    device, versions = _device()
    return Measured(device=device, versions=versions, day=time.strftime("%Y-%m-%d"), reports=reports)


def _device() -> tuple[str, dict[str, str]]:
    """The GPU, or the CPU where there is none; and what else decides the numbers."""
    import numba
    import torch
    import torchvision

    gpu = torch.cuda.is_available()
    versions = {
        "python": sys.version.split()[0],
        **{module.__name__: str(module.__version__) for module in (torch, torchvision, numba)},
        "processor": f"{processor()}, {os.cpu_count()} cores",
    }
    return torch.cuda.get_device_name() if gpu else f"cpu {processor()}", versions


if __name__ == "__main__":
    sys.exit(main())
