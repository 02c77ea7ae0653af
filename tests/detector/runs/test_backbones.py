"""The table of backbones beside the networks as built, and a backbone of one's own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, ResNeXt101_32X8D_Weights
from torchvision.ops import FrozenBatchNorm2d

from detector.model.backbone import NormLayer, build_backbone
from detector.runs.backbones import BACKBONES, BackboneEntry, Stage
from detector.runs.job import ModelSettings
from detector.weights.find import URLS
from detector.weights.network import infer_architecture
from harness.planning.network_size import network_size
from tests.small_retinanet import SLIM, build

STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def body_of(name: str, **changes: Any) -> Any:
    with torch.device("meta"):
        return build_backbone(ModelSettings(**SLIM | {"backbone": name, "norm": "frozen_batch"} | changes)).body


@pytest.mark.parametrize("name", list(BACKBONES))
def test_parameters_of_each_stage_are_those_of_the_network(name: str) -> None:
    body = body_of(name)
    found = []
    for stage in STAGES:
        modules = [module for child in stage for module in body[child].modules()]
        weights = sum(module.weight.numel() for module in modules if isinstance(module, nn.Conv2d))
        normalised = sum(module.weight.numel() for module in modules if isinstance(module, FrozenBatchNorm2d))
        found.append(Stage(weights, normalised))
    assert tuple(found) == BACKBONES[name].stages


@pytest.mark.parametrize("name", list(BACKBONES))
def test_channels_and_strides_of_c3_to_c5_are_those_of_the_network(name: str) -> None:
    maps = body_of(name)(torch.zeros(1, 3, 64, 128, device="meta"))
    assert [value.shape[1:] for value in maps.values()] == [
        (channels, 64 // stride, 128 // stride)
        for channels, stride in zip(BACKBONES[name].channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_file_is_told_by_the_tables_numbers(name: str) -> None:
    assert infer_architecture(body_of(name).state_dict(), "backbone", "file").backbone == name


def test_weight_files_are_those_that_torchvision_names() -> None:
    assert {name: url for (project, name), url in URLS.items() if project == "torchvision"} == {
        "resnet50": ResNet50_Weights.IMAGENET1K_V1.url,
        "resnet101": ResNet101_Weights.IMAGENET1K_V1.url,
        "resnext101_32x8d": ResNeXt101_32X8D_Weights.IMAGENET1K_V1.url,
    }


def test_files_may_name_the_tables_backbones_and_no_other() -> None:
    schema = msgspec.json.schema(ModelSettings)["$defs"]["ModelSettings"]
    assert schema["properties"]["backbone"]["enum"] == sorted(BACKBONES)
    settings = msgspec.to_builtins(ModelSettings(**SLIM))
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'resnet51'"):
        msgspec.convert(settings | {"backbone": "resnet51"}, ModelSettings)


# A backbone of one's own: an entry of the table and a function.


class Plain(nn.Module):
    """A convolution of stride 2 and a norm for each stage."""

    def __init__(self, channels: tuple[int, ...], norm: NormLayer) -> None:
        super().__init__()
        for i, width in enumerate(channels):
            conv = nn.Conv2d(3 if i == 0 else channels[i - 1], width, 3, 2, 1, bias=False)
            if i == 0:
                self.conv1, self.bn1 = conv, norm(width)
            else:
                self.add_module(f"layer{i}", nn.Sequential(conv, norm(width)))


def plain_network(entry: BackboneEntry, settings: ModelSettings, norm: NormLayer) -> nn.Module:
    return Plain((4, 8, *entry.channels), norm)


PLAIN = BackboneEntry(
    builder=f"{__name__}:plain_network",
    blocks=(1, 1, 1, 1),
    channels=(12, 16, 20),
    stages=(Stage(108, 4), Stage(288, 8), Stage(864, 12), Stage(1_728, 16), Stage(2_880, 20)),
    mark="layer1.0.weight",
)


def test_an_entry_and_a_function_are_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "plain", PLAIN)
    model = build(SLIM | {"backbone": "plain", "frozen_stages": 2})

    losses = model([torch.rand(3, 64, 64)], [{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}])
    sum(losses.values()).backward()

    trained = {name.split(".")[0] for name, p in model.backbone.body.named_parameters() if p.grad is not None}
    assert trained == {"layer2", "layer3", "layer4"}
    size = network_size(model.settings, 6)
    assert size.stored == sum(value.numel() for value in model.state_dict().values())
    assert size.trained == sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert infer_architecture(model.state_dict(), "retinanet", "file").backbone == "plain"


def test_a_deeper_resnet_is_an_entry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = BackboneEntry(
        builder=BACKBONES["resnet50"].builder,
        blocks=(3, 8, 36, 3),
        channels=(512, 1024, 2048),
        stages=BACKBONES["resnet50"].stages,
    )
    monkeypatch.setitem(BACKBONES, "resnet152", deeper)
    assert infer_architecture(body_of("resnet152").state_dict(), "backbone", "file").backbone == "resnet152"
