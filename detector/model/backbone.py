"""Residual bodies and the feature pyramid on top of them (FPN; RetinaNet, section 4).

C_l is the body's feature map at stride 2^l, P_l the pyramid's. Parameters are named as torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Any, Final, Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

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


class FrozenNorm(FrozenBatchNorm2d):
    """Frozen batch norm with torchvision's values. It overwrites its input, a convolution's fresh output."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm as ``scale * x + shift``: [C] and [C]."""
        scale: Tensor = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape in the norm's dtype; ``x`` is overwritten if it has that dtype."""
        scale, shift = (values[:, None, None] for values in self.scale_and_shift())
        return x.to(scale.dtype).mul_(scale).add_(shift)


class FoldedBottleneck(Bottleneck):
    """A residual block (ResNet, Fig. 5 right) that folds frozen norms into its convolutions on a GPU."""

    downsample: Any  # a convolution and its norm, or None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, 4 * width, H / stride, W / stride]; on a CPU torchvision's values to the last bit."""
        y = F.relu(_normed(self.conv1, self.bn1, x), inplace=True)
        y = F.relu(_normed(self.conv2, self.bn2, y), inplace=True)
        y = _normed(self.conv3, self.bn3, y)
        y += x if self.downsample is None else _normed(self.downsample[0], self.downsample[1], x)
        return F.relu(y, inplace=True)


def _normed(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``; on a GPU a frozen norm becomes part of the convolution's weight and bias."""
    # On a CPU folding saves hardly any time, and the values would no longer be torchvision's to the last bit.
    if x.device.type == "cpu" or not isinstance(norm, FrozenNorm):
        normed: Tensor = norm(conv(x))
        return normed
    return folded(conv, norm, x)


def folded(conv: nn.Conv2d, norm: FrozenNorm, x: Tensor) -> Tensor:
    """``norm(conv(x))`` in one convolution, up to rounding, for a convolution without bias."""
    scale, shift = norm.scale_and_shift()
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


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
        self.body = IntermediateLayerGetter(network, _C3_TO_C5)
        extra = ExtraLevels(last - 5, settings.p6_from, channels[-1], self.out_channels) if last > 5 else None
        self.fpn = FeaturePyramidNetwork(list(channels), self.out_channels, extra)

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
        p6 = self.p6(c[-1] if self.source == "c5" else p[-1])
        if self.p7 is None:
            return [*p, p6], [*names, "p6"]
        return [*p, p6, self.p7(F.relu(p6))], [*names, "p6", "p7"]


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
