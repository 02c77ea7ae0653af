"""Triton kernels of frozen batch norm as part of a convolution's weight. C output channels, M weights of each.

Needs triton.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def fold(
    weight: tl.tensor,
    gain: tl.tensor,
    bias: tl.tensor,
    mean: tl.tensor,
    variance: tl.tensor,
    folded: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    epsilon: tl.tensor,
    C: tl.tensor,
    M: tl.tensor,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """scale = gain / sqrt(variance + epsilon), shift = bias - mean * scale, [C]; folded = weight * scale, [C, M]."""
    channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = channel < C
    factor = tl.load(gain + channel, mask=exists) * tl.rsqrt(tl.load(variance + channel, mask=exists) + epsilon)
    if tl.program_id(1) == 0:
        tl.store(scale + channel, factor, mask=exists)
        added = tl.load(bias + channel, mask=exists) - tl.load(mean + channel, mask=exists) * factor
        tl.store(shift + channel, added, mask=exists)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    offsets = channel[:, None] * M + column
    mask = exists[:, None] & (column < M)
    values = tl.load(weight + offsets, mask=mask).to(tl.float32) * factor[:, None]
    tl.store(folded + offsets, values.to(folded.dtype.element_ty), mask=mask)


@triton.jit
def unfold(
    grad: tl.tensor,
    scale: tl.tensor,
    weight_grad: tl.tensor,
    C: tl.tensor,
    M: tl.tensor,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    """weight_grad = grad * scale, [C, M], from the gradient of the folded weight."""
    channel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)[None, :]
    offsets = channel * M + column
    mask = (channel < C) & (column < M)
    values = tl.load(grad + offsets, mask=mask).to(tl.float32) * tl.load(scale + channel, mask=channel < C)
    tl.store(weight_grad + offsets, values.to(weight_grad.dtype.element_ty), mask=mask)
