"""``python -m tests.gpu``: which files it opens, what its last line says, and that it fails where nothing ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import gpu

TESTS = """
import pytest

@pytest.mark.gpu
def test_one(): pass

@pytest.mark.gpu
def test_two(): assert {two}

@pytest.mark.gpu
def test_three(): pytest.skip("no")

def test_other(): assert False
"""


def test_files_are_those_with_tests_for_a_gpu() -> None:
    found = {Path(name).name for name in gpu.files()}
    assert {"test_gpu.py", "test_gpu_training.py", "test_gpus.py"} <= found
    assert "test_layers.py" not in found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_fails_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert capsys.readouterr().out.startswith("no CUDA device: nothing ran on a GPU")


@pytest.mark.parametrize(
    ("two", "code", "line"),
    [
        (True, 0, "2 passed on NVIDIA H100, 1 skipped"),
        (False, 1, "1 passed on NVIDIA H100, 1 failed, 1 skipped"),
    ],
)
def test_the_last_line_counts(
    two: bool,
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / f"test_{line.split()[0]}_pass.py"
    file.write_text(TESTS.format(two=two))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(gpu, "files", lambda: [str(file)])
    assert gpu.main(["-p", "no:cacheprovider"]) == code
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_where_all_were_skipped_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_none.py").write_text("def test_other(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs one\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(gpu, "files", lambda: [str(tmp_path / "test_none.py")])
    assert gpu.main(["-p", "no:cacheprovider"]) == 1
