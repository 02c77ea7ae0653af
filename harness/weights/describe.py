"""``harness weights show``: what a weights file holds, and which shipped recipes have its network."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe

if TYPE_CHECKING:
    from detector.weights.read import Weights


def fitting_recipes(registry: Registry, weights: Weights) -> list[str]:
    """Shipped recipes with the file's network; those whose loss starts near its classifier's bias come first.

    A file does not say with which loss it was trained. But the mean bias of its class outputs stays near its value
    before the training, log(p / (1 - p)) of the recipe's prior probability p.
    """
    from detector.weights.load import CLASS_OUTPUTS, backbone_differences, differences

    fitting = []
    for name in sorted(registry.recipes):
        job, _ = jobs(recipe(registry, name), seed=0)
        if weights.kind == "backbone":
            fits = job.model.weights == weights.format and not backbone_differences(weights, job.model)
            distance = 0.0
        else:
            fits = not differences(weights, job)
            prior = job.model.prior_probability
            bias = float(weights.tensors[CLASS_OUTPUTS[1]].mean())
            distance = abs(bias - math.log(prior / (1 - prior)))
        if fits:
            fitting.append((distance, name))
    return [name for _, name in sorted(fitting)]


def description(weights: Weights, registry: Registry) -> dict[str, Any]:
    """Everything that ``harness weights show`` says, as plain data."""
    from msgspec import to_builtins

    found, top = weights.architecture, weights.architecture.pyramid
    recipes = fitting_recipes(registry, weights)
    return {
        "file": str(weights.file),
        "sha256": weights.sha256,
        "format": weights.format,
        "kind": weights.kind,
        "backbone": found.backbone,
        "norm": found.norm,
        "detector": None if top is None else vars(top),
        "network": None if weights.network is None else to_builtins(weights.network),
        "category_ids": weights.class_ids,
        "values": sum(value.numel() for value in weights.tensors.values()),
        "unused": weights.unused,
        "recipes": recipes,
        "command": _command(weights, recipes),
    }


def _command(weights: Weights, recipes: list[str]) -> str | None:
    if not recipes:
        return None
    if weights.kind == "backbone":
        return f"harness run TARGET --weights {weights.file}"
    return f"harness eval --recipe {recipes[0]} --weights {weights.file} --data COCO"


def description_as_text(weights: Weights, registry: Registry) -> str:
    """The description for a person."""
    from detector.weights.load import describe_pixels

    data, top, network = description(weights, registry), weights.architecture.pyramid, weights.network
    lines = [
        ("file", data["file"]),
        ("sha256", data["sha256"]),
        ("format", f"{weights.format}, {weights.kind}"),
        ("backbone", f"{data['backbone']}, norm {data['norm']}"),
    ]
    if network is not None:
        where = "first 1x1" if network.body.stride_in_1x1 else "3x3"
        lines += [
            ("strides", f"in the {where} convolution of a block"),
            ("pixels", describe_pixels(network.body.pixels)),
            ("norm epsilon", f"{network.body.norm_epsilon:g}"),
        ]
    else:
        lines.append(("network", "not given by the file; the recipe's is used"))
    if top is not None:
        source = f", P6 from {top.p6_from.upper()}" if top.p6_from else ""
        lines += [
            ("pyramid", f"P3 .. P{top.fpn_levels[1]} of {top.fpn_channels} channels{source}"),
            ("heads", f"{top.head_convs} convolutions each, norm {top.head_norm}"),
            ("classes", f"{top.num_classes}{_numbered(weights)}"),
            ("anchors", f"{top.num_anchors} per location"),
        ]
    if network is not None and network.boxes is not None:
        boxes = network.boxes
        rounded = "rounded" if boxes.round_anchors else "not rounded"
        lines += [
            ("boxes", f"{boxes.box_convention}, anchors {rounded}, {boxes.anchor_spacing} spacing"),
            ("box weights", " ".join(f"{value:g}" for value in boxes.box_weights)),
        ]
    lines.append(("values", f"{data['values']:,} in {len(weights.tensors)} tensors"))
    for why, count in Counter(weights.unused.values()).items():
        first = next(name for name, reason in weights.unused.items() if reason == why)
        lines.append(("unused", f"{why}: {first}{f' and {count - 1} more' if count > 1 else ''}"))
    lines.append(("recipes", ", ".join(data["recipes"]) or "no shipped recipe has this network"))
    if data["command"]:
        lines.append(("train" if weights.kind == "backbone" else "evaluate", data["command"]))
    return "\n".join(f"{name:12}  {text}" for name, text in lines)


def _numbered(weights: Weights) -> str:
    if weights.class_ids is None:
        return ", in the order of the data's category ids"
    return f", by category id {min(weights.class_ids)} .. {max(weights.class_ids)}"
