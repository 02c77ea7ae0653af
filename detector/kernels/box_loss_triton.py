"""Triton kernels of the box regression loss: encoding, smooth L1 and its sum in one pass, the gradient in another.

N images, R anchors, G boxes of an image. Boxes, anchors and deltas of anchors that are not positive, nearly all, are
not read.

Needs triton.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

_SIZES = ["N", "R", "G", "num_parts", "images_per_group"]


@triton.jit
def centre_and_size(boxes: tl.tensor, index: tl.tensor, mask: tl.tensor, one: tl.tensor) -> Any:
    """Centre x and y, width, height of some of [.., 4] boxes; 0.5, 0.5, 1, 1 where masked out."""
    x1 = tl.load(boxes + index * 4, mask=mask, other=0.0)
    y1 = tl.load(boxes + index * 4 + 1, mask=mask, other=0.0)
    width = tl.where(mask, tl.load(boxes + index * 4 + 2, mask=mask, other=1.0) - x1 + one, 1.0)
    height = tl.where(mask, tl.load(boxes + index * 4 + 3, mask=mask, other=1.0) - y1 + one, 1.0)
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


@triton.jit
def errors(
    deltas: tl.tensor,
    anchors: tl.tensor,
    boxes: tl.tensor,
    matched: tl.tensor,
    anchor: tl.tensor,
    positive: tl.tensor,
    weight_x: tl.tensor,
    weight_y: tl.tensor,
    weight_w: tl.tensor,
    weight_h: tl.tensor,
    one: tl.tensor,
    R: tl.tensor,
    G: tl.tensor,
) -> Any:
    """Deltas minus targets, of x, y, w and h, for some anchors of this program's image; 0 where not positive."""
    image = tl.program_id(1)
    place = image.to(tl.int64) * R + anchor
    box = image * G + tl.load(matched + place, mask=positive, other=0).to(tl.int32)
    x, y, w, h = centre_and_size(boxes, box, positive, one)
    anchor_x, anchor_y, anchor_w, anchor_h = centre_and_size(anchors, anchor, positive, one)
    delta = deltas + place * 4
    dx = tl.load(delta, mask=positive, other=0.0).to(tl.float32) - weight_x * (x - anchor_x) / anchor_w
    dy = tl.load(delta + 1, mask=positive, other=0.0).to(tl.float32) - weight_y * (y - anchor_y) / anchor_h
    dw = tl.load(delta + 2, mask=positive, other=0.0).to(tl.float32) - weight_w * tl.log(w / anchor_w)
    dh = tl.load(delta + 3, mask=positive, other=0.0).to(tl.float32) - weight_h * tl.log(h / anchor_h)
    return dx, dy, dw, dh


@triton.jit
def smooth_l1(error: tl.tensor, beta: tl.tensor) -> Any:
    """error^2 / (2 beta) below beta, |error| - beta / 2 from there on."""
    size = tl.abs(error)
    return tl.where(size < beta, 0.5 * error * error / tl.where(beta > 0, beta, 1.0), size - 0.5 * beta)


@triton.jit
def slope(error: tl.tensor, beta: tl.tensor) -> Any:
    """The derivative of ``smooth_l1``; 0 at 0."""
    outside = tl.where(error > 0, 1.0, tl.where(error < 0, -1.0, error))
    return tl.where(tl.abs(error) < beta, error / tl.where(beta > 0, beta, 1.0), outside)


@triton.jit(do_not_specialize=_SIZES)
def sum_losses(
    deltas: tl.tensor,
    anchors: tl.tensor,
    boxes: tl.tensor,
    labels: tl.tensor,
    matched: tl.tensor,
    partials: tl.tensor,
    weight_x: tl.tensor,
    weight_y: tl.tensor,
    weight_w: tl.tensor,
    weight_h: tl.tensor,
    beta: tl.tensor,
    one: tl.tensor,
    R: tl.tensor,
    G: tl.tensor,
    ANCHORS: tl.constexpr,
) -> None:
    """partials [2, N, programs] float32: loss and number of positives of each program's anchors."""
    anchor = tl.program_id(0) * ANCHORS + tl.arange(0, ANCHORS)
    row = tl.program_id(1).to(tl.int64) * R
    positive = tl.load(labels + row + anchor, mask=anchor < R, other=-1) >= 0
    dx, dy, dw, dh = errors(
        deltas, anchors, boxes, matched, anchor, positive, weight_x, weight_y, weight_w, weight_h, one, R, G
    )
    losses = smooth_l1(dx, beta) + smooth_l1(dy, beta) + smooth_l1(dw, beta) + smooth_l1(dh, beta)
    place = partials + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(place, tl.sum(tl.where(positive, losses, 0.0), axis=0))
    tl.store(place + tl.num_programs(1) * tl.num_programs(0), tl.sum(positive.to(tl.float32), axis=0))


@triton.jit(do_not_specialize=_SIZES)
def combine_losses(
    partials: tl.tensor,
    loss: tl.tensor,
    factors: tl.tensor,
    normalizer: tl.tensor,
    N: tl.tensor,
    num_parts: tl.tensor,
    images_per_group: tl.tensor,
    IMAGES: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """The mean over groups, and what each group's losses are multiplied by in it, [groups]; one program.

    A group's factor: 1 / (groups * max(1, normalizer * positives)).
    """
    image = tl.arange(0, IMAGES)
    losses = tl.zeros([IMAGES, PARTS], tl.float32)
    counts = tl.zeros([IMAGES, PARTS], tl.float32)
    for first in range(0, num_parts, PARTS):
        part = first + tl.arange(0, PARTS)[None, :]
        mask = (image < N)[:, None] & (part < num_parts)
        place = partials + image[:, None] * num_parts + part
        losses += tl.load(place, mask=mask, other=0.0)
        counts += tl.load(place + N * num_parts, mask=mask, other=0.0)
    of_image, positives = tl.sum(losses, axis=1), tl.sum(counts, axis=1)
    group = tl.arange(0, IMAGES)
    num_groups = (N + images_per_group - 1) // images_per_group
    member = (image // images_per_group)[None, :] == group[:, None]
    sums = tl.sum(tl.where(member, of_image[None, :], 0.0), axis=1)
    number = tl.sum(tl.where(member, positives[None, :], 0.0), axis=1)
    factor = 1.0 / (tl.maximum(normalizer * number, 1.0) * num_groups)
    tl.store(factors + group, factor, mask=group < num_groups)
    tl.store(loss, tl.sum(tl.where(group < num_groups, sums * factor, 0.0), axis=0))


@triton.jit(do_not_specialize=_SIZES)
def write_gradient(
    deltas: tl.tensor,
    anchors: tl.tensor,
    boxes: tl.tensor,
    labels: tl.tensor,
    matched: tl.tensor,
    factors: tl.tensor,
    grad_loss: tl.tensor,
    grad: tl.tensor,
    weight_x: tl.tensor,
    weight_y: tl.tensor,
    weight_w: tl.tensor,
    weight_h: tl.tensor,
    beta: tl.tensor,
    one: tl.tensor,
    R: tl.tensor,
    G: tl.tensor,
    images_per_group: tl.tensor,
    ANCHORS: tl.constexpr,
) -> None:
    """grad [N, R, 4] of deltas; 0 where an anchor is not positive."""
    anchor = tl.program_id(0) * ANCHORS + tl.arange(0, ANCHORS)
    row = tl.program_id(1).to(tl.int64) * R
    positive = tl.load(labels + row + anchor, mask=anchor < R, other=-1) >= 0
    dx, dy, dw, dh = errors(
        deltas, anchors, boxes, matched, anchor, positive, weight_x, weight_y, weight_w, weight_h, one, R, G
    )
    scale = tl.load(factors + tl.program_id(1) // images_per_group) * tl.load(grad_loss)
    # Joined x with w and y with h, then both: so the four of an anchor lie in their order.
    xw, yh = tl.join(slope(dx, beta), slope(dw, beta)), tl.join(slope(dy, beta), slope(dh, beta))
    slopes = tl.reshape(tl.join(xw, yh), (ANCHORS, 4))
    values = tl.where(positive[:, None], slopes * scale, 0.0)
    offsets = anchor[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(grad + row * 4 + offsets, values.to(grad.dtype.element_ty), mask=(anchor < R)[:, None])
