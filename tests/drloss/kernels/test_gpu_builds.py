"""What can be known of the Triton kernels without a GPU: they compute right in the interpreter, and compile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.fused import on_gpu
from drloss.kernels import gpu as kernels
from tests.triton_kernels import compile_only, needs_triton, run_in_interpreter

TESTS = Path(__file__).with_name("test_gpu.py")


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
    assert " passed" in run_in_interpreter(TESTS)


def test_backend_imports_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from drloss.kernels import gpu\n"
        "print([name for name in sys.modules if name.startswith('triton.')])"
    )
    assert run_python("-c", code, CUDA_VISIBLE_DEVICES="").split() == ["[]"]


class Operations(TorchDispatchMode):
    """The names of torch's own operations, in order: on a GPU most of them are a launch each."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def step(
    loss: Any, dtype: torch.dtype, sizes: tuple[int, ...], num_classes: int = 80, num_images: int = 3
) -> list[str]:
    """Forward and backward of a loss, whose kernels are compiled and not launched; torch's operations in between."""
    levels = [torch.zeros(num_images, size, 80, dtype=dtype, requires_grad=True) for size in sizes]
    labels = torch.zeros(num_images, sum(sizes), dtype=torch.int64)
    with Operations() as operations:
        torch.autograd.backward(loss(levels, labels))
    return operations.names


@pytest.fixture
def build_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Any]]:
    """Call with a compute capability: the losses take the GPU's way from there on. Returns the compiled kernels."""

    def begin(capability: int) -> list[Any]:
        monkeypatch.setattr(on_gpu, "losses_for", lambda levels: kernels)
        return compile_only(monkeypatch, capability)

    return begin


RANKED, EACH, ALONE = (
    ["sum_scores", "combine_sets", "add_up", "write_gradient"],
    ["sum_scores", "combine_sets", "rank_positives", "combine_positives", "write_gradient"],
    ["sum_losses", "combine_groups", "write_loss_gradient"],
)
LAUNCHES = {
    "dr": (DRLoss(), RANKED),
    "dr, batch": (DRLoss(scope="batch"), ["sum_scores", "combine_sets", "write_gradient"]),
    "dr, quadratic, small lambda": (DRLoss(surrogate="quadratic", lambda_neg=0.001), RANKED),
    "dr, hinge": (DRLoss(surrogate="hinge"), RANKED),
    "neg_only": (DRLoss(pairing="neg_only"), EACH),
    "neg_only, hinge": (DRLoss(pairing="neg_only", surrogate="hinge"), EACH),
    "focal": (FocalLoss(), ALONE),
    "focal, gamma 1.5": (FocalLoss(gamma=1.5, normalizer="positives"), ALONE),
    "cross entropy": (CrossEntropyLoss(), ALONE),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype", "names"),
    [
        (80, torch.bfloat16, ["dr", "neg_only", "focal"]),
        (90, torch.float32, LAUNCHES),
        (90, torch.float16, ["dr", "focal"]),
        (100, torch.bfloat16, ["dr", "neg_only", "focal"]),
        (100, torch.float32, ["dr", "focal"]),
    ],
)
def test_kernels_compile_to_accesses_of_16_bytes(
    build_for: Callable[[int], list[Any]], capability: int, dtype: torch.dtype, names: Iterable[str]
) -> None:
    """A thread has 64 bytes at a time: four accesses."""
    built = build_for(capability)
    for name in names:
        step(LAUNCHES[name][0], dtype, (70, 16, 1))
    for kernel in built:
        name = kernel.metadata.name
        assert kernel.asm["cubin"]
        reads = 4 if name.startswith("sum_") or "gradient" in name else 0
        assert kernel.asm["ptx"].count("ld.global.v4") == reads, name
        assert kernel.asm["ptx"].count("st.global.v4") == reads * ("gradient" in name), name


@pytest.mark.slow
def test_half_precision_divides_once_for_two_entries(build_for: Callable[[int], list[Any]]) -> None:
    """Of a thread's 32 entries and 4 anchors, where in float32 each has a division of its own."""
    built = build_for(90)
    step(DRLoss(), torch.bfloat16, (70, 16, 1))
    found = {kernel.metadata.name: kernel.asm["ptx"].count("rcp.approx.ftz") for kernel in built}
    assert (found["sum_scores"], found["write_gradient"]) == (20, 20)


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_loss_is_a_handful_of_launches(build_for: Callable[[int], list[Any]], name: str) -> None:
    """However many levels and images there are; torch itself only multiplies by tau, there and back."""
    loss, expected = LAUNCHES[name]
    built = build_for(90)
    operations = step(loss, torch.float32, (70, 16, 1))
    assert [kernel.metadata.name for kernel in built] == expected
    launched = [operation for operation in operations if operation not in ("new_empty", "empty_like", "detach")]
    assert sorted(launched) == (["mul", "mul", "ones_like"] if isinstance(loss, DRLoss) else ["ones_like"])
    assert (operations.count("new_empty"), operations.count("empty_like")) == (2, 3)
    step(loss, torch.float32, (70, 16, 1, 5, 9), num_images=5)
    assert [kernel.metadata.name for kernel in built[len(expected) :]] == expected


def test_kernels_are_not_compiled_anew_for_another_size_or_number_of_images(
    build_for: Callable[[int], list[Any]],
) -> None:
    built = build_for(90)
    for loss in (DRLoss(), DRLoss(pairing="neg_only"), FocalLoss()):
        before = len(built)
        for sizes, num_images in (((70, 16, 1), 3), ((64, 7, 32), 16), ((1, 1, 1000), 2)):
            step(loss, torch.float32, sizes, num_images=num_images)
        new = built[before:]
        assert len({id(kernel) for kernel in new}) == len(new) // 3
