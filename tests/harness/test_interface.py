"""What ``import harness`` offers, and that no module hides it once it is imported."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

import detector
import drloss
import harness
from tests.conftest import PROJECT

# In one process: every module of the three packages, then every public name.
EVERYTHING = """
import importlib, inspect, pkgutil, sys
import detector, drloss, harness
for package in (drloss, detector, harness):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.rpartition(".")[2] != "__main__":  # it is the command
            importlib.import_module(module.name)
for package in (drloss, detector):
    for name in package.__all__:
        assert hasattr(package, name) and not inspect.ismodule(getattr(package, name)), name
assert len(harness.table("table2", profile="tiny")) == 8
assert len(harness.records("table2", profile="tiny")) == 24
assert len(harness.claims("table2", profile="tiny"))
assert len(harness.plan("table2", profile="tiny")) == 8
for function in (harness.curves, harness.run):
    try:
        function("table2/L7", profile="tiny")
    except detector.errors.UsageError as error:
        assert "Unknown row 'L7'" in str(error)
    else:
        raise AssertionError(function)
assert set(harness.__all__) == {"claims", "curves", "plan", "records", "run", "table"}
"""


def run(code: str, **environment: str) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_pinned() -> None:
    assert harness.__all__ == ["claims", "curves", "plan", "records", "run", "table"]
    assert set(harness.__all__) <= set(dir(harness))
    with pytest.raises(AttributeError, match="has no attribute 'tables'"):
        _ = harness.tables


def test_every_public_name_is_documented_with_an_example() -> None:
    for name in harness.__all__:
        text = inspect.getdoc(getattr(harness, name)) or ""
        assert "Raises" in text, name
        assert ">>> " in text, name


def test_importing_the_package_loads_no_pandas_and_no_torch_until_a_name_is_used() -> None:
    run(
        "import sys, harness; assert not {'pandas', 'numpy', 'torch', 'yaml'} & set(sys.modules); "
        "harness.table; assert 'pandas' in sys.modules and 'torch' not in sys.modules"
    )


def test_no_room_has_the_name_of_a_function() -> None:
    for package in (drloss, detector, harness):
        rooms = {module.name for module in pkgutil.iter_modules(package.__path__)}
        assert rooms.isdisjoint(package.__all__)


@pytest.mark.slow
def test_no_module_hides_a_public_name_once_all_are_imported(tmp_path: object) -> None:
    run(EVERYTHING, HARNESS_RUNS=f"{tmp_path}/runs", HARNESS_RESULTS=str(PROJECT / "results"))
