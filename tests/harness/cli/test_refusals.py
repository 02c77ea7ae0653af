"""What the operating system refuses is one sentence with the file, and with the variable or option to change."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from pathlib import Path

import pytest

from detector.storage import files
from harness.cli.app import main
from harness.cli.refusals import refusal
from harness.registry.load import Registry
from tests.harness.report.progress.test_in_flight import finish, job_of

PROJECT = Path(__file__).resolve().parents[3]
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ENAMETOOLONG, errno.EEXIST)


@pytest.fixture(autouse=True)
def here(empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_EXPERIMENTS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["harness", "list"])


def said(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that ends with 1 says last."""
    monkeypatch.setattr(sys, "argv", ["harness", *shlex.split(line)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    message = capsys.readouterr().err.strip()
    assert message.count("error: ") == 1
    return message


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize(("variable", "folder"), [("HARNESS_RUNS", "runs"), ("HARNESS_RESULTS", "results")])
def test_a_file_in_the_folder_of_a_variable_names_it(number: int, variable: str, folder: str, tmp_path: Path) -> None:
    path = str(tmp_path / folder / "deep" / "file.json")
    text = refusal(OSError(number, os.strerror(number), path))
    assert text == f"{path}: {os.strerror(number)}. For a folder elsewhere: {variable}=DIR harness ..."
    moved = refusal(OSError(number, os.strerror(number), str(tmp_path / "elsewhere"), None, path))
    assert moved.endswith(f"{variable}=DIR harness ...")


@pytest.mark.parametrize("number", [*ERRORS, errno.ENOENT])
def test_a_file_that_an_option_named_names_the_option(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "schema", "table", "--out", "made/schema.json"])
    assert refusal(OSError(number, os.strerror(number), "made/schema.json")).endswith(" Give another --out.")
    assert refusal(OSError(number, os.strerror(number), os.path.abspath("made"))).endswith(" Give another --out.")
    assert "--out" not in refusal(OSError(number, os.strerror(number), "other.json"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("collect", "HARNESS_RESULTS=DIR"),
        ("schema table --out made/schema.json", "--out"),
        ("dump -p tiny --to csv --out made/records.csv", "--out"),
        ("figure claims -p tiny --out made/claims.svg", "--out"),
        ("bundle export made/bundle.zip", "made/bundle.zip: No space left"),
    ],
)
def test_a_full_disk_is_told_with_what_to_change(
    line: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(job_of(Registry(), "table2/L6"), 23.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(files.os, "replace", full)
    message = said(line, monkeypatch, capsys)
    assert "No space left on device" in message
    assert named in message


@pytest.mark.parametrize(
    "line", ["schema table --out", "dump -p tiny --to csv --out", "figure claims -p tiny --out", "new table mine --out"]
)
def test_a_file_in_the_place_of_a_folder_names_the_option(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(job_of(Registry(), "table2/L6"), 23.0)
    (tmp_path / "file").touch()
    ending = {"dump": ".csv", "figure": ".svg", "schema": ".json"}.get(line.split()[0], "")
    message = said(f"{line} file/sub/made{ending}", monkeypatch, capsys)
    assert message.endswith(": Not a directory. Give another --out.")


def test_a_disk_without_room_for_the_images_of_a_run_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from detector.data.shapes import generate

    monkeypatch.setattr(generate.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    monkeypatch.setattr(sys, "argv", ["harness", "run", "table2/L6", "-p", "tiny"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert "2,300 images of 96 px take 42 MB" in message
    assert message.strip().endswith("HARNESS_RUNS=DIR harness ...")
