"""Weights into a file that another project, or this one, reads.

A conversion is exact in the tensors. It is refused where the other project would run them in another network, and
comes with a note where that network places its boxes a little differently.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import torch
from torch import Tensor

from detector.errors import WeightsError, did_you_mean
from detector.runs.backbones import BACKBONES
from detector.storage.files import write_atomic
from detector.storage.outputs import claim_file
from detector.weights import names
from detector.weights.anchor_order import to_scale_major
from detector.weights.load import CLASS_OUTPUTS, describe_pixels, recoded, same_pixels
from detector.weights.network import Format, Network, stock_network
from detector.weights.pickles import write_pickle
from detector.weights.read import Weights

TORCHVISION_CLASSES: Final = 91
MOST_OUTPUTS: Final = 10_000
# sigmoid(-100) is 0 in float32: an output that torchvision has and the weights do not never fires.
_NEVER: Final = -100.0
COCO_IDS: Final = tuple(
    category for category in range(1, 91) if category not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
)


@dataclass(frozen=True)
class Conversion:
    """A file's content in another format; notes: in what the detectors still differ."""

    content: bytes
    notes: tuple[str, ...]


def write_weights(weights: Weights, to: Format, out: Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Write ``weights`` in the format ``to``, whole or not at all; returns notes on what differs.

    Raises UsageError where ``out`` exists (unless ``overwrite``), and WeightsError as ``convert``.
    """
    claim_file(out, force=overwrite)
    conversion = convert(weights, to)
    write_atomic(out, conversion.content)
    return conversion.notes


def convert(weights: Weights, to: Format) -> Conversion:
    """``weights`` in the format ``to``.

    Raises WeightsError for an unknown format, and where its network is another than the weights'.
    """
    if to not in get_args(Format):
        near = did_you_mean(to, get_args(Format))
        raise WeightsError(f"Unknown format {to!r}. Known: {', '.join(get_args(Format))}.{near}")
    if weights.network is None:
        raise WeightsError(
            f"{weights.file} does not say which network its weights are of. Evaluate it with: harness eval --recipe "
            f"NAME --weights {weights.file}"
        )
    if weights.kind == "backbone" and to not in ("caffe2", "torchvision"):
        raise WeightsError(f"{weights.file} is a backbone; {to} holds whole detectors. Choose {weights.format}.")
    if to == "harness":
        return Conversion(_harness(weights), ())
    target = stock_network(to, weights.architecture.backbone)
    reasons, notes = _compare(weights, target, to)
    if reasons:
        raise WeightsError(
            f"{weights.file} ({weights.format}) cannot become {to}, whose network is another: {'; '.join(reasons)}."
        )
    return Conversion(_WRITERS[to](weights, target), tuple(notes))


def _compare(weights: Weights, target: Network, to: Format) -> tuple[list[str], list[str]]:
    """What forbids the conversion, and what makes the detectors differ a little."""
    assert weights.network is not None
    found, body = weights.architecture, weights.network.body
    reasons, notes = [], []
    if BACKBONES[found.backbone].mark is not None or found.norm != "frozen_batch":
        reasons.append(f"it has no {found.backbone} backbone with {found.norm} norm")
    if body.stride_in_1x1 != target.body.stride_in_1x1:
        where = {True: "first 1x1", False: "3x3"}
        reasons.append(
            f"blocks stride in their {where[body.stride_in_1x1]} convolution, there in the "
            f"{where[target.body.stride_in_1x1]} one"
        )
    ours, theirs = describe_pixels(body.pixels), describe_pixels(target.body.pixels)
    if not same_pixels(body, target.body.pixels, mean_matters=False):
        reasons.append(f"pixels are {ours}, there {theirs}")
    elif not same_pixels(body, target.body.pixels, mean_matters=True):
        notes.append(f"pixels: {to} takes {theirs} by default, the weights are of {ours}; set it there")
    if target.boxes is not None:
        above, changes = _compare_detectors(weights, target, to)
        reasons += above
        notes += changes
    elif weights.kind == "retinanet":
        notes.append("only the backbone is written; pyramid and head are left out")
    return reasons, notes


def _compare_detectors(weights: Weights, target: Network, to: Format) -> tuple[list[str], list[str]]:
    assert weights.network is not None
    boxes, top, theirs = weights.network.boxes, weights.architecture.pyramid, target.boxes
    assert boxes is not None
    assert top is not None
    assert theirs is not None
    reasons = []
    p6_from = {"maskrcnn-benchmark": top.p6_from, "detectron2": "c5", "torchvision-retinanet": "p5"}[to]
    if top.fpn_levels != (3, 7) or top.p6_from not in (None, p6_from):
        last = f"P{top.fpn_levels[1]}, P6 from {str(top.p6_from).upper()}"
        reasons.append(f"the pyramid is P3 .. {last}, there P3 .. P7, P6 from {str(p6_from).upper()}")
    if top.head_norm != "none":
        reasons.append("the head has norms, there it has none")
    for name in ("anchor_scale", "scales_per_octave", "aspect_ratios"):
        if getattr(boxes, name) != getattr(theirs, name):
            reasons.append(f"{name} is {getattr(boxes, name)}, there {getattr(theirs, name)}")
    notes = [
        f"{name} is {getattr(boxes, name)} in the weights, {getattr(theirs, name)} in {to}: its boxes, and with "
        "them AP, differ slightly"
        for name in ("box_convention", "round_anchors", "anchor_spacing")
        if getattr(boxes, name) != getattr(theirs, name)
    ]
    return reasons, notes


def _harness(weights: Weights) -> bytes:
    ids = weights.class_ids
    if ids is None and weights.architecture.pyramid is not None:
        ids = COCO_IDS if weights.architecture.pyramid.num_classes == len(COCO_IDS) else None
    return _torch_bytes(
        {
            "model": weights.tensors,
            "category_ids": None if ids is None else list(ids),
            **({} if weights.class_names is None else {"category_names": list(weights.class_names)}),
            "network": msgspec.to_builtins(weights.network),
        }
    )


def _maskrcnn_benchmark(weights: Weights, target: Network) -> bytes:
    tensors = _recoded_for(weights, target)
    return _torch_bytes({"model": OrderedDict(_renamed(tensors, names.MASKRCNN_BENCHMARK))})


def _detectron2(weights: Weights, target: Network) -> bytes:
    top = weights.architecture.pyramid
    assert top is not None
    tensors = _recoded_for(weights, target)
    for name, value in tensors.items():
        channels = {"cls_logits": top.num_classes, "bbox_reg": 4}.get(name.split(".")[-2])
        if channels is not None:
            tensors[name] = to_scale_major(value, channels, top.num_anchors, str(weights.file))
    arrays = {name: value.numpy() for name, value in _renamed(tensors, names.DETECTRON2)}
    # Without an author Detectron2 takes a pickle for one of Caffe2's.
    return write_pickle({"model": arrays, "__author__": "drloss-harness"})


def _torchvision_retinanet(weights: Weights, target: Network) -> bytes:
    """torchvision's outputs are numbered by category id; those that the weights have no class for never fire."""
    tensors = _recoded_for(weights, target)
    top = weights.architecture.pyramid
    assert top is not None
    ids = weights.class_ids or (COCO_IDS if top.num_classes == len(COCO_IDS) else tuple(range(top.num_classes)))
    if not all(0 <= category < MOST_OUTPUTS for category in ids):
        raise WeightsError(
            f"{weights.file} cannot become torchvision-retinanet, whose outputs are numbered by category id: an id is "
            f"negative or above {MOST_OUTPUTS - 1:,}."
        )
    outputs = max(*ids, TORCHVISION_CLASSES - 1) + 1 if weights.format != "torchvision-retinanet" else top.num_classes
    for name, fill in zip(CLASS_OUTPUTS, (0.0, _NEVER), strict=True):
        given = tensors[name].reshape(top.num_anchors, top.num_classes, *tensors[name].shape[1:])
        spread = given.new_full((top.num_anchors, outputs, *given.shape[2:]), fill)
        spread[:, list(ids)] = given
        tensors[name] = spread.flatten(0, 1)
    return _torch_bytes(OrderedDict(tensors))


def _torchvision(weights: Weights, target: Network) -> bytes:
    return _torch_bytes(OrderedDict(_body(_recoded_for(weights, target))))


def _caffe2(weights: Weights, target: Network) -> bytes:
    """Mean and variance are folded into scale and bias: scale / sqrt(variance), bias - mean * scale."""
    body = _body(_recoded_for(weights, target))
    arrays = {}
    for name, value in body.items():
        module, _, tensor = name.rpartition(".")
        if tensor.startswith("running_"):
            continue
        if f"{module}.running_var" in body:
            scale = body[f"{module}.weight"].double() * body[f"{module}.running_var"].double().rsqrt()
            folded = scale if tensor == "weight" else value.double() - body[f"{module}.running_mean"].double() * scale
            value = folded.float()
        arrays[names.to_caffe2(name)] = value.numpy()
    return write_pickle(arrays)


_WRITERS: Final[dict[Format, Callable[[Weights, Network], bytes]]] = {
    "maskrcnn-benchmark": _maskrcnn_benchmark,
    "detectron2": _detectron2,
    "torchvision-retinanet": _torchvision_retinanet,
    "torchvision": _torchvision,
    "caffe2": _caffe2,
}


def _recoded_for(weights: Weights, target: Network) -> dict[str, Tensor]:
    box_weights = target.boxes.box_weights if target.boxes is not None else None
    return recoded(weights, norm_epsilon=target.body.norm_epsilon, box_weights=box_weights)


def _renamed(tensors: dict[str, Tensor], modules: dict[str, str]) -> list[tuple[str, Tensor]]:
    found = [(names.renamed(name, modules), value) for name, value in tensors.items()]
    assert all(name is not None for name, _ in found), "a network that was compared has these names only"
    return [(str(name), value) for name, value in found]


def _body(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The body's tensors, of a backbone's or a detector's."""
    if not any(name.startswith(names.BODY) for name in tensors):
        return tensors
    return {name.removeprefix(names.BODY): v for name, v in tensors.items() if name.startswith(names.BODY)}


def _torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
