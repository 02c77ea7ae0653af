"""Loads weights into a model: only where the file's network is the model's, and then whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detector.errors import WeightsError
from detector.model.criterion import without_loss_state
from detector.model.retinanet import RetinaNet
from detector.runs.job import ModelSettings, PixelSettings, TrainJob
from detector.weights.network import Body, BoxWeights, network_of
from detector.weights.read import Weights, check_tensors

logger = logging.getLogger(__name__)

CLASS_OUTPUTS = ("head.classification_head.cls_logits.weight", "head.classification_head.cls_logits.bias")
BOX_OUTPUTS = ("head.regression_head.bbox_reg.weight", "head.regression_head.bbox_reg.bias")


@dataclass(frozen=True)
class Difference:
    """One setting in which the file's network is not the recipe's."""

    setting: str
    file: str
    recipe: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.file} in the file, {self.recipe} in the recipe"


def check_pretrained(weights: Weights, job: TrainJob) -> None:
    """Raise WeightsError unless a training can start from ``weights``, a backbone's or a detector's."""
    if weights.kind == "backbone":
        _check_backbone(weights, job.model)
    else:
        _check_detector(weights, job)


def load_pretrained(model: RetinaNet, weights: Weights, job: TrainJob, category_ids: Sequence[int] | None) -> None:
    """A backbone into the model's body, or a whole detector into the model. Raises as the two functions below."""
    if weights.kind == "backbone":
        load_backbone(model.backbone.body, weights, job.model)
    else:
        load_detector(model, weights, job, category_ids=category_ids)
    logger.info("weights %s: %s %s, sha256 %s", weights.file, weights.format, weights.kind, weights.sha256)


def load_detector(
    model: RetinaNet, weights: Weights, job: TrainJob, *, category_ids: Sequence[int] | None = None
) -> None:
    """Load a detector's weights into ``model``, which was built from ``job``.

    Box outputs are scaled to the job's box weights, and classes are chosen by ``category_ids``, the data's in ascending
    order (None: the file's classes are the model's). Raises WeightsError, and leaves the model as it was, for a
    backbone, another network, other classes, or tensors that do not fit.
    """
    _check_detector(weights, job)
    tensors = recoded(weights, norm_epsilon=job.model.norm_epsilon, box_weights=job.regression.box_weights)
    tensors |= _chosen_classes(tensors, weights, model.num_classes, category_ids)
    wanted = {name: value.shape for name, value in without_loss_state(model.state_dict()).items()}
    check_tensors(tensors, wanted, str(weights.file))
    model.load_for_detection(tensors)


def load_backbone(body: nn.Module, weights: Weights, settings: ModelSettings) -> None:
    """Load a backbone's weights into ``body`` (``Backbone.body``), which was built from ``settings``.

    Raises WeightsError, and leaves the body as it was, for a whole detector, another network, or tensors that do not
    fit.
    """
    _check_backbone(weights, settings)
    tensors = recoded(weights, norm_epsilon=settings.norm_epsilon, box_weights=None)
    check_tensors(tensors, {name: value.shape for name, value in body.state_dict().items()}, str(weights.file))
    body.load_state_dict(tensors)


def _check_detector(weights: Weights, job: TrainJob) -> None:
    if weights.kind != "retinanet":
        raise WeightsError(
            f"{weights.file} is a backbone ({weights.format}), without a pyramid and a head. A whole detector is "
            "needed; to train from a backbone: harness run TARGET --weights FILE."
        )
    found = differences(weights, job)
    if found:
        raise WeightsError(
            f"{weights.file} ({weights.format}) is another network than the recipe's: "
            f"{'; '.join(map(str, found))}. To see what it is: harness weights show {weights.file}"
        )


def _check_backbone(weights: Weights, settings: ModelSettings) -> None:
    if weights.kind != "backbone":
        raise WeightsError(
            f"{weights.file} is a whole detector ({weights.format}), not a backbone. To train from it, name it by its "
            f"content: --set model.weights=sha256:{weights.sha256}"
        )
    found = backbone_differences(weights, settings)
    if found:
        raise WeightsError(
            f"{weights.file} ({weights.format}) is another network than the recipe's: {'; '.join(map(str, found))}."
        )


def differences(weights: Weights, job: TrainJob) -> list[Difference]:
    """Where a detector's network, as far as the file tells it, differs from the job's. Box weights may differ."""
    top, model = weights.architecture.pyramid, job.model
    if top is None:
        return [Difference("kind", weights.kind, "retinanet")]
    pairs: list[tuple[str, Any, Any]] = [
        ("model.fpn_channels", top.fpn_channels, model.fpn_channels),
        ("model.fpn_levels", top.fpn_levels, model.fpn_levels),
        ("model.p6_from", top.p6_from or model.p6_from, model.p6_from),
        ("model.head_convs", top.head_convs, model.head_convs),
        ("model.head_norm", top.head_norm, model.head_norm),
        ("anchors per location", top.num_anchors, model.scales_per_octave * len(model.aspect_ratios)),
    ]
    if weights.network is not None and weights.network.boxes is not None:
        theirs, ours = weights.network.boxes, network_of(job).boxes
        pairs += [
            (name if name == "box_convention" else f"model.{name}", getattr(theirs, name), getattr(ours, name))
            for name in theirs.__struct_fields__
            if name != "box_weights"
        ]
    found = [Difference(name, str(file), str(recipe)) for name, file, recipe in pairs if file != recipe]
    return backbone_differences(weights, model, mean_matters=True) + found


def backbone_differences(weights: Weights, model: ModelSettings, *, mean_matters: bool = False) -> list[Difference]:
    """Where the body of the file's network, as far as the file tells it, differs from the recipe's.

    mean_matters: False for ImageNet's backbones: each project has its own mean, less than one level of 255 off.
    """
    found, network = weights.architecture, weights.network
    pairs: list[tuple[str, Any, Any]] = [
        ("model.backbone", found.backbone, model.backbone),
        ("model.norm", found.norm, model.norm),
    ]
    if network is not None:
        pairs.append(("model.stride_in_1x1", network.body.stride_in_1x1, model.stride_in_1x1))
    listed = [Difference(name, str(file), str(recipe)) for name, file, recipe in pairs if file != recipe]
    if network is not None and not same_pixels(network.body, model.pixels, mean_matters=mean_matters):
        listed.append(Difference("model.pixels", describe_pixels(network.body.pixels), describe_pixels(model.pixels)))
    return listed


def same_pixels(body: Body, pixels: PixelSettings, *, mean_matters: bool) -> bool:
    """Whether both see an image alike; 0..255 with mean 123.675 is 0..1 with 0.485."""
    first, second = body.pixels, pixels
    if first.order != second.order:
        return False

    def close(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        pairs = zip(one, other, strict=True)
        return all(abs(a / first.range - b / second.range) <= 1e-4 * b / second.range for a, b in pairs)

    return close(first.std, second.std) and (not mean_matters or close(first.mean, second.mean))


def describe_pixels(pixels: PixelSettings) -> str:
    """``bgr 0..255, mean 103.53 116.28 123.675, std 1 1 1``."""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (pixels.mean, pixels.std))
    return f"{pixels.order} 0..{pixels.range}, mean {mean}, std {std}"


def recoded(weights: Weights, *, norm_epsilon: float, box_weights: BoxWeights | None) -> dict[str, Tensor]:
    """The tensors for frozen norms with ``norm_epsilon`` and boxes coded with ``box_weights`` (None: as they are).

    A frozen norm only ever sees variance plus epsilon, so that moving the difference into the variance changes nothing.
    A delta is divided by its box weight when it is decoded, so scaling the predictor by the ratio changes nothing.
    """
    tensors = dict(weights.tensors)
    if weights.network is None:
        return tensors
    epsilon = weights.network.body.norm_epsilon
    if epsilon != norm_epsilon and weights.architecture.norm == "frozen_batch":
        for name, value in tensors.items():
            if name.endswith(".running_var"):
                tensors[name] = (value.double() + (epsilon - norm_epsilon)).float()
    boxes = weights.network.boxes
    if boxes is not None and box_weights is not None and boxes.box_weights != box_weights:
        ratio = torch.tensor(box_weights, dtype=torch.float64) / torch.tensor(boxes.box_weights, dtype=torch.float64)
        for name in BOX_OUTPUTS:
            value = tensors[name]
            factors = ratio.repeat(value.shape[0] // 4).reshape(-1, *[1] * (value.ndim - 1))
            tensors[name] = (value.double() * factors).float()
    return tensors


def _chosen_classes(
    tensors: dict[str, Tensor], weights: Weights, num_classes: int, category_ids: Sequence[int] | None
) -> dict[str, Tensor]:
    """The class outputs of ``category_ids`` in their order."""
    top = weights.architecture.pyramid
    assert top is not None
    if weights.class_ids is None or category_ids is None:
        if top.num_classes != num_classes:
            raise WeightsError(
                f"{weights.file} has {top.num_classes} classes, the data {num_classes}. Give data with the "
                "categories that it was trained on."
            )
        return {}
    missing = [category for category in category_ids if category not in weights.class_ids]
    if missing:
        raise WeightsError(
            f"{weights.file} has no class for the category ids {', '.join(map(str, missing[:10]))} of the data; it has "
            f"{len(weights.class_ids)}. Give data with the categories that it was trained on."
        )
    rows = torch.tensor([weights.class_ids.index(category) for category in category_ids])
    return {name: select_classes(tensors[name], rows, top.num_anchors) for name in CLASS_OUTPUTS}


def check_class_names(weights: Weights, category_ids: Sequence[int], category_names: Sequence[str], where: str) -> None:
    """Raise WeightsError where the file's class of a category id has another name than the data's.

    Files of other projects, and of ours before names were written, are not compared. Case and outer spaces are no
    difference. where: the data, for the message.
    """
    if weights.class_ids is None or weights.class_names is None:
        return
    trained = dict(zip(weights.class_ids, weights.class_names, strict=True))
    pairs = [(key, trained.get(key, name), name) for key, name in zip(category_ids, category_names, strict=True)]
    renamed = [
        f"id {key} is {ours!r} in the weights, {name!r} in the data"
        for key, ours, name in pairs
        if ours.strip().casefold() != name.strip().casefold()
    ]
    if renamed:
        raise WeightsError(
            f"{weights.file} was trained on other categories than {where} has: {'; '.join(renamed[:3])}. Give "
            "data with the categories that it was trained on."
        )


def select_classes(tensor: Tensor, rows: Tensor, num_anchors: int) -> Tensor:
    """[A * K, ...] -> [A * len(rows), ...]: the class outputs at ``rows`` of each anchor."""
    by_anchor = tensor.reshape(num_anchors, -1, *tensor.shape[1:])
    return by_anchor.index_select(1, rows).flatten(0, 1).contiguous()
