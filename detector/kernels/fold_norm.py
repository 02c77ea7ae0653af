"""Frozen batch norm folded into a convolution's weight on a GPU, with the rounding to half precision, in one launch.

As separate operations that is seven launches per convolution and pass: a third of all that a pass of two images made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ENTRIES_PER_TILE = 2048
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}


class Norm(NamedTuple):
    """A frozen batch norm: (x - mean) / sqrt(variance + epsilon) * gain + bias; tensors are [C] float32."""

    gain: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


def fold_norm(weight: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The norm after a convolution without bias, as the convolution's weight and what is then added, [C] float32.

    weight: [C, I, height, width], dense, its output channel outermost in memory, as contiguous and channels last are.
    Returned in autocast's dtype where autocast is on. Only the weight has a gradient.
    """
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else weight.dtype
    folded, shift = _Fold.apply(weight, norm, dtype)
    return folded, shift


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        from detector.kernels import fold_norm_triton as kernels

        folded = torch.empty_like(weight, dtype=dtype)
        scale, shift = torch.empty_like(norm.gain), torch.empty_like(norm.bias)
        grid, sizes, tile = _plan(weight)
        with torch.cuda.device(weight.get_device()):
            kernels.fold[grid](
                *(weight, norm.gain, norm.bias, norm.mean, norm.variance, folded, scale, shift, norm.epsilon),
                *sizes,
                **tile,
                **_OPTIONS,
            )
        ctx.mark_non_differentiable(shift)
        ctx.set_materialize_grads(False)  # else zeros would be written for the shift's
        ctx.save_for_backward(weight, scale)
        return folded, shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        from detector.kernels import fold_norm_triton as kernels

        if grad is None:
            return None, None, None
        weight, scale = ctx.saved_tensors
        weight_grad = torch.empty_like(weight)
        if not _same_order(grad, weight):
            grad = torch.empty_like(weight, dtype=grad.dtype).copy_(grad)
        grid, sizes, tile = _plan(weight)
        with torch.cuda.device(weight.get_device()):
            kernels.unfold[grid](grad, scale, weight_grad, *sizes, **tile, **_OPTIONS)
        return weight_grad, None, None


def _same_order(values: Tensor, others: Tensor) -> bool:
    """Whether two dense tensors of one shape lie in memory in the same order; sides of 1 have no say in it."""
    strides = zip(values.shape, values.stride(), others.stride(), strict=True)
    return all(size == 1 or stride == other for size, stride, other in strides)


def _plan(weight: Tensor) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
    """Programs by channels and by weights of a channel; both sizes; the compile-time sizes of a tile."""
    channels, size = len(weight), weight[0].numel()
    width = min(1024, 1 << (size - 1).bit_length())
    rows = _ENTRIES_PER_TILE // width
    rows = min(rows, 1 << (channels - 1).bit_length())
    return (-(-channels // rows), -(-size // width)), (channels, size), {"ROWS": rows, "WIDTH": width}
