"""A weights file of any known format, as tensors under our names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from detector.errors import WeightsError
from detector.model.criterion import LOSS_STATE
from detector.runs.job import UNIT_RGB, PixelSettings
from detector.weights import names
from detector.weights.anchor_order import to_ratio_major
from detector.weights.content import read_content
from detector.weights.network import (
    Architecture,
    Format,
    Kind,
    Network,
    expected_shapes,
    infer_architecture,
    stock_network,
)

SHOWN: Final = 3
MOST_PROBLEMS: Final = 20  # in one message
_LONGEST: Final = 200  # letters of one of them
# The released retinanet_resnet50_fpn was trained without an epsilon in its frozen norms, and torchvision takes it out
# again for that very file, which it names by this start of its sha256.
_WITHOUT_EPSILON: Final = "eeacb38b"
_ANCHORS: Final = "anchors: made anew for every image"
_COUNTER: Final = "counter of a trainable batch norm"
_CLASSIFIER: Final = "ImageNet classifier"


@dataclass(frozen=True, eq=False)
class Weights:
    """A file's tensors, complete for their architecture, finite, float32, under our names and in our order of anchors.

    A backbone's are named as in ``Backbone.body``, a detector's as in ``RetinaNet``.
    """

    file: Path
    sha256: str
    format: Format
    kind: Kind
    tensors: dict[str, Tensor]
    unused: dict[str, str]  # name in the file -> why it has no place in a detector
    architecture: Architecture
    network: Network | None  # None: one of our own files that does not say
    class_ids: tuple[int, ...] | None  # category id of each class output; None: the data's, in ascending order
    class_names: tuple[str, ...] | None = None  # of each class output; None: the file does not say


@dataclass(frozen=True)
class _State:
    """What a file holds, before names are looked up."""

    entries: Mapping[str, Any]  # the state dict itself
    beside: Mapping[str, Any]  # what stands beside it


def read_weights(path: Path) -> Weights:
    """Read ``path``; its format is told from its content.

    Raises WeightsError, naming the file, where it cannot be read, is of no known format, or lacks a tensor, has one
    too many, of another shape, or with a NaN in it.
    """
    content, sha256 = read_content(path)
    state = _state(content, path)
    project = _recognise(state, path)
    kind: Kind = "backbone" if project in ("caffe2", "torchvision") else "retinanet"
    tensors, unused, unknown = _named(project, state, path)
    architecture = infer_architecture(tensors, kind, str(path))
    check_tensors(tensors, _shapes(architecture, path), str(path), unknown)
    if project == "detectron2" and architecture.pyramid is not None:
        top = architecture.pyramid
        for name, channels in (("classification_head.cls_logits", top.num_classes), ("regression_head.bbox_reg", 4)):
            for part in ("weight", "bias"):
                key = f"head.{name}.{part}"
                tensors[key] = to_ratio_major(tensors[key], channels, top.num_anchors, str(path))
    return Weights(
        file=path,
        sha256=sha256,
        format=project,
        kind=kind,
        tensors=tensors,
        unused=unused,
        architecture=architecture,
        network=_network(project, architecture, state, sha256, path),
        class_ids=_class_ids(project, architecture, state, path),
        class_names=_class_names(project, architecture, state, path),
    )


def _shapes(found: Architecture, path: Path) -> dict[str, torch.Size]:
    try:
        return expected_shapes(found)
    except (ValueError, RuntimeError) as error:  # channels that no group norm divides
        raise WeightsError(f"{path} holds no network that can be built: {error}.") from error


def check_tensors(
    given: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], where: str, unknown: tuple[str, ...] = ()
) -> None:
    """Raise WeightsError unless ``given`` are exactly the ``wanted``, of their shapes, float32, and finite.

    unknown: names that were found but have no place; where: the file, for messages.
    """
    problems = [f"lacks {name}" for name in wanted if name not in given]
    problems += [f"has an unknown {name}" for name in (*unknown, *(name for name in given if name not in wanted))]
    problems += [
        f"{name} is {list(given[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if isinstance(given.get(name), Tensor) and given[name].shape != shape
    ]
    problems += [
        f"{name} is {_kind(value)}, not float32" if _kind(value) != "float32" else f"{name} is not finite"
        for name, value in given.items()
        if _kind(value) != "float32" or not _is_finite(value)
    ]
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        listed = "; ".join([*(problem[:_LONGEST] for problem in problems[:MOST_PROBLEMS]), *more])
        raise WeightsError(f"{where} does not hold the tensors of its network: {listed}.")


def _kind(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. By the extremes: 16 times faster than a mask of all values."""
    return values.numel() == 0 or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def _state(content: Any, path: Path) -> _State:
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name (a state dict).")
    for key in ("model", "blobs"):
        if isinstance(content.get(key), Mapping):
            beside = {str(name): value for name, value in content.items() if name != key}
            return _State(_without_wrapper(content[key]), beside)
    return _State(_without_wrapper(content), {})


def _without_wrapper(state: Mapping[Any, Any]) -> dict[str, Any]:
    """``module.`` is what DistributedDataParallel puts before every name."""
    named = {str(name): value for name, value in state.items()}
    if named and all(name.startswith("module.") for name in named):
        return {name.removeprefix("module."): value for name, value in named.items()}
    return named


def _recognise(state: _State, path: Path) -> Format:
    entries = state.entries
    marks: tuple[tuple[Format, Callable[[str], bool]], ...] = (
        ("maskrcnn-benchmark", lambda name: name.startswith((f"{names.BODY}stem.", "rpn.head.cls_tower."))),
        ("detectron2", lambda name: name.startswith("backbone.bottom_up.")),
        ("torchvision-retinanet", lambda name: name.startswith((f"{names.BODY}conv1.", "head.classification_head."))),
        ("caffe2", lambda name: name.startswith("res2_0_branch")),
        ("torchvision", lambda name: name.startswith("layer1.0.conv")),
    )
    for project, mark in marks:
        if any(mark(name) for name in entries):
            is_ours = project == "torchvision-retinanet" and "category_ids" in state.beside
            return "harness" if is_ours else project
    shown = ", ".join(name[:_LONGEST] for name in list(entries)[:SHOWN]) or "nothing"
    raise WeightsError(
        f"{path} is of no known format: its names are {shown}, ... Known: a RetinaNet of maskrcnn-benchmark, "
        "Detectron2, torchvision or this project, a ResNet of Caffe2 or torchvision."
    )


def _named(project: Format, state: _State, path: Path) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    """Tensors under our names; names that have no place, with the reason; names that nobody knows."""
    rename = _renaming(project)
    left = 4 * _bytes_held(state.entries.values())  # a byte may become a number of four
    tensors: dict[str, Tensor] = {}
    unused = {name: _why_beside(name) for name in state.beside if name not in _OURS}
    unknown = []
    for name, value in state.entries.items():
        ours, why = rename(name), _why_unused(project, name)
        if why is not None:
            unused[name] = why
        elif ours is None or not isinstance(value, (Tensor, np.ndarray)) or ours in tensors:
            unknown.append(name)
        else:
            tensors[ours] = _float32(value)
            left -= 0 if tensors[ours] is value else 4 * tensors[ours].numel()
            if left < 0:
                raise WeightsError(f"{path} holds the same numbers under many names; together they outgrow the file.")
    if project == "caffe2":
        tensors |= _identity_statistics(tensors)
    return tensors, unused, tuple(unknown)


_OURS: Final = ("category_ids", "category_names", "network", "train_id")


def _renaming(project: Format) -> Callable[[str], str | None]:
    if project == "caffe2":
        caffe2 = names.inverse(names.CAFFE2)
        return lambda name: names.from_caffe2(name, caffe2)
    if project in ("maskrcnn-benchmark", "detectron2"):
        table = names.inverse(names.MASKRCNN_BENCHMARK if project == "maskrcnn-benchmark" else names.DETECTRON2)
        return lambda name: names.renamed(name, table)
    if project == "torchvision-retinanet":
        old = names.inverse(names.OLD_TORCHVISION)
        return lambda name: names.renamed(name, old) or name
    return lambda name: name


def _why_unused(project: Format, name: str) -> str | None:
    """Why a tensor of the file has no place in a detector; None if it has one, or nobody knows it."""
    if name.endswith(".num_batches_tracked"):
        return _COUNTER
    if "anchor_generator.cell_anchors." in name:
        return _ANCHORS
    if project == "torchvision" and name.startswith("fc."):
        return _CLASSIFIER
    if project == "harness" and name.startswith(LOSS_STATE):
        return "state of the loss"
    if project == "detectron2" and name in ("pixel_mean", "pixel_std"):
        return "pixel normalisation: a setting"
    if project == "caffe2":
        if name.endswith("_momentum"):
            return "state of the optimiser"
        if name.startswith(("fc1000_", "pred_")):
            return _CLASSIFIER
        if name == "conv1_b":  # the base codebase and Detectron2 leave it out as well
            return "bias before the first norm, which their networks do not have"
    return None


def _why_beside(name: str) -> str:
    known = {"optimizer": "state of the optimiser", "scheduler": "state of the schedule", "iteration": "counter"}
    return known.get(name, "beside the model")


def _bytes_held(values: Iterable[Any]) -> int:
    """Of all tensors together; those that share their memory count once."""
    arrays = {id(value): value.nbytes for value in values if isinstance(value, np.ndarray)}
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return sum(arrays.values()) + sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _float32(value: Tensor | np.ndarray[Any, Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
    return tensor if tensor.dtype == torch.float32 and tensor.is_contiguous() else tensor.float().contiguous()


def _identity_statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean 0 and variance 1 of every norm: Caffe2's files have them folded into scale and bias."""
    scales = {name.rpartition(".")[0]: value for name, value in tensors.items() if value.ndim == 1}
    means = {f"{module}.running_mean": torch.zeros_like(value) for module, value in scales.items()}
    return means | {f"{module}.running_var": torch.ones_like(value) for module, value in scales.items()}


def _network(project: Format, found: Architecture, state: _State, sha256: str, path: Path) -> Network | None:
    if project == "harness":
        given = state.beside.get("network")
        try:
            return None if given is None else msgspec.convert(given, Network)
        except msgspec.ValidationError as error:
            raise WeightsError(f"{path}: its description of the network cannot be read: {error}.") from error
    stock = stock_network(project, found.backbone)
    body = stock.body
    if project == "torchvision-retinanet" and sha256.startswith(_WITHOUT_EPSILON):
        body = msgspec.structs.replace(body, norm_epsilon=0.0)
    if project == "detectron2" and "pixel_mean" in state.entries and "pixel_std" in state.entries:
        body = msgspec.structs.replace(body, pixels=_stored_pixels(state, path))
        if body.pixels.order == "rgb":  # only for a body that torchvision trained, which strides in the 3x3
            body = msgspec.structs.replace(body, stride_in_1x1=False)
    return Network(body, stock.boxes)


def _stored_pixels(state: _State, path: Path) -> PixelSettings:
    """Of Detectron2 files that keep them. They do not say the order: ImageNet's red is brighter than its blue."""
    given = [state.entries[name] for name in ("pixel_mean", "pixel_std")]
    if not all(isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 3 for value in given):
        raise WeightsError(f"{path}: its pixel_mean and pixel_std are not of three channels.")
    mean, std = (_float32(value).flatten().tolist() for value in given)
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise WeightsError(f"{path}: pixel_mean {mean} and pixel_std {std} are no mean and deviation.")
    unit = max(mean) <= 1
    return PixelSettings(
        order="rgb" if mean[0] > mean[2] else "bgr",
        range=UNIT_RGB.range if unit else 255,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _class_ids(project: Format, found: Architecture, state: _State, path: Path) -> tuple[int, ...] | None:
    """torchvision's outputs are numbered by COCO's category ids, 0 .. 90, of which 80 are used."""
    top = found.pyramid
    if top is None or project in ("maskrcnn-benchmark", "detectron2"):
        return None
    if project == "torchvision-retinanet":
        return tuple(range(top.num_classes))
    try:
        ids = msgspec.convert(state.beside["category_ids"], tuple[int, ...] | None)
    except msgspec.ValidationError as error:
        raise WeightsError(f"{path}: its category ids cannot be read: {error}.") from error
    if ids is not None and len(ids) != top.num_classes:
        raise WeightsError(f"{path} names {len(ids)} categories for {top.num_classes} class outputs.")
    if ids is not None and len(set(ids)) < len(ids):
        raise WeightsError(f"{path} has two class outputs for one category id.")
    return ids


def _class_names(project: Format, found: Architecture, state: _State, path: Path) -> tuple[str, ...] | None:
    """Of our own files; no other project writes them."""
    if project != "harness" or found.pyramid is None:
        return None
    try:
        names = msgspec.convert(state.beside.get("category_names"), tuple[str, ...] | None)
    except msgspec.ValidationError as error:
        raise WeightsError(f"{path}: its categories' names cannot be read: {error}.") from error
    if names is not None and len(names) != found.pyramid.num_classes:
        raise WeightsError(f"{path} has {len(names)} names for {found.pyramid.num_classes} class outputs.")
    return names
