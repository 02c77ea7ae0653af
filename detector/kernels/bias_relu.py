"""Bias, residual and ReLU after a convolution on a GPU: one pass over its output, in place, and one over its gradient.

torch would add the bias, add the residual and apply the ReLU in passes of their own over every feature map, and sum the
bias gradient in yet another: nearly 30 of 75 ms of a step's kernels. cuDNN has convolutions with bias and ReLU in
them (``torch.cudnn_convolution_relu``), but without a gradient, without a bias in float32 beside values in half
precision, and not for every shape; one more pass over an output that was just written costs little and always works.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Of 128 threads per program each has 32 entries; backward 16, because it keeps a sum for each of them in a register.
_ENTRIES_FORWARD, _ENTRIES_BACKWARD = 4096, 2048
# Programs that sum a bias gradient: about as many as a GPU of 132 multiprocessors runs at once, six on each. Not asked
# of the device, as the order of the sums depends on it.
_PROGRAMS = 768
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}


def add_bias(
    y: Tensor, bias: Tensor, *, relu: bool = False, residual: Tensor | None = None, coarse: Tensor | None = None
) -> Tensor:
    """``y + bias [+ residual] [+ coarse, enlarged]``, then ReLU if asked for; overwrites y, a convolution's output.

    y: [N, C, H, W] of float32 or half precision, not needed by its own gradient; bias: [C] float32; residual: of y's
    shape; coarse: [N, C, h, w], each pixel repeated as by nearest interpolation. At most one of the two. Sums are taken
    in float32 and rounded once; the bias gradient is the same from run to run.
    """
    if not y.is_contiguous(memory_format=torch.channels_last):
        y = y.contiguous(memory_format=torch.channels_last)
    if coarse is not None and tuple(y.shape[2:]) != (2 * coarse.shape[2], 2 * coarse.shape[3]):
        residual, coarse = F.interpolate(coarse, size=y.shape[2:], mode="nearest"), None
    other, placement = (residual, "same") if coarse is None else (coarse, "coarse")
    result: Tensor = _AddBias.apply(y, bias, other, placement if other is not None else "none", relu)
    return result


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        bias: Tensor,
        other: Tensor | None,
        placement: Literal["none", "same", "coarse"],
        relu: bool,
    ) -> Tensor:
        from detector.kernels import bias_relu_triton as kernels

        num_images, channels, height, width = y.shape
        other_rows = y if other is None else other.contiguous(memory_format=torch.channels_last)
        layout = _layout(channels, _ENTRIES_FORWARD)
        num_rows = num_images * height * width
        with torch.cuda.device(y.get_device()):
            kernels.add_bias[_pieces(layout) * _ceil(num_rows, layout["ROWS"]),](
                *(y, bias, other_rows, num_rows, height, width), **layout, OTHER=placement, RELU=relu, **_OPTIONS
            )
        ctx.mark_dirty(y)
        ctx.relu, ctx.bias_dtype = relu, bias.dtype
        ctx.coarse_shape = tuple(other.shape) if other is not None and placement == "coarse" else None
        if relu:
            ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        _, wants_bias, wants_other = ctx.needs_input_grad[:3]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad, bias_grad = masked_and_summed(grad, ctx.saved_tensors[0] if ctx.relu else None, sums=wants_bias)
        other_grad = grad if wants_other else None
        if wants_other and ctx.coarse_shape is not None:
            other_grad = torch.ops.aten.upsample_nearest2d_backward(grad, grad.shape[2:], ctx.coarse_shape, None, None)
        return grad, None if bias_grad is None else bias_grad.to(ctx.bias_dtype), other_grad, None, None


def masked_and_summed(grad: Tensor, y: Tensor | None, *, sums: bool) -> tuple[Tensor, Tensor | None]:
    """The gradient before a ReLU and, if asked for, its sums over all but the channel, [C] float32.

    grad: [N, C, H, W] in channels last; y: what the ReLU gave, of the same shape and layout; None where there was none.
    """
    if y is None and not sums:
        return grad, None
    from detector.kernels import bias_relu_triton as kernels

    num_images, channels, height, width = grad.shape
    layout, num_rows = _layout(channels, _ENTRIES_BACKWARD), num_images * height * width
    num_tiles = _ceil(num_rows, layout["ROWS"])
    rows_per_part = layout["ROWS"] * _ceil(num_tiles, max(1, _PROGRAMS // _pieces(layout)))
    num_parts = _ceil(num_rows, rows_per_part)
    masked = grad if y is None else torch.empty_like(grad)
    partials = grad.new_empty((num_parts if sums else 0, channels), dtype=torch.float32)
    with torch.cuda.device(grad.get_device()):
        kernels.mask_and_sum[_pieces(layout) * num_parts,](
            *(grad, grad if y is None else y, masked, partials, num_rows, rows_per_part),
            **layout,
            RELU=y is not None,
            SUM=sums,
            **_OPTIONS,
        )
        if not sums:
            return masked, None
        if num_parts == 1:
            return masked, partials[0]
        total = partials.new_empty(channels)
        columns = 16  # 64 bytes of each part
        kernels.combine_parts[_ceil(channels, columns),](
            *(partials, total, num_parts), C=channels, COLUMNS=columns, PARTS=128, **_OPTIONS
        )
    return masked, total


def _layout(channels: int, entries: int) -> dict[str, int]:
    """Compile-time sizes of a tile: at most 256 channels, so 512 bytes of half precision, one load of a warp."""
    width = min(256, 1 << (channels - 1).bit_length())
    return {"C": channels, "WIDTH": width, "ROWS": entries // width}


def _pieces(layout: dict[str, int]) -> int:
    return _ceil(layout["C"], layout["WIDTH"])


def _ceil(number: int, size: int) -> int:
    return -(-number // size)
