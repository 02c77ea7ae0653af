"""The box regression loss on a GPU: two launches forward, one backward, where torch makes some thirty.

A value differs from a CPU's by roundings, and by up to 1e-6 where the logarithm of a size ratio is approximated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ANCHORS = 1024
_PARTS = 128  # that are summed at once
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}


class Rule(NamedTuple):
    """How the loss is taken; ``one`` is what is added to x2 - x1 to get a width."""

    box_weights: tuple[float, float, float, float]
    beta: float
    normalizer: float
    one: float
    images_per_group: int

    @property
    def numbers(self) -> tuple[float, ...]:
        """The box weights, beta and ``one``, as the kernels take them."""
        return tuple(float(number) for number in (*self.box_weights, self.beta, self.one))


def box_loss(deltas: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, matched: Tensor, rule: Rule) -> Tensor:
    """``detector.model.regression_loss.box_regression_loss``: scalar, float32. The same from run to run.

    deltas: [N, R, 4] float32 or half precision; anchors: [R, 4] and boxes: [N, G, 4] float32; labels and matched:
    [N, R] int64. Only the deltas have a gradient.
    """
    loss: Tensor = _BoxLoss.apply(deltas, anchors, boxes, labels, matched, rule)
    return loss


class _BoxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, deltas: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, matched: Tensor, rule: Rule
    ) -> Tensor:
        from detector.kernels import box_loss_triton as kernels

        inputs = tuple(tensor.contiguous() for tensor in (deltas, anchors, boxes, labels, matched))
        num_images, num_anchors = labels.shape
        num_parts = -(-num_anchors // _ANCHORS)
        partials = deltas.new_empty((2, num_images, num_parts), dtype=torch.float32)
        loss = deltas.new_empty((), dtype=torch.float32)
        factors = deltas.new_empty(-(-num_images // rule.images_per_group), dtype=torch.float32)
        with torch.cuda.device(deltas.get_device()):
            kernels.sum_losses[num_parts, num_images](
                *(*inputs, partials, *rule.numbers, num_anchors, boxes.shape[1]), ANCHORS=_ANCHORS, **_OPTIONS
            )
            kernels.combine_losses[1,](
                *(partials, loss, factors, float(rule.normalizer), num_images, num_parts, rule.images_per_group),
                IMAGES=1 << (num_images - 1).bit_length(),
                PARTS=_PARTS,
                **_OPTIONS,
            )
        ctx.save_for_backward(*inputs, factors)
        ctx.rule = rule
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        from detector.kernels import box_loss_triton as kernels

        *inputs, factors = ctx.saved_tensors
        deltas, _, boxes, labels, _ = inputs
        num_images, num_anchors = labels.shape
        grad = torch.empty_like(deltas)
        with torch.cuda.device(deltas.get_device()):
            kernels.write_gradient[-(-num_anchors // _ANCHORS), num_images](
                *(*inputs, factors, grad_loss, grad, *ctx.rule.numbers, num_anchors, boxes.shape[1]),
                ctx.rule.images_per_group,
                ANCHORS=_ANCHORS,
                **_OPTIONS,
            )
        return grad, None, None, None, None, None
