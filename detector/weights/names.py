"""The same modules under the names of each project: tables from our module names (torchvision's) to theirs.

A full name is the module's and the tensor's (``weight``, ``bias``, ``running_mean``, ``running_var``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

BODY: Final = "backbone.body."

_TENSORS: Final = ("weight", "bias", "running_mean", "running_var")

# More blocks and convolutions than any network here has, so that a deeper one is told from an unknown name.
_BLOCKS: Final = 40
_HEAD_CONVS: Final = 16
_CONV_AND_NORM: Final = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "downsample.0": "downsample.1"}
_CAFFE2_BRANCH: Final = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "downsample.0": "branch1"}


def _blocks() -> Iterator[tuple[int, int]]:
    """(layer 1 .. 4, block)."""
    return ((layer, block) for layer in range(1, 5) for block in range(_BLOCKS))


def _caffe2() -> dict[str, str]:
    names = {"conv1": "conv1", "bn1": "res_conv1_bn"}
    for layer, block in _blocks():
        for conv, norm in _CONV_AND_NORM.items():
            theirs = f"res{layer + 1}_{block}_{_CAFFE2_BRANCH[conv]}"
            names[f"layer{layer}.{block}.{conv}"] = theirs
            names[f"layer{layer}.{block}.{norm}"] = f"{theirs}_bn"
    return names


def _maskrcnn_benchmark() -> dict[str, str]:
    names = {f"{BODY}conv1": f"{BODY}stem.conv1", f"{BODY}bn1": f"{BODY}stem.bn1"}
    for layer, block in _blocks():
        for module in (*_CONV_AND_NORM, *_CONV_AND_NORM.values()):
            same = f"{BODY}layer{layer}.{block}.{module}"
            names[same] = same
    for level in range(3):  # theirs count the residual stages from 1, and leave the first out
        names[f"backbone.fpn.inner_blocks.{level}.0"] = f"backbone.fpn.fpn_inner{level + 2}"
        names[f"backbone.fpn.layer_blocks.{level}.0"] = f"backbone.fpn.fpn_layer{level + 2}"
    for extra in ("p6", "p7"):
        names[f"backbone.fpn.extra_blocks.{extra}"] = f"backbone.fpn.top_blocks.{extra}"
    return names | _head("rpn.head.cls_tower", "rpn.head.cls_logits", "rpn.head.bbox_tower", "rpn.head.bbox_pred")


def _detectron2() -> dict[str, str]:
    body = "backbone.bottom_up."
    names = {f"{BODY}conv1": f"{body}stem.conv1", f"{BODY}bn1": f"{body}stem.conv1.norm"}
    for layer, block in _blocks():
        for conv, norm in _CONV_AND_NORM.items():
            theirs = f"{body}res{layer + 1}.{block}.{'shortcut' if conv == 'downsample.0' else conv}"
            names[f"{BODY}layer{layer}.{block}.{conv}"] = theirs
            names[f"{BODY}layer{layer}.{block}.{norm}"] = f"{theirs}.norm"
    for level in range(3):
        names[f"backbone.fpn.inner_blocks.{level}.0"] = f"backbone.fpn_lateral{level + 3}"
        names[f"backbone.fpn.layer_blocks.{level}.0"] = f"backbone.fpn_output{level + 3}"
    for extra in ("p6", "p7"):
        names[f"backbone.fpn.extra_blocks.{extra}"] = f"backbone.top_block.{extra}"
    return names | _head("head.cls_subnet", "head.cls_score", "head.bbox_subnet", "head.bbox_pred")


def _head(classes: str, logits: str, boxes: str, deltas: str) -> dict[str, str]:
    """Towers whose convolutions and ReLUs are counted together."""
    names = {"head.classification_head.cls_logits": logits, "head.regression_head.bbox_reg": deltas}
    for i in range(_HEAD_CONVS):
        names[f"head.classification_head.conv.{i}.0"] = f"{classes}.{2 * i}"
        names[f"head.regression_head.conv.{i}.0"] = f"{boxes}.{2 * i}"
    return names


def _torchvision_before_0_13() -> dict[str, str]:
    """The released ``retinanet_resnet50_fpn`` is of that time; today's torchvision renames it as it loads it."""
    head = "head.classification_head.conv", "head.classification_head.cls_logits"
    names = _head(*head, "head.regression_head.conv", "head.regression_head.bbox_reg")
    for level in range(3):
        for blocks in ("inner_blocks", "layer_blocks"):
            names[f"backbone.fpn.{blocks}.{level}.0"] = f"backbone.fpn.{blocks}.{level}"
    return names


CAFFE2: Final = _caffe2()
MASKRCNN_BENCHMARK: Final = _maskrcnn_benchmark()
DETECTRON2: Final = _detectron2()
OLD_TORCHVISION: Final = _torchvision_before_0_13()


def renamed(name: str, modules: Mapping[str, str]) -> str | None:
    """``name`` with its module looked up; None for an unknown module or tensor."""
    module, _, tensor = name.rpartition(".")
    return f"{modules[module]}.{tensor}" if module in modules and tensor in _TENSORS else None


def inverse(modules: Mapping[str, str]) -> dict[str, str]:
    """The table the other way round."""
    return {theirs: ours for ours, theirs in modules.items()}


def from_caffe2(name: str, modules: Mapping[str, str]) -> str | None:
    """Our name of a Caffe2 blob; modules: the inverse of ``CAFFE2``. None for one without a place."""
    theirs, suffix = name[:-2], name[-2:]
    tensor = ({"_s": "weight", "_b": "bias"} if theirs.endswith("_bn") else {"_w": "weight"}).get(suffix)
    return f"{modules[theirs]}.{tensor}" if tensor and theirs in modules else None


def to_caffe2(name: str) -> str:
    """Caffe2's name of one of our body's convolutions or norms, ``weight`` or ``bias``."""
    module, _, tensor = name.rpartition(".")
    theirs = CAFFE2[module]
    if tensor == "bias":
        return f"{theirs}_b"
    return f"{theirs}_s" if theirs.endswith("_bn") else f"{theirs}_w"
