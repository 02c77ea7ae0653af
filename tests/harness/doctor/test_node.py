"""What a check finds on a node: each check by hand, and whole checks as processes of a job that Slurm did not start."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import detector
from detector.storage.files import write_json
from detector.storage.reading import read_json
from harness.doctor import node_checks
from harness.doctor.node import Marker, NodeCheckFolder, NodeReport, ReportWriter
from harness.doctor.node_meeting import ProcessInfo, exchange

PROJECT = Path(detector.__file__).parents[1]
SECONDS = 120
ALONE = [
    "runs folder",
    "links",
    "code",
    "torch",
    "operators",
    "pycocotools",
    "scontrol",
    "/dev/shm",
    "open files",
    "locks",
]


def check(folder: Path, *, variables: dict[str, str] | None = None, **changes: Any) -> dict[str, tuple[str, str]]:
    """A check as the batch script starts it, which must end well; what it reports by name, once it is through."""
    values = {
        **{"folder": str(folder), "nonce": "right", "code": str(PROJECT), "on_gpus": False, "data": None},
        **{"packages": ["numpy"], "requeues": False, "wait": 1.0, **changes},
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    task = folder / "task-0.json"
    task.write_text(json.dumps(values))
    subprocess.run(
        [sys.executable, "-m", "harness.doctor.node", str(task)],
        env={**environment, "SLURMD_NODENAME": "n1", **(variables or {})},
        cwd=PROJECT,
        check=True,
        timeout=SECONDS,
    )
    report = read_json(NodeCheckFolder(folder).report(0), NodeReport)
    assert (report.rank, report.node, report.doing) == (0, "n1", "")
    assert set(report.versions) == {"python", "numpy"}
    return {check.name: (check.state, check.text) for check in report.checks}


def test_check_of_one_process_finds_everything_in_order(tmp_path: Path) -> None:
    write_json(NodeCheckFolder(tmp_path).marker, Marker("right", 12.5))
    NodeCheckFolder(tmp_path).scontrol.write_text("JobId=7 JobState=RUNNING\n")
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text("{}")
    with ExitStack() as stack:
        node_checks.take_lock(NodeCheckFolder(tmp_path).lock("command"), stack)
        found = check(tmp_path, data=str(tmp_path / "coco"))
    assert list(found) == [*ALONE[:6], "COCO data", *ALONE[6:], "locks of others"]
    assert {name for name, (state, _) in found.items() if state != "ok"} <= {"/dev/shm"}
    assert found["COCO data"] == ("ok", f"{tmp_path / 'coco'}: val2017")
    assert found["scontrol"] == ("ok", "answers the batch script")
    assert read_json(NodeCheckFolder(tmp_path).report(0), NodeReport).marker_time == 12.5


def test_check_goes_on_after_what_fails_and_ends_though_the_others_never_come(tmp_path: Path) -> None:
    write_json(NodeCheckFolder(tmp_path).marker, Marker("of another folder", 0.0))
    for kind in ("present", "tried"):  # rank 1 was here, and is seen no more
        write_json(tmp_path / f"{kind}-1.json", ProcessInfo("n2", False))
    variables = {
        **{
            "SLURM_PROCID": "0",
            "SLURM_NTASKS": "2",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_ID": "7",
            "SLURM_LOCALID": "0",
        },
        "SLURM_JOB_NODELIST": "localhost,n2",
    }
    found = check(tmp_path, variables=variables, code=str(tmp_path / "copy"), data=str(tmp_path / "none"))
    assert list(found) == [
        *(*ALONE[:6], "COCO data", *ALONE[6:], "files of others", "locks of others", "processes"),
    ]
    assert {name for name, (state, _) in found.items() if state == "fail"} == {
        *("runs folder", "code", "COCO data", "processes"),
    }
    assert found["code"][1].startswith(f"runs would import {PROJECT / 'detector'} and not the copy of the code")
    assert found["locks of others"][0] == "note"  # nobody holds the command's lock
    assert "the 2 processes did not find each other (gloo) in 1 s; rank 0 is at localhost" in found["processes"][1]


def test_report_writer_takes_an_error_for_a_failure_and_says_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    writer = ReportWriter(path, NodeReport(rank=0, node="n1", marker_time=0.0, time=0.0, versions={}))

    def fail() -> tuple[Literal["ok"], str]:
        assert read_json(path, NodeReport).doing == "second"
        raise PermissionError(errno.EACCES, "Permission denied", "/coco")

    assert writer.check("first", lambda: ("note", "fine"))
    assert not writer.check("second", fail)
    writer.close()
    report = read_json(path, NodeReport)
    assert report.doing == ""
    assert [(check.name, check.state, check.text) for check in report.checks] == [
        ("first", "note", "fine"),
        ("second", "fail", "[Errno 13] Permission denied: '/coco'"),
    ]


def test_exchange_reads_what_the_others_leave_and_names_who_left_nothing(tmp_path: Path) -> None:
    me, other = ProcessInfo("n1", True), ProcessInfo("n2", False)
    write_json(tmp_path / "present-1.json", other)
    assert exchange(tmp_path, "present", me, rank=0, size=2, wait=0.0) == {0: me, 1: other}
    with pytest.raises(TimeoutError, match="there was no file of rank 2, 3"):
        exchange(tmp_path, "present", me, rank=0, size=4, wait=0.0)
    assert exchange(tmp_path, "present", me, rank=0, size=4, wait=0.0, strict=False) == {0: me, 1: other}


def test_links_and_renames_leave_nothing_behind(tmp_path: Path) -> None:
    assert node_checks.links_and_renames(tmp_path, "me")[0] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_links_fail_where_the_file_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    state, text = node_checks.links_and_renames(tmp_path, "me")
    assert state == "fail"
    assert f"no hard links in {tmp_path} (Operation not permitted)" in text


def test_links_fail_where_a_link_replaces_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda source, target: None)
    assert node_checks.links_and_renames(tmp_path, "me")[0] == "fail"


def test_take_lock_fails_where_flock_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with ExitStack() as stack:
        state, text = node_checks.take_lock(tmp_path / "a.lock", stack)
    assert (state, "No locks available" in text) == ("fail", True)


def test_locks_of_others_are_honoured_as_long_as_they_are_held(tmp_path: Path) -> None:
    paths = [tmp_path / "command.lock", tmp_path / "1.lock"]
    with ExitStack() as stack:
        node_checks.take_lock(paths[0], stack)
        assert node_checks.locks_of_others(paths[:1]) == ("ok", "locks of the command's machine hold here")
        state, text = node_checks.locks_of_others(paths)
        assert (state, text.startswith("1.lock, locked on another machine, could be locked")) == ("note", True)
        node_checks.take_lock(paths[1], stack)
        assert node_checks.locks_of_others(paths)[0] == "ok"
    assert node_checks.locks_of_others(paths)[0] == "note"


@pytest.mark.parametrize(
    ("count", "given", "local", "state", "text"),
    [
        (0, "0,1", 0, "fail", "Slurm gave GPUs 0,1, and torch sees none: RuntimeError: no driver"),
        (0, "", 0, "fail", "Slurm gave no GPUs (CUDA_VISIBLE_DEVICES), and torch sees none"),
        (1, "0", 1, "fail", "Slurm gave GPUs 0, torch sees 1, and process 1 of the node takes GPU 1"),
        (2, "2,3", 1, "ok", "Slurm gave GPUs 2,3, torch sees 2 (H100); there NMS on cuda:1"),
    ],
)
def test_gpus_compare_what_slurm_gave_with_what_torch_sees(
    monkeypatch: pytest.MonkeyPatch, count: int, given: str, local: int, state: str, text: str
) -> None:
    def no_driver(*arguments: object, **options: object) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H100")
    monkeypatch.setattr(torch, "zeros", no_driver)
    monkeypatch.setattr(node_checks, "operators_work", lambda device: ("ok", f"NMS on {device}"))
    found = node_checks.gpus_work(local)
    assert found[0] == state
    assert text in found[1]


def test_gpus_say_that_a_build_of_torch_is_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "is a build for CPUs" in node_checks.gpus_work(0)[1]


def test_data_must_have_annotations_that_can_be_read(tmp_path: Path) -> None:
    assert node_checks.data_is_readable(tmp_path)[0] == "fail"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_a.json").write_text("{}")
    (tmp_path / "a").mkdir()
    assert node_checks.data_is_readable(tmp_path) == ("ok", f"{tmp_path}: a")


def test_of_every_split_an_image_is_read_wherever_its_images_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "annotations/instances_a.json",
        "annotations/image_info_test-dev2017.json",
        "a/1.jpg",
        "test2017/2.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    read, opened = set[str](), Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: read.add(path.name) or opened(path, mode))
    assert node_checks.data_is_readable(tmp_path)[0] == "ok"
    assert read == {"instances_a.json", "image_info_test-dev2017.json", "1.jpg", "2.jpg"}


@pytest.mark.parametrize(("needed", "expected"), [(True, "fail"), (False, "note")])
@pytest.mark.parametrize("said", ["", "job.sh: line 7: scontrol: command not found", "Unable to contact"])
def test_scontrol_matters_where_runs_may_be_queued_again(needed: bool, expected: str, said: str) -> None:
    state, text = node_checks.scontrol_answered(said, needed=needed)
    assert state == expected
    assert f"({said or 'nothing was printed'})" in text


def test_scontrol_that_knows_the_job_answers() -> None:
    said = "JobId=7 JobName=doctor-0 JobState=RUNNING"
    assert node_checks.scontrol_answered(said, needed=True) == ("ok", "answers the batch script")


@pytest.mark.parametrize(("gib", "state"), [(0.0625, "note"), (1.0, "ok"), (24.0, "ok")])
def test_shared_memory_is_little_below_a_gib(monkeypatch: pytest.MonkeyPatch, gib: float, state: str) -> None:
    class Usage:
        total = gib * 2**30

    monkeypatch.setattr(node_checks.shutil, "disk_usage", lambda path: Usage)
    assert node_checks.shared_memory()[0] == state


@pytest.mark.parametrize(
    ("hard", "state", "said"), [(256, "note", "ulimit -n"), (4096, "ok", "4096"), (-1, "ok", "without limit")]
)
def test_few_open_files_are_noted(monkeypatch: pytest.MonkeyPatch, hard: int, state: str, said: str) -> None:
    monkeypatch.setattr(node_checks.resource, "getrlimit", lambda kind: (hard, hard))
    found, text = node_checks.open_files_limit()
    assert found == state
    assert said in text
