"""How many kernels a training pass of the real network launches on a GPU, counted on meta tensors without one.

A convolution counts as one launch and its gradient as two, a bias that is torch's as one more each; what cuDNN does
inside is not seen, nor are the roundings to half precision of autocast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from detector.model import assign, convolve, regression_loss
from detector.model.assign import assign_batch
from detector.model.backbone import build_backbone
from detector.model.head import RetinaNetHead
from detector.model.regression_loss import box_regression_loss
from detector.runs.job import ModelSettings
from tests.small_retinanet import MATCHING, REGRESSION, RESNET50
from tests.triton_kernels import INTERPRETED, needs_triton

pytestmark = [needs_triton, pytest.mark.skipif(INTERPRETED, reason="the interpreter launches nothing")]

_NO_LAUNCH = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_local_scalar_dense"}


class Launches(TorchDispatchMode):
    """Counts operations that launch a kernel, and Triton's launches, which do nothing."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        from triton.runtime.jit import JITFunction

        def launch(kernel: Any, *_: Any, **__: Any) -> None:
            self.counts[f"triton {kernel.fn.__name__}"] += 1

        patch.setattr(JITFunction, "run", launch)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        returns = func._schema.returns
        is_view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if name == "convolution":
            self.counts["convolution"] += 1
            self.counts["torch's bias"] += args[2] is not None
        elif name == "convolution_backward":
            into_input, into_weight, into_bias = args[-1]
            self.counts["convolution"] += into_input + into_weight
            self.counts["torch's bias"] += into_bias
        elif not is_view and name not in _NO_LAUNCH:
            self.counts[name] += 1
        result = func(*args, **(kwargs or {}))
        # As cuDNN answers; meta tensors come in another layout, which would have to be copied.
        return tree_map(channels_last, result) if name.startswith("convolution") else result


def channels_last(value: Any) -> Any:
    is_map = isinstance(value, Tensor) and value.ndim == 4
    return value.contiguous(memory_format=torch.channels_last) if is_map else value


def count(fused: bool, work: Callable[[], None]) -> Counter[str]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (convolve, assign, regression_loss):
            patch.setattr(module, "usable", lambda *_: fused)
        with Launches(patch) as launches:
            work()
    return launches.counts


def network_pass(num_images: int = 2) -> Callable[[], None]:
    """Forward and backward of ResNet-50, pyramid and head for images of 800 x 1344."""
    with torch.device("meta"):
        backbone = build_backbone(ModelSettings(**RESNET50)).to(memory_format=torch.channels_last)
        head = RetinaNetHead(256, 9, 80).to(memory_format=torch.channels_last)
    images = torch.empty(num_images, 3, 800, 1344, device="meta").contiguous(memory_format=torch.channels_last)

    def run() -> None:
        cls_logits, bbox_regression = head(backbone(images))
        outputs = [*cls_logits, *bbox_regression]
        parameters = [p for module in (backbone, head) for p in module.parameters() if p.requires_grad]
        torch.autograd.grad(outputs, parameters, [torch.empty_like(output) for output in outputs])

    return run


def test_a_bias_a_norm_and_a_relu_are_no_passes_of_their_own() -> None:
    run = network_pass()
    fused, plain = count(True, run), count(False, run)

    assert fused["convolution"] == plain["convolution"]
    assert plain["torch's bias"] == 168
    for name in ("torch's bias", "rsqrt", "mul", "sub", "relu_", "upsample_nearest2d"):
        assert plain[name] > 0
        assert fused[name] == 0, name
    assert fused["relu"] == plain["relu"] == 1  # before P7
    blocks, pyramid, head = 53 - 4, 3 + 3 + 2, 2 * 5 * 5  # the shortcuts' norms are added with the blocks' last
    assert fused["triton add_bias"] == blocks + pyramid + head
    assert fused["triton fold"] == 53
    assert fused["clone"] == fused["zeros"] == 0
    assert (fused.total(), plain.total()) == (778, 1134)


def losses_pass() -> None:
    """Matching and the box regression loss of four images, forward and backward."""
    deltas = torch.empty(4, 1000, 4, device="meta", requires_grad=True)
    anchors, boxes = torch.empty(1000, 4, device="meta"), torch.empty(4, 64, 4, device="meta")
    labels = torch.empty(4, 64, dtype=torch.int64, device="meta")
    assigned = assign_batch(anchors, boxes, labels, MATCHING, "modern")
    loss = box_regression_loss(deltas, anchors, boxes, assigned, REGRESSION, convention="modern", images_per_group=2)
    torch.autograd.grad(loss, deltas, torch.empty((), device="meta"))


def test_matching_and_box_loss_are_six_launches() -> None:
    fused = count(True, losses_pass)

    assert fused == Counter(
        {
            "new_zeros": 1,
            "triton largest_overlaps": 1,
            "triton label_anchors": 1,
            "triton sum_losses": 1,
            "triton combine_losses": 1,
            "triton write_gradient": 1,
        }
    )
    assert count(False, losses_pass).total() > 90
