"""Frozen norms folded into weights by one kernel, against the same in torch."""

from __future__ import annotations

import pytest
import torch

from detector.kernels.fold_norm import Norm, fold_norm
from tests.triton_kernels import DEVICES


def norm_of(channels: int, device: str) -> Norm:
    generator = torch.Generator().manual_seed(0)
    gain, bias, mean, variance = (0.5 + torch.rand(4, channels, generator=generator)).to(device)
    return Norm(gain, bias, mean, variance, 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(64, 3, 7, 7), (8, 16, 1, 1), (5, 4, 3, 3), (3, 600, 2, 2), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_fold_norm_equals_torch_forward_and_backward(
    device: str, shape: tuple[int, int, int, int], channels_last: bool
) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    weight = torch.randn(shape).to(device).contiguous(memory_format=memory_format).requires_grad_()
    norm = norm_of(shape[0], device)

    folded, shift = fold_norm(weight, norm)

    scale = norm.gain * (norm.variance + norm.epsilon).rsqrt()
    torch.testing.assert_close(folded, weight * scale[:, None, None, None])
    torch.testing.assert_close(shift, norm.bias - norm.mean * scale)
    assert folded.stride() == weight.stride()
    assert not shift.requires_grad
    for pull_format in (torch.channels_last, torch.contiguous_format):
        pull = torch.randn(shape).to(device).contiguous(memory_format=pull_format)
        (grad,) = torch.autograd.grad(folded, weight, pull, retain_graph=True)
        torch.testing.assert_close(grad, pull * scale[:, None, None, None])


@pytest.mark.parametrize("device", DEVICES)
def test_fold_norm_rounds_to_half_precision_under_autocast(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a CPU, too, autocast as a GPU's: there it only says the dtype.
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=False):
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: True)
        monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: torch.float16)
        weight = torch.randn(4, 4, 1, 1, device=device, requires_grad=True)
        folded, shift = fold_norm(weight, norm_of(4, device))

    (grad,) = torch.autograd.grad(folded.sum(), weight)
    assert (folded.dtype, shift.dtype, grad.dtype) == (torch.float16, torch.float32, torch.float32)
