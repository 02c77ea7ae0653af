"""What a living ``harness run`` still has to do, as other commands see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from harness.launch.lease import LeasedView, launchers_folder, leased, leasing

HOLDS = """
import sys
from pathlib import Path
from harness.launch.lease import leasing
with leasing(Path(sys.argv[1]), ["a", "b"]):
    print("ready", flush=True)
    sys.stdin.read()
"""


def holding(runs: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(runs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_runs_are_leased_until_they_end_and_until_the_command_ends(tmp_path: Path) -> None:
    assert leased(tmp_path) == set()
    with leasing(tmp_path, ["a" * 16, "b" * 16]) as ended:
        (path,) = launchers_folder(tmp_path).iterdir()
        assert path.name.endswith(f"-{os.getpid()}.json")
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert leased(tmp_path) == {"a" * 16, "b" * 16}
        ended("a" * 16)
        ended("never leased")
        assert leased(tmp_path) == {"b" * 16}
        ended("b" * 16)
        assert leased(tmp_path) == set()
        assert path.exists()  # the command still lives
    assert list(launchers_folder(tmp_path).iterdir()) == []


def test_another_process_sees_the_lease_and_a_killed_one_leaves_none(tmp_path: Path) -> None:
    process = holding(tmp_path)
    try:
        assert leased(tmp_path) == {"a", "b"}
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert len(list(launchers_folder(tmp_path).iterdir())) == 1
        assert leased(tmp_path) == set()
        assert list(launchers_folder(tmp_path).iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_two_commands_of_one_host_and_number_have_a_file_each(tmp_path: Path) -> None:
    with leasing(tmp_path, ["a"]), leasing(tmp_path, ["b"]):
        assert leased(tmp_path) == {"a", "b"}
        assert len(list(launchers_folder(tmp_path).iterdir())) == 2
    assert list(launchers_folder(tmp_path).iterdir()) == []


def test_odd_files_there_are_neither_read_for_ever_nor_in_the_way(tmp_path: Path) -> None:
    folder = launchers_folder(tmp_path)
    folder.mkdir()
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "other.txt").write_text("kept")
    assert leased(tmp_path) == set()
    assert (folder / "other.txt").exists()


def test_a_file_that_cannot_be_written_keeps_no_run_back(tmp_path: Path) -> None:
    launchers_folder(tmp_path).write_text("a file in its place")
    with leasing(tmp_path, ["a"]) as ended:
        ended("a")


def test_the_view_passes_all_on_and_tells_of_each_end() -> None:
    said: list[object] = []

    class View:
        def update(self, train_id: str, status: object) -> None:
            said.append(("update", train_id))

        def note(self, train_id: str, text: str) -> None:
            said.append(("note", text))

        def finish(self, train_id: str, text: str) -> None:
            said.append(("finish", text))

    view = LeasedView(View(), said.append)
    view.update("a", None)
    view.note("a", "hm")
    view.finish("a", "done")
    assert said == [("update", "a"), ("note", "hm"), "a", ("finish", "done")]
