"""The copy of the code that a submission takes along."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.code import snapshot, version
from tests.repository.layers import PROJECT


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
    os.utime(first, (0, 0))
    copied = [path.stat().st_ino for path in sorted(first.rglob("*.py"))]
    assert snapshot.take_snapshot(runs) == first
    assert [path.stat().st_ino for path in sorted(first.rglob("*.py"))] == copied  # not copied again
    assert first.stat().st_mtime > 0  # its newest use


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
    package = tmp_path / "drloss"
    (package / "__pycache__").mkdir(parents=True)
    kernel = Path("__pycache__/kernels.f-1.py311.0.61.0.source.signature.nbc")
    for name in ("kernels.py", kernel, f"{kernel}.being-written.tmp"):
        (package / name).write_text(str(name))
    monkeypatch.setattr(snapshot, "PACKAGES", ("drloss",))
    monkeypatch.setattr(snapshot, "files", lambda name: tmp_path / name)
    copy = snapshot.take_snapshot(tmp_path / "runs") / "drloss"
    assert [path.name for path in (copy / "__pycache__").iterdir()] == [kernel.name]
    assert (copy / kernel).read_text() == str(kernel)


def test_a_process_of_a_snapshot_finds_the_kernels_compiled(tmp_path: Path) -> None:
    """Whenever the copy was made, and wherever it is."""
    code = (
        "from detector.data import bilinear; print(sum(bilinear._enlarge.stats.cache_hits.values()), bilinear.__file__)"
    )

    def run(folder: Path) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=folder, text=True).split()

    run(PROJECT)
    copy = snapshot.take_snapshot(tmp_path / "runs")
    assert run(copy) == ["1", str(copy / "detector" / "data" / "bilinear.py")]
