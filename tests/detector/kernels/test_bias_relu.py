"""Bias, residual and ReLU in one pass against torch's operations: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detector.kernels import bias_relu
from detector.kernels.bias_relu import add_bias, masked_and_summed
from tests.triton_kernels import DEVICES

# Images, channels, height, width: widths that do not divide a tile, several tiles of rows, one pixel, 9 x 80 channels.
SHAPES = [(2, 64, 6, 10), (1, 36, 4, 6), (2, 5, 2, 2), (1, 720, 2, 4), (1, 256, 6, 8), (3, 1, 2, 6), (1, 300, 1, 1)]


def maps(device: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return values.contiguous(memory_format=torch.channels_last)


def reference(y: Tensor, bias: Tensor, relu: bool, residual: Tensor | None, coarse: Tensor | None) -> Tensor:
    """In float32, rounded once."""
    values = y.float() + bias[:, None, None]
    if residual is not None:
        values = values + residual.float()
    if coarse is not None:
        values = values + F.interpolate(coarse.float(), size=y.shape[2:], mode="nearest")
    return (values.relu() if relu else values).to(y.dtype)


def values_and_gradients(function: Any, y: Tensor, bias: Tensor, other: Tensor | None, pull: Tensor) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (y, bias, other) if tensor is not None]
    fresh = leaves[0] * 1  # as a convolution's output is: no leaf, and nobody else needs it
    result = function(fresh, *leaves[1:])
    return [result.detach(), *torch.autograd.grad(result, leaves, pull)]


def check(y: Tensor, relu: bool, kind: str) -> None:
    bias = maps(str(y.device), (1, y.shape[1], 1, 1), seed=1).flatten()
    num_images, channels, height, width = y.shape
    other_shape = (num_images, channels, height // 2, width // 2) if kind == "coarse" else tuple(y.shape)
    other = None if kind == "none" else maps(str(y.device), other_shape, y.dtype, seed=2)
    pull = maps(str(y.device), tuple(y.shape), y.dtype, seed=3)
    name = "coarse" if kind == "coarse" else "residual"

    def fused(y: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
        return add_bias(y, bias, relu=relu, **{name: other})  # type: ignore[arg-type]

    def plain(y: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
        return reference(y, bias, relu, *((None, other) if kind == "coarse" else (other, None)))

    found, wanted = (values_and_gradients(function, y, bias, other, pull) for function in (fused, plain))
    # Triton's interpreter cuts a bfloat16 off where a GPU rounds it.
    tolerance: dict[str, float] = (
        {"rtol": 1e-5, "atol": 2e-5} if y.dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-2}
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind", ["none", "same", "coarse"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_add_bias_equals_torch_forward_and_backward(
    device: str, shape: tuple[int, int, int, int], kind: str, relu: bool
) -> None:
    if kind == "coarse" and shape[2] % 2:
        shape = (*shape[:2], 2, 2)
    check(maps(device, shape), relu, kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_add_bias_in_half_precision_takes_a_float32_bias(device: str, dtype: torch.dtype) -> None:
    check(maps(device, (2, 36, 6, 10), dtype), True, "same")


@pytest.mark.parametrize("device", DEVICES)
def test_bias_gradient_is_summed_over_several_programs_in_a_fixed_order(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bias_relu, "_PROGRAMS", 6)
    grad, y = (maps(device, (2, 320, 9, 11), seed=seed) for seed in (0, 1))

    results = [masked_and_summed(grad, y, sums=True) for _ in range(2)]

    masked, sums = results[0]
    wanted = torch.where(y > 0, grad, 0.0)
    assert torch.equal(masked, wanted)
    assert sums is not None
    torch.testing.assert_close(sums, wanted.double().sum(dim=(0, 2, 3)).float(), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("device", DEVICES)
def test_relu_keeps_a_nan_and_its_gradient_as_torch_does(device: str) -> None:
    y = torch.tensor([torch.nan, -1.0, -0.0, 0.0, 2.0, torch.inf], device=device).view(1, 6, 1, 1)
    leaf = y.clone().requires_grad_()

    result = add_bias(leaf * 1, torch.zeros(6, device=device), relu=True)
    (grad,) = torch.autograd.grad(result.sum(), leaf)

    torch.testing.assert_close(result, y.relu(), equal_nan=True)
    assert grad.flatten().tolist() == [1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_frozen_bias_gets_no_gradient_and_a_frozen_map_none_either(device: str) -> None:
    y, bias = maps(device, (1, 8, 2, 2)), torch.ones(8, device=device)
    assert not add_bias(y.clone(), bias, relu=True).requires_grad

    bias.requires_grad_()
    (grad,) = torch.autograd.grad(add_bias(y.clone(), bias).sum(), bias)
    assert grad.tolist() == [4.0] * 8


@pytest.mark.parametrize("device", DEVICES)
def test_a_map_that_is_not_channels_last_and_odd_sides_of_the_coarse_one_are_taken_too(device: str) -> None:
    y, coarse = torch.randn(1, 4, 5, 7, device=device), torch.randn(1, 4, 3, 4, device=device)
    bias = torch.randn(4, device=device)

    found = add_bias(y.clone(), bias, coarse=coarse)

    torch.testing.assert_close(found, reference(y, bias, False, None, coarse))
