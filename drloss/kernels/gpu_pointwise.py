"""Triton kernels of the losses that judge each entry alone: alpha_t (1 - p_t)^gamma (-log p_t), summed by group.

Cross entropy is alpha_t = 1 and gamma = 0. With z the logit of 1 - p_t (-x for a positive entry, x for a negative),
1 - p_t = sigmoid(z) and -log p_t = softplus(z).

Needs triton. Legend: N images, R anchors, K classes; strips as in ``gpu_strips``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_strips import block_offsets, chunk_labels, find_strip, own_entries, reciprocals, start_of
from drloss.kernels.gpu_tiles import LOG2_E

# Rows of the workspace, [groups] each; then two rows [N * strips] of partial sums.
SCALE: tl.constexpr = tl.constexpr(0)  # d loss / d the group's sum
LOSS: tl.constexpr = tl.constexpr(1)  # what the group adds to the loss
NUM_STATE: tl.constexpr = tl.constexpr(2)


@triton.jit
def _log1p(x: tl.tensor) -> Any:
    """log(1 + x) for x in [0, 1], to 2e-7 of itself: x times a polynomial of degree 8, fitted at Chebyshev's points.

    log of the sum 1 + x would lose the digits of a small x, and the library's log1p takes five times the instructions.
    """
    value = 0.0052534578 * x - 0.0295885074
    value = value * x + 0.078361668
    value = value * x - 0.136747697
    value = value * x + 0.191114311
    value = value * x - 0.248443699
    value = value * x + 0.333192713
    value = value * x - 0.499995015
    return (value * x + 0.999999971) * x


@triton.jit
def _wrongness(z: tl.tensor, gamma: tl.tensor, GAMMA: tl.constexpr, PAIRED: tl.constexpr) -> Any:
    """sigmoid(z), 1 - sigmoid(z), softplus(z) and sigmoid(z)^gamma, accurate for any z."""
    tail = tl.exp2(tl.abs(z) * -LOG2_E)
    near = reciprocals(1.0 + tail, PAIRED)
    far = tail * near
    log1p_tail = _log1p(tail)
    wrong, right = tl.where(z > 0, near, far), tl.where(z > 0, far, near)
    if GAMMA == "zero":
        power = tl.full(z.shape, 1.0, tl.float32)
    elif GAMMA == "two":
        power = wrong * wrong
    else:
        power = tl.exp2((tl.minimum(z, 0.0) - log1p_tail) * (gamma * LOG2_E))
    return wrong, right, tl.maximum(z, 0.0) + log1p_tail, power


@triton.jit
def _slope(z: tl.tensor, gamma: tl.tensor, GAMMA: tl.constexpr, PAIRED: tl.constexpr) -> Any:
    """d / dz of sigmoid(z)^gamma softplus(z)."""
    wrong, right, loss, power = _wrongness(z, gamma, GAMMA, PAIRED)
    return power * (gamma * right * loss + wrong)


@triton.jit(do_not_specialize=["num_groups"])
def sum_losses(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    work: tl.tensor,
    num_groups: tl.tensor,
    alpha_pos: tl.tensor,
    alpha_neg: tl.tensor,
    gamma: tl.tensor,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRED: tl.constexpr,
) -> None:
    """First pass: the sum of a strip's losses, and the number of its positives."""
    level, first, num_chunks, image, anchor = find_strip(num_anchors, K, VECTOR, CHUNKS, STEPS)
    start = start_of(levels, level, image, first, VECTOR)
    total = tl.zeros([CHUNKS], tl.float32)
    for step in range(STEPS):
        exists, counts, class_ = chunk_labels(labels + anchor, first, num_chunks, step, K, VECTOR, CHUNKS)
        x = tl.load(start + block_offsets(step, VECTOR, CHUNKS), mask=exists, other=0.0).to(tl.float32)
        positive = class_ == tl.arange(0, VECTOR)[None, :]
        _, _, loss, power = _wrongness(tl.where(positive, -x, x), gamma, GAMMA, PAIRED)
        loss *= power * tl.where(positive, alpha_pos, alpha_neg)
        total += tl.sum(tl.where(counts, loss, 0.0), axis=1)
    _, _, own = own_entries(labels + anchor, first, num_chunks, K, VECTOR, CHUNKS, STEPS, ROWS)
    partial = work + num_groups * NUM_STATE + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partial, tl.sum(total).to(tl.float64))
    tl.store(partial + tl.num_programs(0) * tl.num_programs(1), tl.sum(own.to(tl.int32)).to(tl.float64))


@triton.jit(do_not_specialize=["num_images", "num_strips", "images_per_group"])
def combine_groups(
    work: tl.tensor,
    loss: tl.tensor,
    num_images: tl.tensor,
    num_strips: tl.tensor,
    images_per_group: tl.tensor,
    COUNT_IMAGES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program g adds the sums of group g in float64, in a fixed order, and writes column g of the workspace.

    The sum is divided by (positives + images), or without COUNT_IMAGES by max(1, positives), then by the number of
    groups. loss: float32, written where there is one group only.
    """
    group, num_groups = tl.program_id(0), tl.num_programs(0)
    num_partials = num_images * num_strips
    in_group = tl.minimum(images_per_group, num_images - group * images_per_group)
    start = group * images_per_group * num_strips
    end = start + in_group * num_strips
    partials = work + num_groups * NUM_STATE
    total, positives = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for block in range(start, end, BLOCK):
        index = block + tl.arange(0, BLOCK)
        total += tl.load(partials + index, mask=index < end, other=0.0)
        positives += tl.load(partials + num_partials + index, mask=index < end, other=0.0)
    num_pos = tl.sum(positives)
    divisor = num_pos + in_group if COUNT_IMAGES else tl.maximum(num_pos, 1.0)
    scale = 1.0 / (divisor * num_groups)
    of_group = tl.sum(total) * scale
    tl.store(work + SCALE * num_groups + group, scale)
    tl.store(work + LOSS * num_groups + group, of_group)
    if num_groups == 1:
        tl.store(loss, of_group.to(tl.float32))


@triton.jit(do_not_specialize=["images_per_group"])
def write_loss_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    work: tl.tensor,
    images_per_group: tl.tensor,
    grad_loss: tl.tensor,
    alpha_pos: tl.tensor,
    alpha_neg: tl.tensor,
    gamma: tl.tensor,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRED: tl.constexpr,
) -> None:
    """Second pass: scale alpha_t wrong^gamma (gamma right softplus + wrong), negated for a positive; 0 if ignored.

    grad_loss: d / d loss, one number.
    """
    level, first, num_chunks, image, anchor = find_strip(num_anchors, K, VECTOR, CHUNKS, STEPS)
    start = start_of(levels, level, image, first, VECTOR)
    target = start_of(gradients, level, image, first, VECTOR)
    _, place, own = own_entries(labels + anchor, first, num_chunks, K, VECTOR, CHUNKS, STEPS, ROWS)
    own_logit = tl.load(start + place, mask=own, other=0.0).to(tl.float32)
    of_group = tl.load(work + tl.program_id(1) // images_per_group) * tl.load(grad_loss)
    of_negative = (of_group * alpha_neg).to(tl.float32)
    of_positive = (of_group * -alpha_pos).to(tl.float32)
    for step in range(STEPS):
        exists, counts, _class = chunk_labels(labels + anchor, first, num_chunks, step, K, VECTOR, CHUNKS)
        offsets = block_offsets(step, VECTOR, CHUNKS)
        x = tl.load(start + offsets, mask=exists, other=0.0).to(tl.float32)
        gradient = _slope(x, gamma, GAMMA, PAIRED) * of_negative
        gradient = tl.where(counts, gradient, 0.0).to(target.dtype.element_ty)
        tl.store(target + offsets, gradient, mask=exists)
    gradient = _slope(-own_logit, gamma, GAMMA, False) * of_positive
    # Other threads of this program wrote these entries as if they were negatives: after them.
    tl.debug_barrier()
    tl.store(target + place, gradient.to(target.dtype.element_ty), mask=own)
