"""Triton kernels of the ranking losses (Eqs. 6 and 9): from the logits to the loss, and to its gradient.

Forward: ``sum_scores`` reads the logits and keeps six sums per strip; ``combine_sets`` adds them in float64, in a fixed
order, and goes on to the surrogate, its slope and the loss of each set; ``add_up`` adds the sets. NegOnly, whose
surrogate takes each positive against P-, has ``rank_positives`` and ``combine_positives`` instead of ``add_up``.
Backward: ``write_gradient`` alone; it computes every weight anew from the sums.

Between them is the workspace, float64: ``NUM_STATE`` rows [S], then six rows [N * strips] of partial sums.
Weights are powers of two, relative to a shift: exp(p / lambda) = 2^(p scale), scale = log2(e) / lambda. SHIFTED: the
negatives' shift is the exponent of p = 1, known before any logit is read; so no score has to be kept until the largest
is found. Where lambda is too small for it, the shift is the largest exponent met so far.

Needs triton. Legend: N images, R anchors, K classes, S sets of ``images_per_set`` images; strips as in ``gpu_strips``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_strips import block_offsets, chunk_labels, find_strip, own_entries, sigmoids, start_of
from drloss.kernels.gpu_surrogates import surrogate_of
from drloss.kernels.gpu_tiles import LOG2_E, sigmoid

EXCLUDED: tl.constexpr = tl.constexpr(-1e30)  # finite, so that its weight, 0, times it is 0
LEAST_SCALE: tl.constexpr = tl.constexpr(
    1e-24
)  # above 0, so that the weight of an excluded entry is 0 for lambda = inf

# Rows of the workspace, [S] each. Z: sum of the weights, 0 for an empty set.
P_NEG: tl.constexpr = tl.constexpr(0)
P_POS: tl.constexpr = tl.constexpr(1)
SHIFT_NEG: tl.constexpr = tl.constexpr(2)
Z_NEG: tl.constexpr = tl.constexpr(3)
SHIFT_POS: tl.constexpr = tl.constexpr(4)
Z_POS: tl.constexpr = tl.constexpr(5)
SLOPE_NEG: tl.constexpr = tl.constexpr(6)  # d loss / d P-
SLOPE_POS: tl.constexpr = tl.constexpr(7)  # d loss / d P+; NegOnly: minus the weight of each positive in the loss
LOSS: tl.constexpr = tl.constexpr(8)  # what the set adds to the loss
NUM_STATE: tl.constexpr = tl.constexpr(9)


@triton.jit
def scale_of(inverse_lambda: tl.tensor) -> Any:
    """log2(e) / lambda."""
    return tl.maximum(inverse_lambda * LOG2_E, LEAST_SCALE)


@triton.jit(do_not_specialize=["num_sets"])
def sum_scores(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    work: tl.tensor,
    num_sets: tl.tensor,
    pos_logits: tl.tensor,
    inverse_neg: tl.tensor,
    inverse_pos: tl.tensor,
    SHIFTED: tl.constexpr,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRED: tl.constexpr,
) -> None:
    """First pass: a strip's shift, sum of weights, sum of weight * p, for its negatives, then for its positives.

    pos_logits: [N, R] float32, which gets the logit of each positive's own entry; or None.
    """
    level, first, num_chunks, image, anchor = find_strip(num_anchors, K, VECTOR, CHUNKS, STEPS)
    start = start_of(levels, level, image, first, VECTOR)
    row, place, own = own_entries(labels + anchor, first, num_chunks, K, VECTOR, CHUNKS, STEPS, ROWS)
    own_logit = tl.load(start + place, mask=own, other=0.0).to(tl.float32)
    if pos_logits is not None:
        tl.store(pos_logits + anchor + row, own_logit, mask=own)

    scale = scale_of(inverse_neg)
    shift = scale if SHIFTED else scale * 0.0
    total, weighted = tl.zeros([CHUNKS], tl.float32), tl.zeros([CHUNKS], tl.float32)
    for step in range(STEPS):
        exists, counts, class_ = chunk_labels(labels + anchor, first, num_chunks, step, K, VECTOR, CHUNKS)
        logits = tl.load(start + block_offsets(step, VECTOR, CHUNKS), mask=exists, other=0.0)
        p = sigmoids(logits.to(tl.float32), PAIRED)
        p = tl.where(counts & (class_ != tl.arange(0, VECTOR)[None, :]), p, EXCLUDED)
        if not SHIFTED:
            larger = tl.maximum(shift, tl.max(p) * scale)
            kept = tl.exp2(shift - larger)
            total, weighted, shift = total * kept, weighted * kept, larger
        weight = tl.exp2(p * scale - shift)
        total += tl.sum(weight, axis=1)
        weighted += tl.sum(weight * p, axis=1)

    num_partials = tl.num_programs(0) * tl.num_programs(1)
    partial = work + num_sets * NUM_STATE + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partial, shift.to(tl.float64))
    tl.store(partial + num_partials, tl.sum(total).to(tl.float64))
    tl.store(partial + 2 * num_partials, tl.sum(weighted).to(tl.float64))

    p = sigmoid(own_logit)
    exponent = tl.where(own, p * -scale_of(inverse_pos), EXCLUDED)
    shift = tl.max(exponent)
    weight = tl.where(own, tl.exp2(exponent - shift), 0.0)
    tl.store(partial + 3 * num_partials, shift.to(tl.float64))
    tl.store(partial + 4 * num_partials, tl.sum(weight).to(tl.float64))
    tl.store(partial + 5 * num_partials, tl.sum(weight * p).to(tl.float64))


@triton.jit
def _expectation(
    partials: tl.tensor, num_partials: tl.tensor, start: tl.tensor, end: tl.tensor, BLOCK: tl.constexpr
) -> Any:
    """Shift, Z and sum of weight * p over the partial sums from ``start`` to ``end``; each lane adds its own first."""
    shift = tl.full([BLOCK], EXCLUDED, tl.float32)
    total, weighted = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for block in range(start, end, BLOCK):
        index = block + tl.arange(0, BLOCK)
        here = index < end
        exponent = tl.load(partials + index, mask=here, other=EXCLUDED).to(tl.float32)
        larger = tl.maximum(shift, exponent)
        kept, scale = tl.exp2(shift - larger).to(tl.float64), tl.exp2(exponent - larger).to(tl.float64)
        total = total * kept + scale * tl.load(partials + num_partials + index, mask=here, other=0.0)
        weighted = weighted * kept + scale * tl.load(partials + 2 * num_partials + index, mask=here, other=0.0)
        shift = larger
    largest = tl.max(shift)
    scale = tl.exp2(shift - largest).to(tl.float64)
    return largest.to(tl.float64), tl.sum(total * scale), tl.sum(weighted * scale)


@triton.jit
def _weight_of_set(this_set: tl.tensor, num_sets: tl.tensor, sets_per_group: tl.tensor) -> Any:
    """Its weight in the mean over groups of the mean over a group's sets, float64. The last group may be smaller."""
    num_groups = tl.cdiv(num_sets, sets_per_group)
    in_group = tl.minimum(sets_per_group, num_sets - this_set // sets_per_group * sets_per_group)
    return 1.0 / (num_groups * in_group).to(tl.float64)


@triton.jit(do_not_specialize=["num_images", "num_strips", "images_per_set", "sets_per_group"])
def combine_sets(
    work: tl.tensor,
    loss: tl.tensor,
    num_images: tl.tensor,
    num_strips: tl.tensor,
    images_per_set: tl.tensor,
    sets_per_group: tl.tensor,
    margin: tl.tensor,
    parameter: tl.tensor,
    SURROGATE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program s adds the sums of set s, and writes column s of the workspace's first rows.

    SURROGATE: "none" leaves out slopes and loss. loss: float32, written where there is one set only. An empty set
    scores perfectly: P- = 0, P+ = 1.
    """
    this_set, num_sets = tl.program_id(0), tl.num_programs(0)
    num_partials = num_images * num_strips
    start = this_set * images_per_set * num_strips
    end = tl.minimum(start + images_per_set * num_strips, num_partials)
    partials = work + num_sets * NUM_STATE
    shift_neg, z_neg, sum_neg = _expectation(partials, num_partials, start, end, BLOCK)
    shift_pos, z_pos, sum_pos = _expectation(partials + 3 * num_partials, num_partials, start, end, BLOCK)
    p_neg = sum_neg / tl.where(z_neg == 0, 1.0, z_neg)
    p_pos = tl.where(z_pos == 0, 1.0, sum_pos / tl.where(z_pos == 0, 1.0, z_pos))
    state = work + this_set
    tl.store(state + P_NEG * num_sets, p_neg)
    tl.store(state + P_POS * num_sets, p_pos)
    tl.store(state + SHIFT_NEG * num_sets, shift_neg)
    tl.store(state + Z_NEG * num_sets, z_neg)
    tl.store(state + SHIFT_POS * num_sets, shift_pos)
    tl.store(state + Z_POS * num_sets, z_pos)
    if SURROGATE != "none":
        weight = _weight_of_set(this_set, num_sets, sets_per_group)
        value, slope = surrogate_of(p_neg - p_pos + margin, parameter, SURROGATE)
        tl.store(state + SLOPE_NEG * num_sets, weight * slope)
        tl.store(state + SLOPE_POS * num_sets, -weight * slope)
        tl.store(state + LOSS * num_sets, weight * value)
        if num_sets == 1:
            tl.store(loss, value.to(tl.float32))


@triton.jit(do_not_specialize=["num_sets"])
def add_up(work: tl.tensor, loss: tl.tensor, num_sets: tl.tensor, ROW: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """The sum of a workspace's row, [S] float64, as float32."""
    losses = work + ROW * num_sets
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, num_sets, BLOCK):
        index = start + tl.arange(0, BLOCK)
        total += tl.load(losses + index, mask=index < num_sets, other=0.0)
    tl.store(loss, tl.sum(total).to(tl.float32))


@triton.jit(do_not_specialize=["num_sets", "images_per_set"])
def rank_positives(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    work: tl.tensor,
    num_sets: tl.tensor,
    images_per_set: tl.tensor,
    margin: tl.tensor,
    parameter: tl.tensor,
    SURROGATE: tl.constexpr,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """NegOnly: sums of l and l' of P- - p_j + margin over a strip's positives, in place of their first sums."""
    level, first, num_chunks, image, anchor = find_strip(num_anchors, K, VECTOR, CHUNKS, STEPS)
    start = start_of(levels, level, image, first, VECTOR)
    _, place, own = own_entries(labels + anchor, first, num_chunks, K, VECTOR, CHUNKS, STEPS, ROWS)
    p = sigmoid(tl.load(start + place, mask=own, other=0.0).to(tl.float32)).to(tl.float64)
    p_neg = tl.load(work + P_NEG * num_sets + tl.program_id(1) // images_per_set)
    value, slope = surrogate_of(p_neg - p + margin, parameter, SURROGATE)
    num_partials = tl.num_programs(0) * tl.num_programs(1)
    partial = work + num_sets * NUM_STATE + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partial + 3 * num_partials, tl.sum(tl.where(own, value, 0.0)))
    tl.store(partial + 4 * num_partials, tl.sum(tl.where(own, slope, 0.0)))


@triton.jit(do_not_specialize=["num_images", "num_strips", "num_sets", "images_per_set", "sets_per_group"])
def combine_positives(
    work: tl.tensor,
    loss: tl.tensor,
    num_images: tl.tensor,
    num_strips: tl.tensor,
    num_sets: tl.tensor,
    images_per_set: tl.tensor,
    sets_per_group: tl.tensor,
    margin: tl.tensor,
    parameter: tl.tensor,
    SURROGATE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """NegOnly: one program for all sets, one after the other; the sums of ``rank_positives`` are few.

    A set without positives has one constant positive with p = 1. Z_POS is the number of positives.
    """
    num_partials = num_images * num_strips
    losses = work + num_sets * NUM_STATE + 3 * num_partials
    all_sets = tl.zeros([], tl.float64)
    for this_set in range(num_sets):
        value, slope = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        start = this_set * images_per_set * num_strips
        end = tl.minimum(start + images_per_set * num_strips, num_partials)
        for block in range(start, end, BLOCK):
            index = block + tl.arange(0, BLOCK)
            value += tl.load(losses + index, mask=index < end, other=0.0)
            slope += tl.load(losses + num_partials + index, mask=index < end, other=0.0)
        state = work + this_set
        num_pos = tl.load(state + Z_POS * num_sets)
        alone, alone_slope = surrogate_of(tl.load(state + P_NEG * num_sets) - 1.0 + margin, parameter, SURROGATE)
        weight = _weight_of_set(this_set, num_sets, sets_per_group) / tl.where(num_pos == 0, 1.0, num_pos)
        of_set = weight * tl.where(num_pos == 0, alone, tl.sum(value))
        tl.store(state + SLOPE_NEG * num_sets, weight * tl.where(num_pos == 0, alone_slope, tl.sum(slope)))
        tl.store(state + SLOPE_POS * num_sets, -weight)
        tl.store(state + LOSS * num_sets, of_set)
        all_sets += of_set
    tl.store(loss, all_sets.to(tl.float32))


@triton.jit(do_not_specialize=["num_sets", "images_per_set"])
def write_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    work: tl.tensor,
    num_sets: tl.tensor,
    images_per_set: tl.tensor,
    grad_loss: tl.tensor,
    grad_neg: tl.tensor,
    grad_pos: tl.tensor,
    inverse_neg: tl.tensor,
    inverse_pos: tl.tensor,
    margin: tl.tensor,
    parameter: tl.tensor,
    EACH: tl.constexpr,
    SHIFTED: tl.constexpr,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    PAIRED: tl.constexpr,
) -> None:
    """Second pass. levels, gradients: of the same shapes. 0 for ignored anchors.

    With q_j the weight over Z: a negative has slope- q_j (1 + (p_j - P-) / lambda-) p_j (1 - p_j), a positive
    slope+ q_j (1 - (p_j - P+) / lambda+) p_j (1 - p_j).
    EACH: what a positive's gradient comes from. "expected": as above. "given": grad_pos [N, R]. A surrogate's name:
    NegOnly, slope+ l'(P- - p_j + margin) p_j (1 - p_j).
    grad_loss: d / d loss, one number; None takes the slopes from grad_neg and grad_pos, [S], not from the workspace.
    """
    level, first, num_chunks, image, anchor = find_strip(num_anchors, K, VECTOR, CHUNKS, STEPS)
    start = start_of(levels, level, image, first, VECTOR)
    target = start_of(gradients, level, image, first, VECTOR)
    row, place, own = own_entries(labels + anchor, first, num_chunks, K, VECTOR, CHUNKS, STEPS, ROWS)
    own_logit = tl.load(start + place, mask=own, other=0.0).to(tl.float32)

    this_set = tl.program_id(1) // images_per_set
    state = work + this_set
    if grad_loss is not None:
        grad = tl.load(grad_loss).to(tl.float64)
        slope_neg = tl.load(state + SLOPE_NEG * num_sets) * grad
        slope_pos = tl.load(state + SLOPE_POS * num_sets) * grad
    else:
        slope_neg = tl.load(grad_neg + this_set).to(tl.float64)
        slope_pos = slope_neg * 0.0
        if EACH == "expected":
            slope_pos = tl.load(grad_pos + this_set).to(tl.float64)
    p_neg = tl.load(state + P_NEG * num_sets)
    z_neg = tl.load(state + Z_NEG * num_sets)
    # The shift is a float32 exactly: each weight is the same number as in the first pass.
    shift = tl.load(state + SHIFT_NEG * num_sets).to(tl.float32)
    factor = (slope_neg / tl.where(z_neg == 0, 1.0, z_neg)).to(tl.float32)
    offset = (1.0 - p_neg * inverse_neg).to(tl.float32)
    scale = scale_of(inverse_neg)
    for step in range(STEPS):
        exists, counts, _ = chunk_labels(labels + anchor, first, num_chunks, step, K, VECTOR, CHUNKS)
        offsets = block_offsets(step, VECTOR, CHUNKS)
        p = sigmoids(tl.load(start + offsets, mask=exists, other=0.0).to(tl.float32), PAIRED)
        weight = tl.exp2(p * scale - shift)
        gradient = factor * weight * (p * inverse_neg + offset) * (p - p * p)
        gradient = tl.where(counts, gradient, 0.0).to(target.dtype.element_ty)
        tl.store(target + offsets, gradient, mask=exists)

    p = sigmoid(own_logit)
    if EACH == "given":
        gradient = tl.load(grad_pos + anchor + row, mask=own, other=0.0).to(tl.float32)
    else:
        gradient = slope_pos.to(tl.float32) * (p - p * p)
        if EACH == "expected":
            z_pos = tl.load(state + Z_POS * num_sets)
            weight = tl.exp2(p * -scale_of(inverse_pos) - tl.load(state + SHIFT_POS * num_sets).to(tl.float32))
            q = weight * (1.0 / tl.where(z_pos == 0, 1.0, z_pos)).to(tl.float32)
            p_pos = tl.load(state + P_POS * num_sets).to(tl.float32)
            gradient *= q * (1.0 - (p - p_pos) * inverse_pos)
        else:
            _, slope = surrogate_of(p_neg.to(tl.float32) - p + margin, parameter, EACH)
            gradient *= slope
    # Other threads of this program wrote these entries as if they were negatives: after them.
    tl.debug_barrier()
    tl.store(target + place, gradient.to(target.dtype.element_ty), mask=own)
