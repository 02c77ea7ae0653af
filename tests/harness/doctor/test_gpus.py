"""What ``harness doctor`` says of GPUs, with stand-ins for nvidia-smi and torch's view of the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.doctor import gpus
from harness.doctor.gpus import covers, driver, gpu_answers, gpu_works


@pytest.mark.parametrize(
    ("built", "capability", "expected"),
    [
        (["sm_80", "sm_90"], (9, 0), True),
        (["sm_80", "sm_86"], (8, 9), True),  # the same first digit
        (["sm_86"], (8, 0), False),  # an older one
        (["sm_80", "sm_90"], (10, 0), False),
        (["sm_80", "compute_90"], (10, 0), True),  # compiled at the start
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_120"], (12, 1), True),
        (["gfx942"], (9, 0), False),
        ([], (9, 0), False),
    ],
)
def test_covers(built: list[str], capability: tuple[int, int], expected: bool) -> None:
    assert covers(built, capability) == expected


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, prints: str, code: int = 0) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{prints}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "570.86.15, 0")
    assert driver() == ("ok", "570.86.15")
    smi(tmp_path, monkeypatch, "570.86.15, [N/A]")
    assert driver() == ("ok", "570.86.15")


def test_driver_tells_memory_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "570.86.15, 3")
    assert driver() == ("note", "570.86.15; uncorrectable memory errors since the last start: GPU 0: 3")


def test_driver_that_does_not_fit_fails_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "Failed to initialize NVML: Driver/library version mismatch", 18)
    assert driver() == ("fail", "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch")


def test_without_gpus_it_is_a_note() -> None:
    assert gpu_answers(0) == [("GPUs", ("note", "none: profiles run on the CPU"))]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_that_torch_does_not_see_are_a_failure() -> None:
    (_, (state, text)), *_ = gpu_answers(2)
    assert state == "fail"
    assert text.startswith("2, and torch sees none: ")


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as it speaks of a GPU, which computes on the CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 * 2**30, 80 * 2**30))
    monkeypatch.setattr(gpus, "operators_work", lambda device: ("ok", "torchvision's NMS keeps 1 of 1"))
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))


@pytest.mark.usefixtures("hopper")
def test_a_gpu_that_works_is_described() -> None:
    assert gpu_works(0) == (
        "ok",
        "NVIDIA H100, architecture sm_90, 70 of 80 GiB free; torchvision's NMS keeps 1 of 1",
    )


@pytest.mark.usefixtures("hopper")
def test_a_gpu_that_others_use_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (7 * 2**30, 80 * 2**30))
    state, text = gpu_works(0)
    assert state == "note"
    assert text.endswith("; others use it")


@pytest.mark.usefixtures("hopper")
def test_a_gpu_without_code_in_this_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (12, 1))
    assert gpu_works(0) == (
        "fail",
        "NVIDIA H100, architecture sm_121, for which this torch has no code (it has sm_80, sm_90); install one that "
        "has",
    )


@pytest.mark.gpu
def test_the_gpus_of_this_machine_work() -> None:
    states = {name: state for name, (state, _) in gpu_answers(torch.cuda.device_count())}
    assert states["GPU 0"] != "fail"
    assert states["GPUs"] == "ok"
