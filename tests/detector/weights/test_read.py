"""Detectors of each project under our names: the format, the network that it implies, what is left out and why."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from detector.errors import WeightsError
from detector.runs.job import UNIT_RGB
from detector.weights.anchor_order import to_ratio_major, to_scale_major
from detector.weights.network import CAFFE2_PIXELS, DETECTRON2_PIXELS, Body, Boxes, Network
from detector.weights.read import read_weights
from tests.weight_files import (
    blank,
    numpy_state,
    peer_shapes,
    save_maskrcnn_benchmark,
    save_pickle,
    save_torch,
    torchvision_state,
)

ONES = (1.0, 1.0, 1.0, 1.0)


# maskrcnn-benchmark


@pytest.mark.parametrize(
    ("name", "backbone"), [("r50", "resnet50"), ("r101", "resnet101"), ("x101", "resnext101_32x8d")]
)
def test_read_maskrcnn_benchmark_places_every_name_of_its_true_state_dict(
    name: str, backbone: str, tmp_path: Path
) -> None:
    path = save_maskrcnn_benchmark(tmp_path / "model.pth", blank(peer_shapes(f"maskrcnn_benchmark_{name}")))

    weights = read_weights(path)

    assert (weights.format, weights.kind) == ("maskrcnn-benchmark", "retinanet")
    top = weights.architecture.pyramid
    assert weights.architecture.backbone == backbone
    assert top is not None
    assert (top.fpn_levels, top.p6_from, top.num_anchors, top.num_classes) == ((3, 7), "c5", 9, 80)
    stride_in_1x1 = backbone != "resnext101_32x8d"
    assert weights.network == Network(
        Body(pixels=CAFFE2_PIXELS, stride_in_1x1=stride_in_1x1, norm_epsilon=0.0),
        Boxes(box_convention="legacy", round_anchors=True, box_weights=(10.0, 10.0, 5.0, 5.0)),
    )
    anchors = {f"rpn.anchor_generator.cell_anchors.{level}" for level in range(5)}
    assert set(weights.unused) == {*anchors, "optimizer", "scheduler", "iteration"}
    assert weights.class_ids is None


def test_read_maskrcnn_benchmark_gives_levels_and_towers_our_names(tmp_path: Path) -> None:
    state = blank(peer_shapes("maskrcnn_benchmark_r50"))
    theirs_and_ours = {
        "backbone.body.stem.conv1.weight": "backbone.body.conv1.weight",
        "backbone.body.stem.bn1.running_var": "backbone.body.bn1.running_var",
        "backbone.body.layer3.5.bn2.bias": "backbone.body.layer3.5.bn2.bias",
        "backbone.body.layer4.0.downsample.0.weight": "backbone.body.layer4.0.downsample.0.weight",
        "backbone.fpn.fpn_inner2.bias": "backbone.fpn.inner_blocks.0.0.bias",  # of C3
        "backbone.fpn.fpn_layer4.bias": "backbone.fpn.layer_blocks.2.0.bias",  # of C5
        "backbone.fpn.top_blocks.p7.bias": "backbone.fpn.extra_blocks.p7.bias",
        "rpn.head.cls_tower.0.bias": "head.classification_head.conv.0.0.bias",
        "rpn.head.bbox_tower.6.bias": "head.regression_head.conv.3.0.bias",
        "rpn.head.cls_logits.bias": "head.classification_head.cls_logits.bias",
        "rpn.head.bbox_pred.bias": "head.regression_head.bbox_reg.bias",
    }
    for number, name in enumerate(theirs_and_ours, start=10):
        state[name] = torch.full(state[name].shape, float(number))

    tensors = read_weights(save_torch(tmp_path / "model.pth", state)).tensors  # neither "model" nor "module."

    assert [float(tensors[ours].flatten()[0]) for ours in theirs_and_ours.values()] == [
        float(number) for number in range(10, 10 + len(theirs_and_ours))
    ]


def test_read_tells_p6_of_p5_by_its_inputs(tmp_path: Path) -> None:
    state = blank(peer_shapes("maskrcnn_benchmark_r50"))
    state["backbone.fpn.top_blocks.p6.weight"] = torch.zeros(256, 256, 3, 3)

    top = read_weights(save_torch(tmp_path / "model.pth", state)).architecture.pyramid

    assert top is not None
    assert top.p6_from == "p5"


# Detectron2


@pytest.mark.parametrize(("name", "backbone", "suffix"), [("r50", "resnet50", "pkl"), ("r101", "resnet101", "pth")])
def test_read_detectron2_places_every_name_of_its_true_state_dict(
    name: str, backbone: str, suffix: str, tmp_path: Path
) -> None:
    state = blank(peer_shapes(f"detectron2_{name}"))
    path = tmp_path / f"model.{suffix}"
    if suffix == "pkl":
        save_pickle(path, {"model": numpy_state(state), "__author__": "someone"})
    else:
        save_torch(path, {"model": state, "iteration": 1})

    weights = read_weights(path)

    assert (weights.format, weights.kind, weights.architecture.backbone) == ("detectron2", "retinanet", backbone)
    assert weights.network == Network(
        Body(pixels=DETECTRON2_PIXELS, stride_in_1x1=True, norm_epsilon=1e-5),
        Boxes(box_convention="modern", round_anchors=False, box_weights=ONES),
    )
    assert "backbone.body.layer2.0.downsample.1.running_mean" in weights.tensors


def test_read_detectron2_puts_classes_and_deltas_in_our_order_of_anchors(tmp_path: Path) -> None:
    state = blank(peer_shapes("detectron2_r50"))
    # Channel s * 3 * 80 + r * 80 + k is scale s, ratio r, class k; the value says which.
    scale, ratio, channel = torch.meshgrid(torch.arange(3), torch.arange(3), torch.arange(80), indexing="ij")
    state["head.cls_score.bias"] = (1000 * scale + 100 * ratio + channel).flatten().float()
    state["head.bbox_pred.bias"] = (1000 * scale + 100 * ratio + channel)[..., :4].flatten().float()
    state["head.bbox_pred.weight"] = state["head.bbox_pred.bias"].reshape(36, 1, 1, 1).repeat(1, 256, 3, 3)

    tensors = read_weights(save_torch(tmp_path / "m.pth", {"model": state})).tensors

    # Ours: ratio 1, scale 2 is the sixth anchor, from channel 5 * 80 on.
    classes = tensors["head.classification_head.cls_logits.bias"]
    assert classes[5 * 80 : 5 * 80 + 3].tolist() == [2100.0, 2101.0, 2102.0]
    deltas = tensors["head.regression_head.bbox_reg.bias"]
    assert deltas[3 * 4 : 4 * 4].tolist() == [100.0, 101.0, 102.0, 103.0]
    assert torch.equal(tensors["head.regression_head.bbox_reg.weight"][:, 7, 1, 2], deltas)


def test_anchor_orders_are_inverse() -> None:
    values = torch.arange(2 * 3 * 5 * 7).reshape(30, 7)  # two scales, three ratios, five channels

    there = to_scale_major(values, 5, 6, "x")

    assert not torch.equal(there, values)
    assert torch.equal(to_ratio_major(there, 5, 6, "x"), values)
    with pytest.raises(WeightsError, match="4 anchors per location"):
        to_ratio_major(torch.zeros(16), 4, 4, "x")


def test_read_detectron2_takes_the_pixels_that_an_older_file_keeps(tmp_path: Path) -> None:
    state = blank(peer_shapes("detectron2_r50"))
    state |= {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    state["anchor_generator.cell_anchors.0"] = torch.zeros(9, 4)

    weights = read_weights(save_torch(tmp_path / "m.pth", {"model": state}))

    assert weights.network is not None
    assert weights.network.body.pixels.order == "rgb"
    assert not weights.network.body.stride_in_1x1
    assert weights.network.body.pixels.mean == pytest.approx((123.675, 116.28, 103.53))
    assert set(weights.unused) == {"pixel_mean", "pixel_std", "anchor_generator.cell_anchors.0"}


# torchvision and our own


def test_read_torchvision_retinanet_places_every_name(tmp_path: Path) -> None:
    weights = read_weights(save_torch(tmp_path / "m.pth", torchvision_state()))

    assert (weights.format, weights.kind) == ("torchvision-retinanet", "retinanet")
    assert weights.network == Network(
        Body(pixels=UNIT_RGB, stride_in_1x1=False, norm_epsilon=1e-5),
        Boxes(box_convention="modern", round_anchors=True, anchor_spacing="fitted", box_weights=ONES),
    )
    top = weights.architecture.pyramid
    assert top is not None
    assert (top.p6_from, top.num_classes) == ("p5", 91)
    assert weights.class_ids == tuple(range(91))
    assert set(weights.unused.values()) == {"counter of a trainable batch norm"}
    assert len(weights.unused) == 53


def test_read_torchvision_retinanet_knows_the_names_of_the_released_file(tmp_path: Path) -> None:
    """It is older than 0.13: no inner 0, and the towers' ReLUs are counted."""
    new = torchvision_state(num_classes=5)
    old = {}
    for name, value in new.items():
        parts = name.split(".")
        if "inner_blocks" in parts or "layer_blocks" in parts:
            del parts[-2]
        if parts[0] == "head" and "conv" in parts:
            parts[3:5] = [str(2 * int(parts[3]))]
        old[".".join(parts)] = value
    assert "head.regression_head.conv.6.weight" in old
    assert "backbone.fpn.inner_blocks.2.bias" in old

    weights = read_weights(save_torch(tmp_path / "m.pth", old))

    assert weights.tensors.keys() == {name for name in new if not name.endswith("num_batches_tracked")}


def test_read_torchvision_takes_the_released_files_norms_as_without_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_torch(tmp_path / "m.pth", torchvision_state(num_classes=5))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("detector.weights.read._WITHOUT_EPSILON", sha256[:8])

    network = read_weights(path).network

    assert network is not None
    assert network.body.norm_epsilon == 0.0


def test_read_knows_torchvisions_second_retinanet_by_its_head(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    state = blank({name: value.shape for name, value in model.state_dict().items()})

    top = read_weights(save_torch(tmp_path / "m.pth", state)).architecture.pyramid

    assert top is not None
    assert (top.head_norm, top.p6_from) == ("group", "c5")


def test_read_of_our_own_file_takes_what_it_says_of_itself(tmp_path: Path) -> None:
    network = Network(
        Body(pixels=CAFFE2_PIXELS, stride_in_1x1=True, norm_epsilon=0.0),
        Boxes(box_convention="legacy", round_anchors=True, box_weights=(10.0, 10.0, 5.0, 5.0)),
    )
    state = torchvision_state(num_classes=3)
    content = {"model": state, "category_ids": [4, 7, 9], "category_names": ["a", "b", "c"], "seconds": 1.5}
    ours = read_weights(save_torch(tmp_path / "a.pth", content | {"network": msgspec.to_builtins(network)}))

    assert (ours.format, ours.network, ours.class_ids) == ("harness", network, (4, 7, 9))
    assert ours.unused.keys() - {"seconds"} == {name for name in state if name.endswith("num_batches_tracked")}
    assert read_weights(save_torch(tmp_path / "b.pth", content)).network is None
    for bad, message in (({"network": {"body": 1}}, "description of the network"), ({"category_ids": [1]}, "names 1")):
        with pytest.raises(WeightsError, match=message):
            read_weights(save_torch(tmp_path / "c.pth", content | bad))


def test_read_widens_half_precision(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in torchvision_state(num_classes=1).items()}

    tensors = read_weights(save_torch(tmp_path / "m.pth", state)).tensors

    assert {value.dtype for value in tensors.values()} == {torch.float32}
