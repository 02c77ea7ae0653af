"""What can be known of the Triton kernels without a GPU: they compute right in the interpreter, and compile."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from drloss.kernels import gpu as kernels

TESTS = Path(__file__).with_name("test_gpu.py")

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


def run_python(*args: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, *args],
        env=os.environ | environment,
        cwd=TESTS.parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
    return finished.stdout


@pytest.mark.slow
@needs_triton
def test_kernels_agree_with_the_clear_losses_in_the_interpreter() -> None:
    # Triton 3.6's own interpreter does this with numpy's arrays.
    allowed = ("-W", "ignore:Conversion of an array with ndim:DeprecationWarning")
    command = ("-m", "pytest", "-q", *allowed, str(TESTS), "-k", "cpu")
    printed = run_python(*command, TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")
    assert " passed" in printed


def test_backend_imports_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from drloss.kernels import gpu\n"
        "print([name for name in sys.modules if name.startswith('triton.')])"
    )
    assert run_python("-c", code, CUDA_VISIBLE_DEVICES="").split() == ["[]"]


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


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Kernels in the order in which they were to be launched: from here on they are compiled instead."""
    if os.environ.get("TRITON_INTERPRET") == "1" or find_spec("triton") is None:
        pytest.skip("needs triton, and not its interpreter")
    from triton import knobs
    from triton.runtime.jit import JITFunction

    if not Path(knobs.nvidia.ptxas.path).is_file():
        pytest.skip("needs ptxas")
    launch, kernels_compiled = JITFunction.run, []

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernels_compiled.append(launch(kernel, *args, grid=grid, warmup=True, **options))

    monkeypatch.setattr(JITFunction, "run", compile_only)
    return kernels_compiled


def launch_all(dtype: torch.dtype, sizes: tuple[int, ...], num_classes: int = 80) -> None:
    levels = [torch.zeros(2, size, num_classes, dtype=dtype) for size in sizes]
    labels = torch.zeros(2, sum(sizes), dtype=torch.int64)
    expected, normalizer, pos_logits = kernels.reduce_negatives(levels, labels, (0, 1), 12.5)
    kernels.negatives_gradient(levels, labels, (0, 1), 12.5, expected, normalizer, expected, pos_logits)
    kernels.pointwise_sum(levels, labels, (0, 0), "focal", 0.25, 2.0)
    kernels.pointwise_gradient(levels, labels, (0, 0), "focal", 0.25, 2.0, expected)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("dtype", "accesses"), [(torch.float32, 10), (torch.bfloat16, 5), (torch.float16, 5)])
def test_kernels_compile_to_accesses_of_16_bytes(
    compiled: list[Any], monkeypatch: pytest.MonkeyPatch, capability: int, dtype: torch.dtype, accesses: int
) -> None:
    """A thread has 40 of a tile's 5,120 entries: 10 accesses of float32, 5 of half precision."""
    from triton.runtime import driver

    monkeypatch.setattr(driver, "_active", NoDevice(capability))
    launch_all(dtype, (70, 16, 1))
    names = [kernel.metadata.name for kernel in compiled]
    assert names == [
        *("sum_negatives", "combine_negatives", "write_gradient"),
        *("sum_pointwise", "combine_sums", "write_pointwise_gradient"),
    ]
    for kernel in compiled:
        assert kernel.asm["cubin"]
        over_entries = "combine" not in kernel.metadata.name
        assert kernel.asm["ptx"].count("ld.global.v4") == over_entries * accesses
        assert kernel.asm["ptx"].count("st.global.v4") == ("gradient" in kernel.metadata.name) * accesses


def test_kernels_are_not_compiled_anew_for_another_size_of_image(
    compiled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.runtime import driver

    monkeypatch.setattr(driver, "_active", NoDevice(90))
    launch_all(torch.float32, (70, 16, 1))
    launch_all(torch.float32, (64, 7, 32))
    assert len({id(kernel) for kernel in compiled}) == 6
