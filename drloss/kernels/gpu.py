"""CUDA backend of the fused losses: the host side of the Triton kernels, with one launch for all levels and images.

The host never waits for the device: sizes and sets of images travel with the launch, by value. Sums are the same from
run to run, because there are no atomic additions. The logits are read twice and the gradient is written once; nothing
else of their size is stored. Legend: N images, R anchors of all levels, R_l of one level, K classes, S sets of images.

In all functions, levels: [N, R_l, K] of one dtype (float32, bfloat16, float16), read in place if contiguous; labels:
[N, R] int64 over all levels' anchors in order; ``set_of_image[n]`` (or group) counts from 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Kind: TypeAlias = Literal["focal", "cross_entropy"]

# With 128 threads per program, each keeps 40 to 64 float32 logits in registers.
_ENTRIES_A_TILE = 8192
_PARTIALS_AT_ONCE = 4096
# Fused multiply-add is named, because triton warns of a default that is going to change.
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
_COMBINE: dict[str, Any] = {"BLOCK": _PARTIALS_AT_ONCE, "num_warps": 8, "enable_fp_fusion": True}


def reduce_negatives(
    levels: Sequence[Tensor], labels: Tensor, set_of_image: Sequence[int], inverse_lambda: float
) -> tuple[Tensor, Tensor, Tensor]:
    """P- of Eq. 6 and the log of its normaliser, [S] float64, and the logit of each anchor's own class, [N, R].

    P- = sum q_j p_j with q_j proportional to exp(p_j / lambda), over all entries of anchors that are not ignored except
    the anchor's own class; 0 for a set without any, with log normaliser -inf. pos_logits: float32, 0 where label < 0.
    """
    from drloss.kernels import gpu_negatives as kernels

    levels, num_tiles, sizes, layout = _plan(levels)
    num_images, num_sets = len(set_of_image), 1 + max(set_of_image)
    partials = labels.new_empty((3, num_images, num_tiles), dtype=torch.float32)
    pos_logits = labels.new_empty(labels.shape, dtype=torch.float32)
    expected_neg, log_normalizer = (labels.new_empty(num_sets, dtype=torch.float64) for _ in range(2))
    with torch.cuda.device(labels.get_device()):
        kernels.sum_negatives[num_tiles, num_images](
            levels, sizes, labels.contiguous(), pos_logits, partials, inverse_lambda, **layout, **_OPTIONS
        )
        kernels.combine_negatives[num_sets,](
            partials, _by_value(set_of_image), num_tiles, expected_neg, log_normalizer, **_COMBINE
        )
    return expected_neg, log_normalizer, pos_logits


def negatives_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    set_of_image: Sequence[int],
    inverse_lambda: float,
    expected_neg: Tensor,
    log_normalizer: Tensor,
    grad_neg: Tensor,
    grad_pos: Tensor,
) -> list[Tensor]:
    """One gradient of each level's shape and dtype, from what ``reduce_negatives`` returned.

    0 for ignored anchors, ``grad_pos`` [N, R] for the anchor's own class, and for every other entry
    grad_neg q_j (1 + (p_j - P-) / lambda) p_j (1 - p_j), with ``grad_neg`` [S].
    """
    from drloss.kernels import gpu_negatives as kernels

    levels, num_tiles, sizes, layout = _plan(levels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    with torch.cuda.device(labels.get_device()):
        kernels.write_gradient[num_tiles, len(set_of_image)](
            *(levels, gradients, sizes, labels.contiguous(), _by_value(set_of_image)),
            *(expected_neg, log_normalizer, grad_neg.contiguous(), grad_pos.contiguous(), inverse_lambda),
            **layout,
            **_OPTIONS,
        )
    return list(gradients)


def pointwise_sum(
    levels: Sequence[Tensor], labels: Tensor, group_of_image: Sequence[int], kind: Kind, alpha: float, gamma: float
) -> Tensor:
    """Focal loss or cross entropy, summed over the entries of each group's anchors that are not ignored, float64.

    focal: -alpha_t (1 - p_t)^gamma log p_t; cross_entropy: -log p_t, whatever alpha and gamma are.
    """
    from drloss.kernels import gpu_pointwise as kernels

    levels, num_tiles, sizes, layout = _plan(levels)
    num_images, num_groups = len(group_of_image), 1 + max(group_of_image)
    partials = labels.new_empty((num_images, num_tiles), dtype=torch.float32)
    sums = labels.new_empty(num_groups, dtype=torch.float64)
    with torch.cuda.device(labels.get_device()):
        kernels.sum_pointwise[num_tiles, num_images](
            levels, sizes, labels.contiguous(), partials, *_constants(kind, alpha, gamma), **layout, **_OPTIONS
        )
        kernels.combine_sums[num_groups,](partials, _by_value(group_of_image), num_tiles, sums, **_COMBINE)
    return sums


def pointwise_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    group_of_image: Sequence[int],
    kind: Kind,
    alpha: float,
    gamma: float,
    scale: Tensor,
) -> list[Tensor]:
    """One gradient of each level's shape and dtype; ``scale`` [groups]: d loss / d the group's ``pointwise_sum``."""
    from drloss.kernels import gpu_pointwise as kernels

    levels, num_tiles, sizes, layout = _plan(levels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    with torch.cuda.device(labels.get_device()):
        kernels.write_pointwise_gradient[num_tiles, len(group_of_image)](
            *(levels, gradients, sizes, labels.contiguous(), _by_value(group_of_image), scale.contiguous()),
            *_constants(kind, alpha, gamma),
            **layout,
            **_OPTIONS,
        )
    return list(gradients)


def _plan(levels: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], int, tuple[int, ...], dict[str, int]]:
    """Contiguous levels, number of tiles per image, anchors per level (by value), and the layout of a tile."""
    layout = _tile_layout(levels[0].shape[2])
    sizes = [level.shape[1] for level in levels]
    num_tiles = sum(-(-size // layout["ROWS"]) for size in sizes)
    return tuple(level.contiguous() for level in levels), num_tiles, _by_value(sizes), layout


def _by_value(numbers: Iterable[int]) -> tuple[int, ...]:
    """Numbers as a tuple that travels with a launch, without a copy to the device.

    They are sent as odd numbers from 3 on. Triton compiles a kernel anew for a 1 and for multiples of 16; in a tuple
    ``do_not_specialize`` does not prevent that, and each new image size would cost a second.
    """
    return tuple(2 * number + 3 for number in numbers)


@cache
def _tile_layout(num_classes: int) -> dict[str, int]:
    """Compile-time sizes of a tile: five to eight pieces per anchor, where there are that many classes.

    For 80 classes: 64 anchors in five pieces of 16, without padding. A piece has at least 4 classes, 16 bytes of
    float32.
    """
    whole, eighth = _next_power_of_2(num_classes), _next_power_of_2(-(-num_classes // 8))
    width = min(whole, max(4, eighth))
    padded = -(-num_classes // width) * width
    rows = _next_power_of_2(_ENTRIES_A_TILE // padded + 1) // 2
    return {"K": num_classes, "WIDTH": width, "ROWS": max(1, rows)}


def _next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _constants(kind: Kind, alpha: float, gamma: float) -> tuple[float, float, float, str]:
    """alpha_t of a positive and of a negative entry, gamma, and which way to raise to it."""
    if kind == "cross_entropy":
        return 1.0, 1.0, 0.0, "zero"
    return alpha, 1.0 - alpha, float(gamma), {0.0: "zero", 2.0: "two"}.get(gamma, "any")
