"""What can be known of the detector's kernels without a GPU: they compute right in the interpreter, and compile."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.kernels.bias_relu import add_bias
from detector.kernels.box_loss import Rule, box_loss
from detector.kernels.fold_norm import Norm, fold_norm
from detector.kernels.matching import match
from tests.triton_kernels import compile_only, needs_triton, run_in_interpreter

HERE = Path(__file__).parent
FILES = [HERE / f"test_{name}.py" for name in ("bias_relu", "fold_norm", "matching", "box_loss")]
NETWORK = HERE.parent / "model" / "test_fused_network.py"
MULTIPLY_ADD = re.compile(r"\bfma\.rn(\.ftz)?\.f32")


@pytest.mark.slow
@needs_triton
def test_kernels_agree_with_torch_in_the_interpreter() -> None:
    assert " passed" in run_in_interpreter(*FILES)


@pytest.mark.slow
@needs_triton
def test_fused_network_agrees_with_torchs_modules_in_the_interpreter() -> None:
    assert " passed" in run_in_interpreter(NETWORK)


def launch_network_passes(dtype: torch.dtype) -> None:
    """A tower's pass over 256 channels, a block's last one with its residual, the pyramid's, and a folded weight."""

    def fresh(channels: int) -> torch.Tensor:
        return (torch.zeros(2, channels, 8, 8, dtype=dtype, requires_grad=True) * 1).contiguous(
            memory_format=torch.channels_last
        )

    wide, narrow = (torch.zeros(channels, requires_grad=True) for channels in (720, 64))
    add_bias(fresh(64), narrow, relu=True, residual=fresh(64).detach()).sum().backward()
    add_bias(fresh(720), wide, coarse=torch.zeros(2, 720, 4, 4, dtype=dtype)).sum().backward()
    weight = torch.zeros(64, 64, 3, 3, requires_grad=True)
    folded, _ = fold_norm(weight, Norm(*torch.zeros(4, 64), epsilon=1e-5))
    folded.sum().backward()


def launch_matching() -> None:
    boxes, labels = torch.zeros(2, 100, 4), torch.zeros(2, 100, dtype=torch.int64)
    match(
        torch.zeros(1600, 4),
        boxes,
        labels,
        foreground_iou=0.5,
        background_iou=0.4,
        allow_low_quality=True,
        one=1,
    )


def launch_box_loss(dtype: torch.dtype) -> None:
    deltas = torch.zeros(3, 1600, 4, dtype=dtype, requires_grad=True)
    labels = torch.zeros(3, 1600, dtype=torch.int64)
    rule = Rule((1.0, 1.0, 1.0, 1.0), 0.11, 4.0, 1, 2)
    box_loss(deltas, torch.zeros(1600, 4), torch.zeros(3, 9, 4), labels, labels, rule).backward()


def build(monkeypatch: pytest.MonkeyPatch, capability: int, launch: Callable[[], None]) -> list[tuple[str, str]]:
    """Names and PTX of the kernels that ``launch`` needs; each of them became machine code."""
    kernels: list[Any] = compile_only(monkeypatch, capability)
    launch()
    assert all(kernel.asm["cubin"] for kernel in kernels)
    return [(kernel.metadata.name, kernel.asm["ptx"]) for kernel in kernels]


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_passes_after_convolutions_compile_to_accesses_of_16_bytes(
    monkeypatch: pytest.MonkeyPatch, capability: int, dtype: torch.dtype
) -> None:
    """A thread has 32 of a tile's entries, 8 accesses of float32, 4 of half precision; backward half as many."""
    accesses = 8 if dtype == torch.float32 else 4
    built = build(monkeypatch, capability, lambda: launch_network_passes(dtype))

    for name, ptx in built:
        loads, stores = (len(re.findall(rf"{kind}\.global(\.\w+)*\.v4\.b32", ptx)) for kind in ("ld", "st"))
        if name == "add_bias":
            # The map and the other one; the float32 bias is read 16 bytes at a time as well.
            assert loads >= 2 * accesses
            assert stores == accesses
        if name == "mask_and_sum":
            assert loads in (accesses // 2, accesses)  # without and with a ReLU
            assert stores >= (loads == accesses) * accesses // 2
        if name in ("fold", "unfold"):
            assert loads
    assert {name for name, _ in built} == {"add_bias", "mask_and_sum", "combine_parts", "fold", "unfold"}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_matching_compiles_to_the_roundings_of_a_cpu(monkeypatch: pytest.MonkeyPatch, capability: int) -> None:
    built = build(monkeypatch, capability, launch_matching)

    assert [name for name, _ in built] == ["largest_overlaps", "label_anchors"]
    for _, ptx in built:
        assert not MULTIPLY_ADD.search(ptx)
        assert "div.rn.f32" in ptx
        assert "div.full" not in ptx
        assert "div.approx" not in ptx


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_box_loss_compiles_and_writes_an_anchors_gradient_at_once(
    monkeypatch: pytest.MonkeyPatch, capability: int, dtype: torch.dtype
) -> None:
    built = dict(build(monkeypatch, capability, lambda: launch_box_loss(dtype)))

    assert list(built) == ["sum_losses", "combine_losses", "write_gradient"]
    assert MULTIPLY_ADD.search(built["write_gradient"])  # as the expression above would find it
    whole = "v4.b32" if dtype == torch.float32 else "v2.b32"
    assert f"st.global.{whole}" in built["write_gradient"]


def test_kernels_are_not_compiled_anew_for_another_number_of_boxes_or_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = compile_only(monkeypatch, 90)
    for height, width, boxes in ((8, 16, 20), (7, 11, 21), (1, 1, 32)):
        y = torch.zeros(1, 32, height, width).contiguous(memory_format=torch.channels_last)
        add_bias(y, torch.zeros(32))
        labels = torch.zeros(2, boxes, dtype=torch.int64)
        match(
            torch.zeros(160, 4),
            torch.zeros(2, boxes, 4),
            labels,
            foreground_iou=0.5,
            background_iou=0.4,
            allow_low_quality=False,
            one=0,
        )
    assert len({id(kernel) for kernel in kernels}) == 2
