"""Bodies and pyramids: shapes, names, frozen stages, the source of P6."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet50, resnet101, resnext101_32x8d
from torchvision.ops import FrozenBatchNorm2d

from detector.model.backbone import build_backbone, group_norm
from detector.model.convolve import FrozenNorm, folded
from detector.runs.job import ModelSettings
from tests.small_retinanet import SLIM

RESNET = SLIM | {"backbone": "resnet50", "norm": "frozen_batch", "fpn_channels": 256, "fpn_levels": (3, 7)}


@pytest.mark.parametrize(("last", "sides"), [(5, [12, 6, 3]), (6, [12, 6, 3, 2]), (7, [12, 6, 3, 2, 1])])
def test_backbone_levels_halve_from_p3_to_the_last(last: int, sides: list[int]) -> None:
    backbone = build_backbone(ModelSettings(**SLIM | {"fpn_levels": (3, last)}))

    levels = backbone(torch.rand(2, 3, 96, 96))

    assert [tuple(level.shape) for level in levels] == [(2, 48, side, side) for side in sides]
    assert backbone.strides == (8, 16, 32, 64, 128)[: len(sides)]
    assert backbone.out_channels == 48


def test_backbone_handles_images_smaller_than_the_coarsest_stride() -> None:
    levels = build_backbone(ModelSettings(**SLIM | {"fpn_levels": (3, 7)}))(torch.rand(1, 3, 32, 64))

    assert [tuple(level.shape[-2:]) for level in levels] == [(4, 8), (2, 4), (1, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("source", ["c5", "p5"])
def test_backbone_p6_comes_from_the_named_map_though_channels_are_equal(source: str) -> None:
    # C5 of the slim body has 96 channels, too.
    backbone = build_backbone(ModelSettings(**SLIM | {"fpn_channels": 96, "fpn_levels": (3, 7), "p6_from": source}))
    images = torch.rand(1, 3, 64, 64)
    levels = backbone(images)
    origin = backbone.body(images)["p5"] if source == "c5" else levels[2]

    p6, p7 = backbone.fpn.extra_blocks.p6, backbone.fpn.extra_blocks.p7
    torch.testing.assert_close(levels[3], p6(origin))
    torch.testing.assert_close(levels[4], p7(p6(origin).relu()))


def test_backbone_c5_source_takes_the_body_channels() -> None:
    with torch.device("meta"):
        backbone = build_backbone(ModelSettings(**RESNET | {"p6_from": "c5"}))

    assert backbone.fpn.extra_blocks.p6.weight.shape == (256, 2048, 3, 3)


@pytest.mark.parametrize(
    ("name", "theirs"), [("resnet50", resnet50), ("resnet101", resnet101), ("resnext101_32x8d", resnext101_32x8d)]
)
def test_backbone_body_has_torchvision_names_and_shapes(name: str, theirs: Any) -> None:
    with torch.device("meta"):
        body = build_backbone(ModelSettings(**RESNET | {"backbone": name})).body
        expected = {
            key: value.shape
            for key, value in theirs().state_dict().items()
            if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
        }

    assert {key: value.shape for key, value in body.state_dict().items()} == expected


@pytest.mark.parametrize("frozen", range(6))
def test_backbone_freezes_exactly_the_first_stages(frozen: int) -> None:
    with torch.device("meta"):
        backbone = build_backbone(ModelSettings(**RESNET | {"frozen_stages": frozen}))

    stages = ["conv1", "layer1", "layer2", "layer3", "layer4"]
    trainable = {name.split(".")[0] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert trainable == set(stages[frozen:])
    assert all(p.requires_grad for p in backbone.fpn.parameters())


@pytest.mark.parametrize(("norm", "kind"), [("frozen_batch", FrozenNorm), ("group", nn.GroupNorm)])
@pytest.mark.parametrize("name", ["resnet50", "slim"])
def test_backbone_norms_are_all_of_the_kind_asked_for(name: str, norm: str, kind: type[nn.Module]) -> None:
    with torch.device("meta"):
        body = build_backbone(ModelSettings(**RESNET | {"backbone": name, "norm": norm})).body

    norms = {type(m) for m in body.modules() if isinstance(m, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm))}
    norms |= {type(m) for m in body.modules() if isinstance(m, FrozenBatchNorm2d)}
    assert norms == {kind}


@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 2), (24, 3), (48, 6), (64, 8), (256, 32), (2048, 32), (4, 1), (36, 4), (44, 1)]
)
def test_group_norm_has_8_channels_a_group_and_at_most_32_groups(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_backbone_pyramid_starts_with_kaiming_uniform_weights_and_zero_bias() -> None:
    fpn = build_backbone(ModelSettings(**SLIM | {"fpn_channels": 64, "fpn_levels": (3, 7)})).fpn

    convs = [m for m in fpn.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 8
    for conv in convs:
        bound = (3 / conv.weight[0].numel()) ** 0.5  # a = 1: sqrt(6 / ((1 + a^2) fan_in))
        assert 0.9 * bound < conv.weight.abs().max() <= bound
        assert conv.bias is not None
        assert not conv.bias.any()


def test_slim_body_is_small() -> None:
    body = build_backbone(ModelSettings(**SLIM)).body

    assert sum(p.numel() for p in body.parameters()) == 255_872


def random_norm(channels: int) -> FrozenNorm:
    norm = FrozenNorm(channels)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2.0)
    return norm


def test_frozen_norm_equals_torchvisions_to_the_last_bit() -> None:
    norm, theirs, x = random_norm(5), FrozenBatchNorm2d(5), torch.randn(2, 5, 7, 3)
    theirs.load_state_dict(norm.state_dict())

    assert torch.equal(norm(x.clone()), theirs(x))
    assert torch.equal(norm(x.bfloat16()), theirs(x.bfloat16()))


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 3)])
def test_folded_norm_gives_the_values_and_gradients_of_norm_after_convolution(stride: int, groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 9, 3, stride, padding=1, groups=groups, bias=False).double()
    norm, x = random_norm(9).double(), torch.randn(2, 6, 8, 5, dtype=torch.float64, requires_grad=True)
    pull = torch.randn(2, 9, 8 // stride, -(-5 // stride), dtype=torch.float64)

    outputs = [norm(conv(x)), folded(conv, norm, x)]
    gradients = [torch.autograd.grad((output * pull).sum(), (conv.weight, x)) for output in outputs]

    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


def test_bottleneck_equals_torchvisions_to_the_last_bit() -> None:
    torch.manual_seed(0)
    block = resnet50(norm_layer=FrozenBatchNorm2d).layer2[0]
    ours = build_backbone(ModelSettings(**RESNET)).body["layer2"][0]
    for buffer in block.buffers():
        buffer.uniform_(0.5, 2.0)
    ours.load_state_dict(block.state_dict())
    x = torch.randn(1, 256, 8, 8)

    assert torch.equal(ours(x), block(x))
