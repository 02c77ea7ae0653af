"""What tests of Triton kernels share: where they run, and how they are compiled without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
# The interpreter has to be chosen before triton is imported, so in a process of its own.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
in_interpreter = pytest.mark.skipif(not INTERPRETED, reason="test_builds runs these in Triton's interpreter")
on_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = [pytest.param("cpu", marks=in_interpreter), pytest.param("cuda", marks=[on_gpu, pytest.mark.gpu])]


def run_in_interpreter(*tests: Path) -> str:
    """What pytest prints for these files with Triton's interpreter; AssertionError where a test fails."""
    # Triton 3.6's own interpreter does this with numpy's arrays.
    allowed = ("-W", "ignore:Conversion of an array with ndim:DeprecationWarning")
    command = (sys.executable, "-m", "pytest", "-q", *allowed, *map(str, tests), "-k", "cpu")
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    return finished.stdout


class NoDevice:
    """As much of a triton driver as compiling takes."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> str:
        return f"sm_{self.capability}"  # a cache of its own, so that no real device is handed these kernels

    def get_current_stream(self, device: str) -> int:
        return 0


def compile_only(monkeypatch: pytest.MonkeyPatch, capability: int) -> list[Any]:
    """From here on kernels are compiled for this capability and not launched; the list gets them in their order."""
    if INTERPRETED or find_spec("triton") is None:
        pytest.skip("needs triton, and not its interpreter")
    from triton import knobs
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    if not Path(knobs.nvidia.ptxas.path).is_file():
        pytest.skip("needs ptxas")
    launch, compiled = JITFunction.run, []

    def compile_it(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        compiled.append(launch(kernel, *args, grid=grid, warmup=True, **options))

    monkeypatch.setattr(driver, "_active", NoDevice(capability))
    monkeypatch.setattr(JITFunction, "run", compile_it)
    return compiled
