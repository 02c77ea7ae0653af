"""What weights mean beside their numbers: which pixels they want, where strides are, how boxes are coded.

``Architecture`` can be read off the tensors; ``Network`` cannot: it is implied by the project that wrote the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import torch
from msgspec import Meta, Struct
from torch import Tensor

from detector.errors import WeightsError
from detector.model.backbone import build_backbone
from detector.model.head import RetinaNetHead
from detector.runs.backbones import BACKBONES
from detector.runs.job import (
    UNIT_RGB,
    Backbone,
    BoxConvention,
    Count,
    ModelSettings,
    PixelSettings,
    PositiveFloat,
    TrainJob,
)
from detector.weights.names import BODY

Format = Literal["caffe2", "torchvision", "torchvision-retinanet", "maskrcnn-benchmark", "detectron2", "harness"]
Kind = Literal["backbone", "retinanet"]
BoxWeights = tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat]

CAFFE2_PIXELS: Final = PixelSettings(order="bgr", range=255, mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0))
DETECTRON2_PIXELS: Final = PixelSettings(order="bgr", range=255, mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))


class Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of the backbone; fields as in ``ModelSettings``."""

    pixels: PixelSettings
    stride_in_1x1: bool
    norm_epsilon: Annotated[float, Meta(ge=0)]


class Boxes(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of the detector's boxes; fields as in ``TrainJob``, ``ModelSettings`` and ``RegressionSettings``."""

    box_convention: BoxConvention
    anchor_scale: PositiveFloat = 4.0
    scales_per_octave: Count = 3
    aspect_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    round_anchors: bool
    anchor_spacing: Literal["nominal", "fitted"] = "nominal"
    box_weights: BoxWeights


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """boxes: None for a backbone."""

    body: Body
    boxes: Boxes | None


def network_of(job: TrainJob) -> Network:
    """What a training's weights mean; goes into our own files."""
    model = job.model
    return Network(
        Body(pixels=model.pixels, stride_in_1x1=model.stride_in_1x1, norm_epsilon=model.norm_epsilon),
        Boxes(
            box_convention=job.box_convention,
            anchor_scale=model.anchor_scale,
            scales_per_octave=model.scales_per_octave,
            aspect_ratios=model.aspect_ratios,
            round_anchors=model.round_anchors,
            anchor_spacing=model.anchor_spacing,
            box_weights=job.regression.box_weights,
        ),
    )


def stock_network(project: Format, backbone: Backbone) -> Network:
    """The network as a project's own configurations build it. project: any but ``harness``, which has no one network.

    MSRA's ResNets halve the resolution in a block's first 1x1 convolution, FAIR's ResNeXt and torchvision in the 3x3.
    """
    caffe2 = Body(pixels=CAFFE2_PIXELS, stride_in_1x1=BACKBONES[backbone].stride_in_1x1, norm_epsilon=0.0)
    torchvision = Body(pixels=UNIT_RGB, stride_in_1x1=False, norm_epsilon=1e-5)
    if project == "caffe2":
        return Network(caffe2, None)
    if project == "torchvision":
        return Network(torchvision, None)
    if project == "maskrcnn-benchmark":
        return Network(caffe2, Boxes(box_convention="legacy", round_anchors=True, box_weights=(10.0, 10.0, 5.0, 5.0)))
    ones = (1.0, 1.0, 1.0, 1.0)
    if project == "torchvision-retinanet":
        return Network(
            torchvision,
            Boxes(box_convention="modern", round_anchors=True, anchor_spacing="fitted", box_weights=ones),
        )
    assert project == "detectron2", project
    return Network(
        Body(pixels=DETECTRON2_PIXELS, stride_in_1x1=caffe2.stride_in_1x1, norm_epsilon=1e-5),
        Boxes(box_convention="modern", round_anchors=False, box_weights=ones),
    )


@dataclass(frozen=True)
class Pyramid:
    """What is above the body; p6_from: None where C5 and P5 have equally many channels, or without P6."""

    fpn_channels: int
    fpn_levels: tuple[Literal[3], int]
    p6_from: Literal["c5", "p5"] | None
    head_convs: int
    head_norm: Literal["none", "group"]
    num_anchors: int
    num_classes: int


@dataclass(frozen=True)
class Architecture:
    """What the tensors themselves say; pyramid: None for a backbone."""

    backbone: Backbone
    norm: Literal["frozen_batch", "group"]
    pyramid: Pyramid | None


def infer_architecture(tensors: Mapping[str, Tensor], kind: Kind, where: str) -> Architecture:
    """The architecture of tensors in our names; where: the file, for messages.

    Raises WeightsError for a network of another kind, and where a tensor that tells it is missing.
    """
    prefix = BODY if kind == "retinanet" else ""
    body = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    norm: Literal["frozen_batch", "group"] = "group"
    if any(name.endswith(".running_var") for name in body):
        norm = "frozen_batch"
    pyramid = _pyramid(tensors, where) if kind == "retinanet" else None
    return Architecture(_backbone(body, where), norm, pyramid)


def _backbone(body: Mapping[str, Tensor], where: str) -> Backbone:
    for backbone, entry in BACKBONES.items():
        if entry.mark is not None and any(entry.mark in name for name in body):
            return backbone
    found = {(int(m[1]), int(m[2])) for m in (re.match(r"layer([1-4])\.(\d+)\.", name) for name in body) if m}
    blocks = tuple(max((block + 1 for at, block in found if at == layer), default=0) for layer in range(1, 5))
    width = tuple(_filters(body, "layer1.0.conv2.weight", where).shape[:2])
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], Backbone] = {
        (entry.blocks, (entry.groups * entry.width_per_group, entry.width_per_group)): backbone
        for backbone, entry in BACKBONES.items()
        if entry.mark is None
    }
    if (blocks, width) not in known:
        raise WeightsError(
            f"{where} holds a network of {blocks} blocks a layer, whose first 3x3 convolution has {width[0]} outputs "
            f"and {width[1]} inputs a group: none of {', '.join(known.values())}."
        )
    return known[blocks, width]


def _pyramid(tensors: Mapping[str, Tensor], where: str) -> Pyramid:
    channels = _filters(tensors, "backbone.fpn.inner_blocks.0.0.weight", where).shape[0]
    c5 = _filters(tensors, "backbone.fpn.inner_blocks.2.0.weight", where).shape[1]
    extra = [f"backbone.fpn.extra_blocks.{level}.weight" in tensors for level in ("p6", "p7")]
    p6_from: Literal["c5", "p5"] | None = None
    if extra[0] and c5 != channels:
        inputs = _filters(tensors, "backbone.fpn.extra_blocks.p6.weight", where).shape[1]
        p6_from = "c5" if inputs == c5 else "p5"
    convs = {m[1] for m in (re.match(r"head\.classification_head\.conv\.(\d+)\.", name) for name in tensors) if m}
    num_anchors, uneven = divmod(_filters(tensors, "head.regression_head.bbox_reg.weight", where).shape[0], 4)
    outputs = _filters(tensors, "head.classification_head.cls_logits.weight", where).shape[0]
    if uneven or not num_anchors or outputs % num_anchors:
        raise WeightsError(f"{where}: {outputs} class outputs do not fit {num_anchors} anchors per location.")
    for what, count, most in (
        ("channels", channels, 2**14),
        ("class outputs", outputs, 2**20),
        ("layers", len(convs), 64),
    ):
        if count > most:
            raise WeightsError(f"{where}: a head of {count:,} {what}; at most {most:,} are read.")
    return Pyramid(
        fpn_channels=channels,
        fpn_levels=(3, 5 + sum(extra)),
        p6_from=p6_from,
        head_convs=len(convs),
        head_norm="group" if "head.classification_head.conv.0.1.weight" in tensors else "none",
        num_anchors=num_anchors,
        num_classes=outputs // num_anchors,
    )


def _filters(tensors: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    if name not in tensors or tensors[name].ndim != 4 or not tensors[name].numel():
        raise WeightsError(f"{where} lacks {name}, by which its network is told. Is it the whole file?")
    return tensors[name]


def expected_shapes(found: Architecture) -> dict[str, torch.Size]:
    """Name and shape of every tensor of such a network, in our names: a model of this kind on torch's meta device."""
    top = found.pyramid
    settings = ModelSettings(
        backbone=found.backbone,
        weights="none",
        norm=found.norm,
        frozen_stages=0,
        fpn_channels=top.fpn_channels if top else 1,
        fpn_levels=top.fpn_levels if top else (3, 5),
        p6_from=(top and top.p6_from) or "c5",
        head_convs=top.head_convs if top else 1,
        head_norm=top.head_norm if top else "none",
        anchor_scale=1.0,
        scales_per_octave=1,
        aspect_ratios=(1.0,),
        prior_probability=0.5,
    )
    with torch.device("meta"):
        backbone = build_backbone(settings)
        if top is None:
            return {name: value.shape for name, value in backbone.body.state_dict().items()}
        head = RetinaNetHead(
            top.fpn_channels, top.num_anchors, top.num_classes, num_convs=top.head_convs, norm=top.head_norm
        )
    shapes = {f"backbone.{name}": value.shape for name, value in backbone.state_dict().items()}
    return shapes | {f"head.{name}": value.shape for name, value in head.state_dict().items()}
