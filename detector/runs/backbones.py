"""Every backbone: its name, how it is built, its sizes, its ImageNet weights. Free of torch.

To add one: an entry in ``BACKBONES``, and a builder where none of the present ones fits. Recipes and profiles may name
it then, plans know the size of its files, and ``harness weights`` tells its files. A test compares each entry's numbers
with the network as built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Stage(NamedTuple):
    """Numbers of one stage's parameters: weights of its convolutions, and channels that are normalised."""

    weights: int
    normalised: int


@dataclass(frozen=True)
class BackboneEntry:
    """A body that maps an image to C3, C4 and C5 (feature maps of stride 8, 16 and 32).

    builder: ``module:function``, imported when a model is built; called with this entry, the job's ``ModelSettings``
        and the norm layer (channels -> module). It returns a randomly initialised module whose children are, in this
        order, conv1, bn1, any without parameters, layer1 .. layer4; layer2 .. layer4 make C3 .. C5.
    blocks: residual blocks of layer1 .. layer4.
    channels: of C3, C4, C5.
    stages: the stem (conv1 and bn1), then layer1 .. layer4; what ``frozen_stages`` counts.
    groups, width_per_group: of the 3x3 convolution in layer1's blocks (ResNeXt, Table 1).
    mark: part of a tensor's name that only this body has. None for one whose files are told by ``blocks``, ``groups``
        and ``width_per_group``, under torchvision's names.
    stride_in_1x1: whether Caffe2, maskrcnn-benchmark and Detectron2 halve the resolution in a block's first 1x1
        convolution (MSRA's ResNets) rather than in its 3x3.
    imagenet: URL of the ImageNet weights by project, as ``ModelSettings.weights`` names it; none for a body that is
        trained from scratch only.
    """

    builder: str
    blocks: tuple[int, int, int, int]
    channels: tuple[int, int, int]
    stages: tuple[Stage, Stage, Stage, Stage, Stage]
    groups: int = 1
    width_per_group: int = 64
    mark: str | None = None
    stride_in_1x1: bool = False
    imagenet: Mapping[str, str] = field(default_factory=dict)


_CAFFE2: Final = "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained"
_TORCHVISION: Final = "https://download.pytorch.org/models"
_BOTTLENECKS: Final = "detector.model.backbone:bottleneck_network"

BACKBONES: Final[dict[str, BackboneEntry]] = {
    "resnet50": BackboneEntry(
        builder=_BOTTLENECKS,
        blocks=(3, 4, 6, 3),
        channels=(512, 1024, 2048),
        stages=(
            Stage(9_408, 64),
            Stage(212_992, 1_408),
            Stage(1_212_416, 3_584),
            Stage(7_077_888, 10_240),
            Stage(14_942_208, 11_264),
        ),
        stride_in_1x1=True,
        imagenet={
            "caffe2": f"{_CAFFE2}/MSRA/R-50.pkl",
            "torchvision": f"{_TORCHVISION}/resnet50-0676ba61.pth",
        },
    ),
    "resnet101": BackboneEntry(
        builder=_BOTTLENECKS,
        blocks=(3, 4, 23, 3),
        channels=(512, 1024, 2048),
        stages=(
            Stage(9_408, 64),
            Stage(212_992, 1_408),
            Stage(1_212_416, 3_584),
            Stage(26_017_792, 36_352),
            Stage(14_942_208, 11_264),
        ),
        stride_in_1x1=True,
        imagenet={
            "caffe2": f"{_CAFFE2}/MSRA/R-101.pkl",
            "torchvision": f"{_TORCHVISION}/resnet101-63fe2227.pth",
        },
    ),
    "resnext101_32x8d": BackboneEntry(
        builder=_BOTTLENECKS,
        blocks=(3, 4, 23, 3),
        channels=(512, 1024, 2048),
        stages=(
            Stage(9_408, 64),
            Stage(415_744, 2_560),
            Stage(2_392_064, 6_656),
            Stage(55_017_472, 71_680),
            Stage(28_704_768, 20_480),
        ),
        groups=32,
        width_per_group=8,
        imagenet={
            "caffe2": f"{_CAFFE2}/20171220/X-101-32x8d.pkl",
            "torchvision": f"{_TORCHVISION}/resnext101_32x8d-8ba56ff5.pth",
        },
    ),
    "slim": BackboneEntry(
        builder="detector.model.backbone:slim_network",
        blocks=(1, 1, 1, 1),
        channels=(48, 64, 96),
        stages=(Stage(1_200, 16), Stage(9_024, 72), Stage(32_256, 144), Stage(67_584, 192), Stage(144_384, 288)),
        mark=".residual.",
    ),
}
