"""A whole run on a machine with Docker's 64 MB of shared memory: it ends with the cause, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.own_data import own_data
from support.workplace import Workplace

OWN_MOUNTS = ("unshare", "-m", "bash", "-c")
LITTLE = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
SECONDS = 30
PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_run_with_too_little_shared_memory_ends_with_its_cause(tmp_path: Path) -> None:
    """Four workers with batches of 16 images of 800 px; a run of more than 30 seconds is an error."""
    if subprocess.run([*OWN_MOUNTS, LITTLE], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: mounts of one's own (unshare -m) are not permitted here")
    place = Workplace(tmp_path)
    root = own_data(tmp_path / "photos", splits=("train", "val"), num_train=16, num_test=2, size=800)
    place.harness("new", "profile", "large", "--data", str(root), "--cpu", "--iterations", "3")
    (path,) = (tmp_path / "experiments" / "profiles").glob("large.yaml")
    profile = yaml.safe_load(path.read_text())
    profile["short_side_800"] = 800
    profile["settings"]["batch"] = {"images": 16}
    profile["execution"] |= {"loader_workers": 4, "groups_per_forward": 1}
    path.write_text(yaml.safe_dump(profile))
    command = f"{LITTLE} && exec {sys.executable} -m harness.cli run table2/L6 --profile large --data '{root}'"
    done = subprocess.run(
        [*OWN_MOUNTS, command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=place.environment | {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for word in ("/dev/shm", "--shm-size", "loader_workers"):
        assert word in done.stdout + done.stderr
    assert not list(tmp_path.glob("runs/*/evals/*/record.json"))
