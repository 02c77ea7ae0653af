"""Residual bodies and the feature pyramid on top of them (FPN; RetinaNet, section 4).

C_l is the body's feature map at stride 2^l, P_l the pyramid's. Parameters are named as torchvision's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Any, Final, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from detector.model.convolve import FrozenNorm, can_fuse, convolve, folded_weight, normed
from detector.runs.backbones import BACKBONES, BackboneEntry
from detector.runs.job import ModelSettings

NormLayer = Callable[[int], nn.Module]

_C3_TO_C5: Final = {"layer2": "p3", "layer3": "p4", "layer4": "p5"}
# What `frozen_stages` counts: a residual network's modules, from the image on.
_STAGES: Final = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def build_backbone(settings: ModelSettings) -> Backbone:
    """The body and pyramid of ``settings``, randomly initialised; the first ``frozen_stages`` are not trained."""
    norm: NormLayer = group_norm
    if settings.norm == "frozen_batch":
        norm = partial(FrozenNorm, eps=settings.norm_epsilon)
    entry = BACKBONES[settings.backbone]
    network: nn.Module = resolve_name(entry.builder)(entry, settings, norm)
    backbone = Backbone(network, entry.channels, settings)
    for stage in _STAGES[: settings.frozen_stages]:
        for name in stage:
            backbone.body[name].requires_grad_(False)
    return backbone


def bottleneck_network(entry: BackboneEntry, settings: ModelSettings, norm: NormLayer) -> nn.Module:
    """A ResNet or ResNeXt of bottleneck blocks, as torchvision builds it."""
    network = ResNet(
        FoldedBottleneck,
        list(entry.blocks),
        groups=entry.groups,
        width_per_group=entry.width_per_group,
        norm_layer=norm,
    )
    if settings.stride_in_1x1:
        _stride_in_1x1(network)
    return network


def slim_network(entry: BackboneEntry, settings: ModelSettings, norm: NormLayer) -> nn.Module:
    """The body of the profiles that train from scratch; it has no 1x1 convolution that could stride."""
    return SlimResNet((24, *entry.channels), norm)


def _stride_in_1x1(network: nn.Module) -> None:
    """Move each stage's stride from its first block's 3x3 convolution to the 1x1 before (ResNet as MSRA trained it)."""
    for name in ("layer2", "layer3", "layer4"):
        block = network.get_submodule(f"{name}.0")
        first, second = block.get_submodule("conv1"), block.get_submodule("conv2")
        first.stride, second.stride = second.stride, first.stride


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of 8 channels per group, but at most 32 groups; fewer where they do not divide ``channels``."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 8))), channels)


class FoldedBottleneck(Bottleneck):
    """A residual block (ResNet, Fig. 5 right) that folds frozen norms into its convolutions on a GPU."""

    downsample: Any  # a convolution and its norm, or None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 4 * width, H / stride, W / stride]; on a CPU torchvision's values to the last bit."""
        if can_fuse(x, self.bn1):
            return self._fused(x)
        y = F.relu(normed(self.conv1, self.bn1, x), inplace=True)
        y = F.relu(normed(self.conv2, self.bn2, y), inplace=True)
        y = normed(self.conv3, self.bn3, y)
        y += x if self.downsample is None else normed(self.downsample[0], self.downsample[1], x)
        return F.relu(y, inplace=True)

    def _fused(self, x: Tensor) -> Tensor:
        y = convolve(self.conv1, x, norm=self.bn1, relu=True)
        y = convolve(self.conv2, y, norm=self.bn2, relu=True)
        if self.downsample is None:
            return convolve(self.conv3, y, norm=self.bn3, residual=x, relu=True)
        # What the shortcut's norm adds is added in the last pass: its own output needs none.
        conv = self.downsample[0]
        weight, shift = folded_weight(conv, self.downsample[1])
        shortcut = F.conv2d(x, weight, None, conv.stride, conv.padding)
        return convolve(self.conv3, y, norm=self.bn3, shift=shift, residual=shortcut, relu=True)


class Body(IntermediateLayerGetter):
    """C3 to C5 of a residual network, named as the pyramid's levels."""

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """[N, 3, H, W] -> {"p3": C3, "p4": C4, "p5": C5}."""
        if not can_fuse(images, self["bn1"]):
            return super().forward(images)  # type: ignore[no-any-return, no-untyped-call]
        conv: Any = self["conv1"]
        x = convolve(conv, images, norm=self["bn1"], relu=True)
        found = OrderedDict()
        for name, module in self.items():
            if name not in ("conv1", "bn1", "relu"):
                x = module(x)
            if name in _C3_TO_C5:
                found[_C3_TO_C5[name]] = x
        return found


class Pyramid(FeaturePyramidNetwork):
    """torchvision's pyramid (FPN, Fig. 3), which on a GPU adds the level above in the pass that adds the bias."""

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps of the body, finest first -> levels of the pyramid, and the extra ones."""
        names, maps = list(x), list(x.values())
        if not can_fuse(maps[0]):
            levels: dict[str, Tensor] = super().forward(x)
            return levels
        inner: Any = self.inner_blocks
        outer: Any = self.layer_blocks
        above: Tensor | None = None
        found: list[Tensor] = []
        for i in reversed(range(len(maps))):
            above = convolve(inner[i][0], maps[i], coarse=above)
            found.insert(0, convolve(outer[i][0], above))
        if self.extra_blocks is not None:
            found, names = self.extra_blocks(found, maps, names)
        return dict(zip(names, found, strict=True))


class Backbone(nn.Module):
    """Images [N, 3, H, W] -> pyramid levels [N, fpn_channels, H / 2^l, W / 2^l], from P3 on.

    strides: pixels between neighbours of each level. out_channels: ``fpn_channels``.
    """

    def __init__(self, network: nn.Module, channels: tuple[int, ...], settings: ModelSettings) -> None:
        """network: has conv1, bn1, .., layer1 .. layer4; channels: of its C3, C4, C5."""
        super().__init__()
        first, last = settings.fpn_levels
        self.strides = tuple(2**level for level in range(first, last + 1))
        self.out_channels = settings.fpn_channels
        self.body = Body(network, _C3_TO_C5)
        extra = ExtraLevels(last - 5, settings.p6_from, channels[-1], self.out_channels) if last > 5 else None
        self.fpn = Pyramid(list(channels), self.out_channels, extra)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The levels, finest first."""
        return list(self.fpn(self.body(images)).values())


class ExtraLevels(ExtraFPNBlock):
    """P6: a stride-2 convolution of C5 or P5; P7: one of relu(P6). Kaiming-uniform weights, zero bias.

    torchvision's LastLevelP6P7 guesses the source from the number of channels and always makes both levels.
    """

    def __init__(self, num_levels: int, source: Literal["c5", "p5"], c5_channels: int, out_channels: int) -> None:
        super().__init__()
        self.source = source
        self.p6 = nn.Conv2d(c5_channels if source == "c5" else out_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1) if num_levels == 2 else None
        for layer in self.children():
            nn.init.kaiming_uniform_(layer.weight, a=1)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        """Pyramid levels, body levels and their names -> pyramid levels and names, one or two longer."""
        origin = c[-1] if self.source == "c5" else p[-1]
        fused = can_fuse(origin)
        p6 = convolve(self.p6, origin) if fused else self.p6(origin)
        if self.p7 is None:
            return [*p, p6], [*names, "p6"]
        p7 = convolve(self.p7, F.relu(p6)) if fused else self.p7(F.relu(p6))
        return [*p, p6, p7], [*names, "p6", "p7"]


class SlimResNet(nn.Module):
    """A residual network small enough to train from scratch on one CPU core: 256k parameters, C5 of 96 channels.

    A 5x5 stem of stride 2, then one basic block (ResNet, Fig. 5 left) of stride 2 for each of C2 .. C5. No max pooling.
    """

    def __init__(self, channels: tuple[int, int, int, int], norm: NormLayer) -> None:
        """channels: of C2 .. C5."""
        super().__init__()
        widths = (16, *channels)
        self.conv1 = nn.Conv2d(3, widths[0], 5, 2, 2, bias=False)
        self.bn1 = norm(widths[0])
        self.relu = nn.ReLU(inplace=True)
        for i in range(4):
            self.add_module(f"layer{i + 1}", BasicBlock(widths[i], widths[i + 1], norm))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 convolution, of stride 2 both: [N, C, H, W] -> [N, channels, H / 2, W / 2]."""

    def __init__(self, in_channels: int, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            Conv2dNormActivation(in_channels, channels, 3, 2, norm_layer=norm),
            Conv2dNormActivation(channels, channels, 3, norm_layer=norm, activation_layer=None),
        )
        self.shortcut = Conv2dNormActivation(in_channels, channels, 1, 2, norm_layer=norm, activation_layer=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)
