"""What a record says of the GPU's software, on a machine without one."""

from __future__ import annotations

import pynvml
import pytest
import torch

from detector.device import environment
from detector.device.algorithms import training_algorithms


def test_driver_and_the_cuda_version_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.159.04")
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion", lambda: 13000)
    assert environment._gpu_versions()["driver"] == "580.159.04 (CUDA 13.0)"


def test_without_the_drivers_library_its_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert environment._gpu_versions()["driver"].startswith("unknown (")


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_algorithm_is_chosen_by_its_time(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with training_algorithms(torch.device("cuda"), deterministic=deterministic):
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark
