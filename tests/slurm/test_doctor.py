"""``harness doctor --cluster`` on a real Slurm of two nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.micro import write_experiments
from support.workplace import Workplace

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

SECONDS = 180
Found = dict[str, tuple[str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    write_experiments(tmp_path / "experiments")
    return Workplace(tmp_path)


def changed(cluster_file: Path, folder: Path, old: str = "", new: str = "", more: str = "") -> Path:
    """The two-node cluster file with one line of it replaced, or with more lines."""
    path = folder / "changed.yaml"
    path.write_text(cluster_file.read_text().replace(old, new) + more)
    return path


def doctor(place: Workplace, cluster: Path, *options: str, code: int) -> tuple[Found, str]:
    """What was found, by name, and what the command said while it waited."""
    process = place.start("doctor", "--cluster", str(cluster), "--json", *options)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, out + err
    return {item["name"]: (item["state"], item["text"]) for item in json.loads(out)}, err


def jobs_in_the_queue() -> list[str]:
    """Those that a doctor submitted and that are not just ending."""
    listed = subprocess.check_output(["squeue", "-h", "-o", "%j %T"], text=True).splitlines()
    return [line for line in listed if line.startswith("harness-doctor") and "COMPLETING" not in line]


def test_a_good_cluster_has_nothing_that_fails_and_nothing_is_left(
    place: Workplace, tmp_path: Path, cluster_file: Path
) -> None:
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text("{}")
    found, said = doctor(place, cluster_file, "--data", str(tmp_path / "coco"), code=0)
    assert [name for name, (state, _) in found.items() if state == "fail"] == []
    assert found["processes"] == ("ok", "2 on 2 nodes found each other and summed their ranks (gloo)")
    assert found["locks of others"] == ("ok", "locks of the command's machine and of another process hold here")
    assert found["job"][1].endswith(" ran on n1, n2")
    assert found["COCO data"] == ("ok", f"{tmp_path / 'coco'}: val2017")
    assert {found[name][0] for name in ("runs folder", "links", "code", "torch", "operators", "scontrol")} == {"ok"}
    assert found["versions"] == ("ok", "as here")
    assert found["clocks"][0] == "ok"
    assert ": running" in said
    assert not (tmp_path / "runs" / "doctor").exists()


def test_gpus_that_slurm_gives_and_torch_cannot_see_are_told(
    place: Workplace, tmp_path: Path, cluster_file: Path
) -> None:
    gpus = changed(cluster_file, tmp_path, "nodes: 2", "nodes: 1", more="gpus_per_node: 2\n")
    found, _ = doctor(place, gpus, code=1)
    assert found["GPUs per node"] == ("ok", "4 in main; gpus_per_node: 2")
    state, text = found["GPUs"]
    assert state == "fail"
    assert text.startswith("Slurm gave GPUs 0,1, and torch sees none: ")
    assert found["processes"] == ("ok", "2 on one node found each other and summed their ranks (gloo)")
    assert found["two nodes"][0] == "note"
    (kept,) = (tmp_path / "runs" / "doctor").iterdir()
    assert found["files"] == ("note", f"kept for a closer look: {kept}")


def test_an_unknown_partition_is_told_twice_and_submits_nothing(
    place: Workplace, tmp_path: Path, cluster_file: Path
) -> None:
    found, _ = doctor(place, changed(cluster_file, tmp_path, "partition: main", "partition: nowhere"), code=1)
    assert found["partition"] == ("fail", "there is no 'nowhere'. Known: main, urgent, cheap.")
    assert found["sbatch"][0] == "fail"
    assert "Invalid partition name specified" in found["sbatch"][1]
    assert "job" not in found


def test_the_last_output_of_a_job_that_dies_is_shown(place: Workplace, tmp_path: Path, cluster_file: Path) -> None:
    broken = changed(cluster_file, tmp_path, more="setup: [export PYTHONHOME=/nowhere]\n")
    found, _ = doctor(place, broken, code=1)
    state, text = found["job"]
    assert state == "fail"
    assert "ended as FAILED (NonZeroExitCode)" in text
    assert "0 of 2 processes finished their checks" in text
    assert "No module named 'encodings'" in text


def test_a_job_that_waits_too_long_is_given_up(place: Workplace, holding_file: Path) -> None:
    found, said = doctor(place, holding_file, "--wait", "0.02", code=1)
    assert found["job"][0] == "fail"
    assert "waited longer than 0.02 minutes (--wait) and was cancelled: pending (JobHeldUser)" in found["job"][1]
    assert ": pending (JobHeldUser)" in said
    assert jobs_in_the_queue() == []


def test_an_interrupt_cancels_the_job(place: Workplace, tmp_path: Path, holding_file: Path) -> None:
    process = place.start("doctor", "--cluster", str(holding_file))
    deadline = time.monotonic() + SECONDS
    while not jobs_in_the_queue():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "is cancelled" in err
    assert jobs_in_the_queue() == []
    assert list((tmp_path / "runs" / "doctor").iterdir()) == []
