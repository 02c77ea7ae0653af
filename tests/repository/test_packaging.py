"""The wheel: what is in it, and that it works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the wheel is built with hatchling (pip install -e '.[dev]')")
pytest.importorskip("build", reason="the wheel is built with build (pip install -e '.[dev]')")

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("harness", "detector", "drloss", "experiments")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, which is all that installing a wheel of Python files does."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """The installed wheel first, then the libraries; with ``-S`` no editable install is looked at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    libraries = sysconfig.get_path("purelib")
    return {**kept, "PYTHONPATH": os.pathsep.join([str(installed), libraries])}


def python(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-S", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_packages_their_data_and_the_licence_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        (entry_points,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert top == set(PACKAGES)
    sources = {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for suffix in ("py", "yaml", "typed", "j2", "sh")
        for path in (PROJECT / package).rglob(f"*.{suffix}")
    }
    assert sources >= {"harness/py.typed", "detector/py.typed", "drloss/py.typed", "experiments/table2.yaml"}
    assert {
        "harness/scaffold/templates/table.yaml.j2",
        "harness/report/page/templates/page.html.j2",
        "harness/slurm/batch/job.sh",
    } <= sources
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in text
    assert "harness = harness.cli:main" in entry_points


def test_installed_wheel_is_what_runs_and_keeps_its_folders_where_it_is_used(
    environment: dict[str, str], installed: Path, tmp_path: Path
) -> None:
    code = (
        "import harness, detector, drloss, experiments\n"
        "from harness.code.version import current_code\n"
        "from harness.folders import results_folder, runs_folder\n"
        "for package in (harness, detector, drloss, experiments): print(package.__file__)\n"
        "print(runs_folder(), results_folder(), current_code().commit, sep='\\n')"
    )
    identity = ("-c", "user.name=user", "-c", "user.email=user@example.org")
    for command in (("init", "--quiet"), (*identity, "commit", "--quiet", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)  # a user's own repository
    *packages, runs, results, commit = python(environment, tmp_path, "-c", code).splitlines()
    assert packages == [str(installed / name / "__init__.py") for name in PACKAGES]
    assert (runs, results) == (str(tmp_path / "runs"), str(tmp_path / "results"))
    assert commit == "None"  # the user's commits say nothing of this code


def test_installed_commands_work_from_a_foreign_folder(environment: dict[str, str], tmp_path: Path) -> None:
    listed = json.loads(python(environment, tmp_path, "-m", "harness.cli", "list", "--json"))
    assert [table["id"] for table in listed["tables"]] == ["table1", "table2", "table3", "table4", "ablations"]
    plan = python(environment, tmp_path, "-m", "harness.cli", "plan", "table2", "--profile", "tiny")
    assert "8 cells -> 8 trainings, 8 to do" in plan
    assert "37.4" in python(environment, tmp_path, "-m", "harness.cli", "table", "all")
    assert not list(tmp_path.iterdir())  # asking leaves nothing behind
