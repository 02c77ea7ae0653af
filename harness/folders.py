"""Where things are: the checkout, experiments, runs and results."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path


def experiments_folder() -> Path:
    """$HARNESS_EXPERIMENTS, else the folder that is installed with the package."""
    given = os.environ.get("HARNESS_EXPERIMENTS")
    return Path(given) if given else Path(str(files("experiments")))


def checkout() -> Path | None:
    """The folder of the sources that run; None for an installed package."""
    parent = Path(str(files("experiments"))).parent
    return parent if (parent / "pyproject.toml").exists() else None


def project_folder() -> Path:
    """The checkout, where there is one; the working directory for an installed package."""
    return checkout() or Path.cwd()


def runs_folder() -> Path:
    """$HARNESS_RUNS, else ``runs`` in the project folder."""
    return Path(os.environ.get("HARNESS_RUNS") or project_folder() / "runs").absolute()


def results_folder() -> Path:
    """$HARNESS_RESULTS, else ``results`` in the project folder."""
    return Path(os.environ.get("HARNESS_RESULTS") or project_folder() / "results").absolute()
