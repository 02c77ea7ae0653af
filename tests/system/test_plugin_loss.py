"""A loss from another package by the commands of docs/losses.md: declared, explained, refused, trained to a record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.loss_package import install_package, write_package
from support.micro import write_experiments
from support.workplace import make_workplace
from tests.pages import blocks

PROJECT = Path(__file__).resolve().parents[2]
SET = "loss={name: running_focal, momentum: 0.5}"
# One process for all commands that only read: the types of a process are made when it starts.
READS = f"""
import json, os, sys
from harness.doctor.machine import examine
from tests.command import error, invoke
explain = ["explain", "table2/focal", "--profile", "tiny", "--set"]
said = {{
    "schema": [invoke("schema", kind).stdout for kind in ("recipe", "table")],
    "explain": json.loads(invoke(*explain, {SET!r}, "--json").stdout),
    "wrong value": error(*explain, "loss={{name: running_focal, momentum: 2}}"),
    "unknown key": error(*explain, "loss={{name: running_focal, momentun: 0.5}}"),
    "unknown name": error(*explain, "loss={{name: runing_focal}}"),
    "unusable": error(*explain, "loss={{name: bad}}"),
    "doctor": {{found.name: [found.state, found.text] for found in examine(None) if found.name.startswith("loss ")}},
}}
os.environ["HARNESS_EXPERIMENTS"] = sys.argv[1]
said["row"] = error("explain", "table2/focal", "--profile", "tiny")
print(json.dumps(said))
"""
BROKEN = {"running_focal": "bad", "running-focal": "bad", "from msgspec": "import no_such_library\nfrom msgspec"}


def environment(*sites: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*sites, PROJECT])), **more}


def reads(place: Path, *sites: Path) -> dict[str, Any]:
    """What the commands say; the last experiments have a row whose loss has a wrong value."""
    experiments = write_experiments(place / "experiments")
    table = experiments / "table2.yaml"
    row = "  - id: focal\n    set:\n      loss: {name: running_focal, gamma: -1}\n"
    table.write_text(table.read_text().replace("  - id: focal\n", row, 1))
    folders = {"HARNESS_RUNS": str(place / "runs"), "HARNESS_RESULTS": str(place / "results")}
    command = [sys.executable, "-c", READS, str(experiments)]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment(*sites, **folders), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def install_broken(folder: Path) -> Path:
    """A package ``bad`` that cannot be imported, written as an installer leaves it."""
    info = folder / "bad-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("[drloss.losses]\nbad = bad_loss:SPEC\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 0.1\n")
    return folder


@pytest.mark.slow
def test_commands_know_a_loss_of_a_package_and_refuse_what_is_wrong(tmp_path: Path) -> None:
    said = reads(tmp_path, install_package(tmp_path), install_broken(tmp_path / "bad"))
    for text, name, field in zip(said["schema"], ("RecipeFile", "Row"), ("settings", "set"), strict=True):
        parts = json.loads(text)["$defs"]
        assert {"$ref": "#/$defs/RunningFocalConfig"} in parts[name]["properties"][field]["properties"]["loss"]["anyOf"]
        assert parts["RunningFocalConfig"]["properties"]["momentum"]["default"] == 0.9
    settings = {item["path"]: item["value"] for item in said["explain"]["settings"]}
    assert settings["loss.name"] == "running_focal"
    assert settings["loss.momentum"] == 0.5
    assert "loss.momentum" in said["wrong value"]
    assert re.search(r"momentum.* 2", said["wrong value"])
    assert "unknown key 'momentun'. Known keys: alpha, gamma, initial_positives, momentum, name." in said["unknown key"]
    choices = "Valid: name: dr, name: focal, name: cross_entropy, name: running_focal."
    assert f"loss.name is 'runing_focal': invalid value 'runing_focal'. {choices}" in said["unknown name"]
    reason = "The loss 'bad' of bad==0.1 cannot be used: bad_loss:SPEC cannot be imported (ModuleNotFoundError"
    assert reason in said["unusable"]
    assert said["doctor"]["loss running_focal"] == [
        "ok",
        "running-focal==0.1.0; it must be installed wherever runs are executed",
    ]
    state, text = said["doctor"]["loss bad"]
    assert state == "note"
    assert text.startswith("bad==0.1 cannot be used: bad_loss:SPEC cannot be imported")
    assert re.search(r"table2\.yaml:\d+: .*gamma is -1", said["row"])


def test_the_version_of_the_package_is_part_of_a_runs_id(tmp_path: Path) -> None:
    code = (
        "from harness.registry.load import Registry; from harness.registry.resolve import eval_job, resolve; "
        "registry = Registry(); row = resolve(registry, 'table2/focal', registry.profile('tiny'), "
        "overrides={'loss': {'name': 'running_focal'}}); job = eval_job(row, 0).train; print(job.id, job.loss_package)"
    )
    found = []
    for name, changes in (("one", {}), ("again", {}), ("two", {'version = "0.1.0"': 'version = "0.2.0"'})):
        site = install_package(tmp_path / name, changes)
        command = [sys.executable, "-c", code]
        found.append(subprocess.run(command, env=environment(site), check=True, capture_output=True, text=True).stdout)
    assert found[0] == found[1]
    assert found[0].split()[1] == "running-focal==0.1.0"
    assert found[2].split()[1] == "running-focal==0.2.0"
    assert found[0].split()[0] != found[2].split()[0]


@pytest.mark.slow
def test_the_commands_of_the_page_train_to_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install_package(tmp_path)
    place = make_workplace(tmp_path / "place", iterations=4)
    monkeypatch.setenv("PYTHONPATH", environment(site)["PYTHONPATH"])
    (commands,) = (body for body in blocks("losses.md", "shell") if "--editable running-focal" in body)
    (run,) = (line for line in commands.splitlines() if line.startswith("harness run "))
    arguments = run.removeprefix("harness run ").split(" --set ")
    assert arguments[1] == f"'{SET}'"
    place.harness("run", *arguments[0].split(), "--set", SET)
    (path,) = (place.root / "runs").glob("*/evals/*/record.json")
    record = json.loads(path.read_text())
    assert record["job"]["train"]["loss"] == {"name": "running_focal", "momentum": 0.5} | {
        name: record["job"]["train"]["loss"][name] for name in ("alpha", "gamma", "initial_positives")
    }
    assert record["job"]["train"]["loss_package"] == "running-focal==0.1.0"
    assert re.fullmatch(r"[0-9a-f]{64}", record["code"]["loss_sha256"])
    tests = write_package(tmp_path / "source") / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tests), str(tests)]
    subprocess.run(command, cwd=tests, check=True, capture_output=True)
