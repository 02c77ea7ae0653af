"""How large a network's files are, from its settings alone, without torch. Tests hold it to the networks as built."""

from __future__ import annotations

from dataclasses import dataclass

from detector.runs.backbones import BACKBONES
from detector.runs.job import ModelSettings

FLOAT32 = 4  # bytes; weights and momentum are stored like this whatever the precision of the training


@dataclass(frozen=True)
class NetworkSize:
    """``stored``: numbers in a state dict; ``trained``: those with a gradient, which have a momentum too."""

    stored: int
    trained: int

    @property
    def final_bytes(self) -> int:
        """Of the final weights."""
        return FLOAT32 * self.stored

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint to resume from: weights and momentum."""
        return FLOAT32 * (self.stored + self.trained)


def network_size(settings: ModelSettings, num_classes: int) -> NetworkSize:
    """The size of the RetinaNet of ``settings``; the files are up to a few percent larger (names, zip headers)."""
    frozen_norm = settings.norm == "frozen_batch"
    per_channel = 4 if frozen_norm else 2  # weight, bias, mean, variance, all constants; or a trained weight and bias
    stages = BACKBONES[settings.backbone].stages
    stored = sum(convs + per_channel * channels for convs, channels in stages)
    trained = sum(
        convs + (0 if frozen_norm else per_channel * channels) for convs, channels in stages[settings.frozen_stages :]
    )
    rest = _pyramid(settings) + _head(settings, num_classes)
    return NetworkSize(stored + rest, trained + rest)


def _pyramid(settings: ModelSettings) -> int:
    """Lateral and output convolutions of P3 .. P5, then P6 and P7."""
    width, last = settings.fpn_channels, settings.fpn_levels[1]
    body = BACKBONES[settings.backbone].channels
    total = sum(_conv(channels, width, 1) + _conv(width, width, 3) for channels in body)
    if last >= 6:
        total += _conv(body[-1] if settings.p6_from == "c5" else width, width, 3)
    return total + (_conv(width, width, 3) if last == 7 else 0)


def _head(settings: ModelSettings, num_classes: int) -> int:
    """Two towers and their predictors. A tower's convolution has a bias, or a group norm in its place."""
    width, anchors = settings.fpn_channels, settings.scales_per_octave * len(settings.aspect_ratios)
    norm = width if settings.head_norm == "group" else 0
    tower = settings.head_convs * (_conv(width, width, 3) + norm)
    return 2 * tower + _conv(width, anchors * num_classes, 3) + _conv(width, anchors * 4, 3)


def _conv(in_channels: int, out_channels: int, side: int) -> int:
    return out_channels * (in_channels * side * side + 1)
