"""The two subnets: order of the outputs, initial scores, sharing over levels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detector.model.head import RetinaNetHead


def test_head_outputs_run_over_rows_then_columns_then_anchors() -> None:
    head = RetinaNetHead(8, num_anchors=3, num_classes=5, num_convs=1)
    convolved: dict[str, torch.Tensor] = {}
    for branch, name in ((head.classification_head, "cls_logits"), (head.regression_head, "bbox_reg")):
        branch[name].register_forward_hook(lambda _m, _i, output, name=name: convolved.update({name: output}))

    (logits,), (deltas,) = head([torch.rand(2, 8, 4, 6)])

    assert logits.shape == (2, 4 * 6 * 3, 5)
    assert deltas.shape == (2, 4 * 6 * 3, 4)
    row, column, anchor, k = 2, 5, 1, 3
    r = (row * 6 + column) * 3 + anchor
    assert logits[1, r, k] == convolved["cls_logits"][1, anchor * 5 + k, row, column]
    assert deltas[1, r, k] == convolved["bbox_reg"][1, anchor * 4 + k, row, column]


def test_head_outputs_are_views_where_the_format_is_channels_last() -> None:
    head = RetinaNetHead(8, 3, 5, num_convs=1).to(memory_format=torch.channels_last)
    pointers: list[int] = []
    head.classification_head["cls_logits"].register_forward_hook(lambda _m, _i, out: pointers.append(out.data_ptr()))

    (logits,), _ = head([torch.rand(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)])

    assert logits.data_ptr() == pointers[0]
    assert logits.is_contiguous()


def test_head_shares_its_weights_over_levels() -> None:
    head = RetinaNetHead(8, 2, 3)
    feature = torch.rand(1, 8, 4, 4)

    logits, deltas = head([feature, feature])

    assert torch.equal(logits[0], logits[1])
    assert torch.equal(deltas[0], deltas[1])


@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_head_scores_start_at_the_prior_probability(prior: float) -> None:
    head = RetinaNetHead(8, 2, 3, prior_probability=prior)

    (logits,), (deltas,) = head([torch.zeros(1, 8, 2, 2)])

    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, prior))
    assert not deltas.any()
    bias = head.classification_head["cls_logits"].bias
    assert isinstance(bias, torch.Tensor)
    torch.testing.assert_close(bias, torch.full_like(bias, -math.log((1 - prior) / prior)))


def test_head_weights_start_normal_with_deviation_0_01() -> None:
    torch.manual_seed(0)
    head = RetinaNetHead(64, 9, 6)

    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 10
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert abs(conv.weight.mean().item()) < 5e-4


def test_head_weights_before_a_norm_start_kaiming_normal() -> None:
    torch.manual_seed(0)
    head = RetinaNetHead(64, 9, 6, norm="group")

    for conv in (m for m in head.modules() if isinstance(m, nn.Conv2d)):
        expected = 0.01 if conv.bias is not None else (2 / (64 * 9)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("norm", "count"), [("none", 0), ("group", 4)])
def test_head_normalises_each_tower_convolution_where_asked(norm: str, count: int) -> None:
    head = RetinaNetHead(48, 9, 6, num_convs=2, norm=norm)

    assert sum(isinstance(m, nn.GroupNorm) for m in head.modules()) == count
    assert sum(isinstance(m, nn.Conv2d) for m in head.modules()) == 6
