"""What is asked of Slurm, without one: shapes of runs, the script, the dry run, and the copy of the code."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from detector.errors import SchedulerError, UsageError
from detector.runs.assignment import Assignment
from harness.code import snapshot, version
from harness.registry.declarations import Execution
from harness.slurm import submit as slurm
from harness.slurm.batch.script import Shape, make_arrays, shape_of
from harness.slurm.clusters import Cluster
from harness.slurm.reservations import reservation_file
from harness.slurm.submissions import read_submissions
from harness.slurm.submit import submit
from support.micro import micro_assignment, micro_job, write_experiments
from tests.command import error, invoke


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("registry") / "experiments")


@pytest.fixture
def assignment(experiments: Path, tmp_path: Path) -> Assignment:
    job = micro_job(experiments)
    return micro_assignment(job, tmp_path / job.train.id, tmp_path)


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git and the shell's tools, and no srun."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))


def cluster(**changes: Any) -> Cluster:
    return msgspec.convert({"name": "c", "title": "t", "time_minutes": 60, **changes}, Cluster)


def execution(**changes: Any) -> Execution:
    values = {
        **{"gpus_per_run": "all", "threads": 2, "memory_gb": 4.0, "loader_workers": 4},
        **{"checkpoint_every": 1, "groups_per_forward": 1, **changes},
    }
    return msgspec.convert(values, Execution)


def of_groups(assignment: Assignment, groups: int) -> Assignment:
    batch = replace(assignment.train.batch, images=2 * groups, images_per_group=2)
    return replace(assignment, train=replace(assignment.train, batch=batch))


@pytest.mark.parametrize(
    ("groups", "nodes", "gpus", "wanted", "expected"),
    [
        (8, 1, 8, "all", (1, 8)),
        (8, 2, 8, "all", (1, 8)),  # no more processes than groups, and then on fewer nodes
        (8, 2, 4, "all", (2, 4)),
        (8, 1, 6, "all", (1, 4)),  # 6 and 5 do not divide 8
        (6, 2, 4, "all", (2, 3)),
        (8, 3, 3, "all", (2, 2)),  # 3 x 3 and 3 x 2 do not divide 8; nor can 8 be shared by three nodes
        (8, 2, 4, 1, (1, 1)),
        (8, 2, 4, 6, (1, 4)),
        (1, 4, 8, "all", (1, 1)),
        (8, 2, 4, 0, (2, 1)),  # a profile for CPUs: one process per node
        (2, 4, 0, "all", (2, 1)),  # a cluster without GPUs
        (3, 2, 0, "all", (1, 1)),
    ],
)
def test_shape_of_shares_the_groups_evenly(
    assignment: Assignment, groups: int, nodes: int, gpus: int, wanted: str | int, expected: tuple[int, int]
) -> None:
    shape = shape_of(
        of_groups(assignment, groups), cluster(nodes=nodes, gpus_per_node=gpus), execution(gpus_per_run=wanted)
    )
    assert (shape.nodes, shape.tasks_per_node) == expected
    assert shape.on_gpus == (gpus > 0 and wanted != 0)


def test_shape_of_gives_processes_what_the_profile_needs_where_the_cluster_says_nothing(assignment: Assignment) -> None:
    eight = of_groups(assignment, 8)
    assert shape_of(eight, cluster(gpus_per_node=4), execution()) == Shape(1, 4, True, 5, None)
    given = cluster(gpus_per_node=4, cpus_per_gpu=3, memory_gb_per_gpu=1.5)
    assert shape_of(eight, given, execution()) == Shape(1, 4, True, 3, 6.0)


def test_make_arrays_groups_runs_by_shape_and_tells_workers_how_they_run(
    assignment: Assignment, tmp_path: Path
) -> None:
    members = [of_groups(assignment, groups) for groups in (8, 2, 8)]
    arrays = make_arrays(members, cluster(gpus_per_node=4, max_requeues=7), execution(), runs=tmp_path, code="0")
    assert [(array.shape.tasks_per_node, len(array.members)) for array in arrays] == [(4, 2), (2, 1)]
    assert {(item.device, item.max_requeues) for array in arrays for item in array.members} == {("cuda", 7)}
    assert "--array=0-1%2" in arrays[0].script
    assert "--array" not in arrays[1].script
    assert arrays[0].token != arrays[1].token


def test_jobs_of_the_same_runs_from_two_folders_have_different_names(assignment: Assignment, tmp_path: Path) -> None:
    tokens = {
        make_arrays([assignment], cluster(), execution(), runs=tmp_path / folder, code="0")[0].token
        for folder in ("mine", "yours", "mine")
    }
    assert len(tokens) == 2


def test_the_script_holds_what_the_cluster_file_says(assignment: Assignment, tmp_path: Path) -> None:
    given = cluster(
        **{"nodes": 2, "gpus_per_node": 4, "cpus_per_gpu": 6, "memory_gb_per_gpu": 30, "parallel": 3},
        **{"partition": "gpu", "account": "us", "qos": "long", "constraint": "a100", "signal_delay_seconds": 90},
        **{"setup": ["module load cuda"], "container": "apptainer exec --nv x.sif", "python": "python3"},
        extra={"mail-type": "END", "gpus-per-node": "a100:4", "exclusive": True, "overcommit": False},
    )
    (array,) = make_arrays([of_groups(assignment, 8)] * 5, given, execution(), runs=tmp_path, code="c0de")
    lines = array.script.splitlines()
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")}
    folder = f"{tmp_path}/submissions/{array.token}"
    assert options == {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=a100:4", "--cpus-per-task=6", "--mem=122880MB"),
        *("--partition=gpu", "--account=us", "--qos=long", "--constraint=a100", "--time=60", "--signal=USR2@90"),
        *("--mail-type=END", "--exclusive", "--requeue", "--array=0-4%3", "--open-mode=append"),
        *(f"--job-name=harness-{array.token}", f"--output={folder}/%A_%a_0_log.out"),
    }
    assert lines.index("module load cuda") < lines.index("export SUBMITIT_EXECUTOR=slurm")
    (command,) = [line for line in lines if line.startswith("srun ")]
    assert (
        "--kill-on-bad-exit=1 --cpus-per-task=6 apptainer exec --nv x.sif env --block-signal=USR2 python3 -u" in command
    )
    (path,) = [line for line in lines if line.startswith("export PYTHONPATH=")]
    assert path.startswith(f"export PYTHONPATH={tmp_path}/code/c0de$")


def test_a_runs_folder_with_a_line_break_is_refused(assignment: Assignment, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the runs folder: .* has a line break"):
        make_arrays([assignment], cluster(), execution(), runs=tmp_path / "a\n#SBATCH --uid=0", code="0")


@pytest.mark.usefixtures("no_slurm", "empty_folders")
def test_dry_run_needs_no_slurm_and_leaves_nothing(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    result = invoke("run", "table3", "--profile", "tiny", "--seeds", "2", "--cluster", "example", "--dry-run")
    assert "#SBATCH --array=0-5%6" in result.stdout
    assert "6 runs, each on 2 nodes of 1 process:" in result.stderr
    assert "  4: table3/neg-only, seed 1" in result.stderr
    assert not (tmp_path / "runs").exists()
    assert invoke("run", "table3", "--profile", "tiny", "--seeds", "2", "--cluster", "example", "--dry-run").stdout == (
        result.stdout
    )


@pytest.mark.usefixtures("no_slurm")
def test_submit_without_slurm_says_so_and_gives_the_runs_back(assignment: Assignment, tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match=r"There is no Slurm here.*--dry-run"):
        submit([assignment], cluster(), execution(), runs=tmp_path)
    assert not list(tmp_path.glob("*/claim.json"))
    assert [item.state for item in read_submissions(tmp_path)] == ["ended"]


@pytest.mark.parametrize(
    ("said", "message", "states", "reservations"),
    [
        ("sbatch: error: Invalid account", "sbatch refused harness-.*Invalid account", ["ended", "ended"], 0),
        # Perhaps it was submitted: the next command looks for it in the queue. The other was never submitted.
        ("sbatch: error: Socket timed out on send/recv", "may be submitted or not", ["ended", "submitting"], 1),
    ],
)
def test_submit_withdraws_what_was_refused_and_keeps_what_may_be_in_the_queue(
    assignment: Assignment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    message: str,
    states: list[str],
    reservations: int,
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", f"echo '{said}' >&2; exit 1"), ("squeue", "true"), ("srun", "true")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    members = [of_groups(assignment, 8), of_groups(assignment, 2)]  # two shapes: two arrays
    members = [replace(item, run_dir=str(tmp_path / item.train.id)) for item in members]
    with pytest.raises(SchedulerError, match=message):
        submit(members, cluster(gpus_per_node=4), execution(), runs=tmp_path)
    assert sorted(item.state for item in read_submissions(tmp_path)) == states
    assert len(list(tmp_path.glob("*/claim.json"))) == reservations


def test_submit_notes_and_reserves_before_it_calls_sbatch(
    assignment: Assignment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def crash(entry: Any, array: Any, *args: Any, **options: Any) -> None:
        (noted,) = read_submissions(tmp_path)
        seen.append((noted.state, reservation_file(slurm.RunDir(Path(assignment.run_dir))).exists()))
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_submit_array", crash)
    with pytest.raises(KeyboardInterrupt):
        submit([assignment], cluster(), execution(), runs=tmp_path)
    assert seen == [("submitting", True)]


def test_dry_run_needs_a_cluster() -> None:
    assert "--dry-run shows what --cluster NAME would submit" in error("run", "table3", "-p", "tiny", "--dry-run")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of one file each, committed, in the place of ours."""
    packages = tmp_path / "here"
    for package in snapshot.PACKAGES:
        (packages / package / "__pycache__").mkdir(parents=True)
        (packages / package / "__init__.py").write_text(f"name = {package!r}\n")
        (packages / package / "__pycache__" / "x.pyc").write_bytes(b"\0")
    monkeypatch.setattr(snapshot, "files", lambda package: packages / package)
    monkeypatch.setattr("harness.code.version.checkout", lambda: packages)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=u", "-c", "user.email=u@x", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *command], cwd=packages, check=True)
    return packages


def test_snapshot_is_a_copy_that_later_edits_leave_alone(checkout: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = snapshot.take_snapshot(runs)
    assert version.difference() == ""
    assert {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()} == {
        f"{package}/__init__.py" for package in snapshot.PACKAGES
    }
    edited = checkout / "detector" / "__init__.py"
    edited.write_text("name = 'edited'\n")
    assert snapshot.take_snapshot(runs) != first
    assert (first / "detector" / "__init__.py").read_text() == "name = 'detector'\n"
    edited.write_text("name = 'detector'\n")
    stamp = first.stat().st_mtime_ns
    assert snapshot.take_snapshot(runs) == first
    assert first.stat().st_mtime_ns == stamp


def test_the_difference_from_the_commit_has_changes_and_new_files_of_the_packages_alone(checkout: Path) -> None:
    (checkout / "detector" / "__init__.py").write_text("name = 'edited'\n")
    (checkout / "harness" / "new.py").write_text("import os\n")
    (checkout / "notes.txt").write_text("not code")
    difference = version.difference()
    assert "-name = 'detector'\n+name = 'edited'\n" in difference
    assert "+++ b/harness/new.py" in difference
    assert "+import os" in difference
    assert "not code" not in difference
    code = version.current_code(difference)
    assert code.diff_sha256 == hashlib.sha256(difference.encode()).hexdigest()
    assert version.current_code().diff_sha256 is None


def test_a_snapshot_takes_compiled_kernels_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba believes a kernel that lies beside a file of the size and time that it was compiled from."""
    package = tmp_path / "drloss"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("kernels.py", "__pycache__/kernels.f-1.py311.nbi", "__pycache__/kernels.f-1.py311.1.nbc"):
        (package / name).write_text(name)
    os.utime(package / "kernels.py", ns=(10**18, 10**18 + 123456789))
    monkeypatch.setattr(snapshot, "PACKAGES", ("drloss",))
    monkeypatch.setattr(snapshot, "files", lambda name: tmp_path / name)
    copy = snapshot.take_snapshot(tmp_path / "runs") / "drloss"
    assert {path.name for path in (copy / "__pycache__").iterdir()} == {
        "kernels.f-1.py311.nbi",
        "kernels.f-1.py311.1.nbc",
    }
    assert (copy / "kernels.py").stat().st_mtime_ns == 10**18 + 123456789
