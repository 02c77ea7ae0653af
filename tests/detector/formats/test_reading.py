"""Files of each project under our names: the format, the network that it implies, what is left out and why."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from detector.errors import WeightsError
from detector.formats.anchor_order import to_ratio_major, to_scale_major
from detector.formats.network import CAFFE2_PIXELS, DETECTRON2_PIXELS, Body, Boxes, Network
from detector.formats.reading import Weights, read_weights
from detector.job import UNIT_RGB
from tests.weight_files import blank, caffe2_shapes, peer_shapes, save_maskrcnn_benchmark

ONES = (1.0, 1.0, 1.0, 1.0)


def numpy_state(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in state.items()}


def save_pickle(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


def save_torch(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def torchvision_state(**options: Any) -> dict[str, Tensor]:
    """Names and shapes only; the numbers are all one half."""
    with torch.device("meta"):
        model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, **options)
    return blank({name: value.shape for name, value in model.state_dict().items()})


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


@pytest.mark.parametrize(("name", "backbone"), [("r50", "resnet50"), ("r101", "resnet101")])
@pytest.mark.parametrize("suffix", ["pkl", "pth"])
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
    state["head.bbox_pred.weight"] = state["head.bbox_pred.bias"].reshape(36, 1, 1, 1).expand(36, 256, 3, 3)

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
    with pytest.raises(WeightsError, match="4 anchors a location"):
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

    assert weights.tensors.keys() == read_weights(save_torch(tmp_path / "n.pth", new)).tensors.keys()


def test_read_torchvision_takes_the_released_files_norms_as_without_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_torch(tmp_path / "m.pth", torchvision_state(num_classes=5))
    monkeypatch.setattr("detector.formats.reading._WITHOUT_EPSILON", read_weights(path).sha256[:8])

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


# Backbones


def caffe2_blobs() -> dict[str, np.ndarray]:
    return numpy_state(blank(caffe2_shapes()))


@pytest.mark.parametrize("nested", [False, True])
def test_read_caffe2_makes_statistics_that_change_nothing(nested: bool, tmp_path: Path) -> None:
    blobs = caffe2_blobs() | {"conv1_w_momentum": np.zeros(1, np.float32)}
    blobs["res_conv1_bn_s"] = np.full(64, 3.0, np.float32)
    blobs["res4_0_branch1_bn_b"] = np.full(1024, 4.0, np.float32)
    blobs["res5_2_branch2c_w"] = np.full((2048, 512, 1, 1), 5.0, np.float32)

    weights = read_weights(save_pickle(tmp_path / "R-50.pkl", {"blobs": blobs} if nested else blobs))

    assert (weights.format, weights.kind, weights.architecture.backbone) == ("caffe2", "backbone", "resnet50")
    assert weights.network == Network(Body(pixels=CAFFE2_PIXELS, stride_in_1x1=True, norm_epsilon=0.0), None)
    with torch.device("meta"):
        expected = resnet50().state_dict()
    wanted = {name for name in expected if not name.startswith("fc.") and not name.endswith("_tracked")}
    assert weights.tensors.keys() == wanted
    assert weights.tensors["bn1.weight"].unique().tolist() == [3.0]
    assert weights.tensors["layer3.0.downsample.1.bias"].unique().tolist() == [4.0]
    assert weights.tensors["layer4.2.conv3.weight"].unique().tolist() == [5.0]
    assert weights.tensors["layer1.1.bn2.running_mean"].unique().tolist() == [0.0]
    assert weights.tensors["layer1.1.bn2.running_var"].unique().tolist() == [1.0]
    assert set(weights.unused) == {"fc1000_w", "fc1000_b", "conv1_b", "conv1_w_momentum"}


def test_read_caffe2_resnext_strides_in_the_3x3(tmp_path: Path) -> None:
    shapes = peer_shapes("maskrcnn_benchmark_x101")  # the same body under another name
    body = {name.removeprefix("backbone.body."): shape for name, shape in shapes.items() if ".body." in name}
    blobs = {}
    branches = {"conv1": "2a", "bn1": "2a_bn", "conv2": "2b", "bn2": "2b_bn", "conv3": "2c", "bn3": "2c_bn"}
    for name, shape in body.items():
        layer, _, rest = name.partition(".")
        tensor = name.rsplit(".", 1)[1]
        if layer == "stem" or tensor.startswith("running"):
            continue
        block, module = rest.rsplit(".", 1)[0].split(".", 1)
        branch = branches.get(module) or {"downsample.0": "1", "downsample.1": "1_bn"}[module]
        suffix = {"bias": "b", "weight": "s" if branch.endswith("bn") else "w"}[tensor]
        blobs[f"res{int(layer[5:]) + 1}_{block}_branch{branch}_{suffix}"] = np.zeros(shape, np.float32)
    blobs |= {"conv1_w": np.zeros((64, 3, 7, 7), np.float32), "pred_w": np.zeros(1, np.float32)}
    blobs |= {"res_conv1_bn_s": np.zeros(64, np.float32), "res_conv1_bn_b": np.zeros(64, np.float32)}

    weights = read_weights(save_pickle(tmp_path / "X.pkl", blobs))

    assert weights.architecture.backbone == "resnext101_32x8d"
    assert weights.network is not None
    assert not weights.network.body.stride_in_1x1
    assert weights.unused == {"pred_w": "ImageNet classifier"}


def test_read_torchvision_classifier_leaves_its_last_layer_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = resnet50().state_dict()

    weights = read_weights(save_torch(tmp_path / "resnet50.pth", state))

    assert (weights.format, weights.kind) == ("torchvision", "backbone")
    assert weights.network == Network(Body(pixels=UNIT_RGB, stride_in_1x1=False, norm_epsilon=1e-5), None)
    assert len(weights.tensors) == 53 * 5
    assert all(torch.equal(value, state[name]) for name, value in weights.tensors.items())
    assert weights.unused["fc.weight"] == "ImageNet classifier"


def test_read_widens_half_precision(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in torchvision_state(num_classes=1).items()}

    tensors = read_weights(save_torch(tmp_path / "m.pth", state)).tensors

    assert {value.dtype for value in tensors.values()} == {torch.float32}


# Bad files


def read_changed(tmp_path: Path, change: dict[str, Any]) -> Weights:
    """maskrcnn-benchmark's R-50 with entries replaced, or dropped where the new value is None."""
    state: dict[str, Any] = blank(peer_shapes("maskrcnn_benchmark_r50"))
    for name, value in change.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    return read_weights(save_torch(tmp_path / "m.pth", {"model": state}))


LOGITS = "rpn.head.cls_logits.weight"
NAN = torch.full((64,), float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.fpn.fpn_layer3.bias": None}, r"lacks backbone\.fpn\.layer_blocks\.1\.0\.bias\.$"),
        ({LOGITS: None}, r"lacks head\.classification_head\.cls_logits\.weight, by which its network is told"),
        (
            {"rpn.head.cls_tower.2.bias": None, "rpn.head.cls_tower.2.bais": torch.zeros(256)},
            r"lacks head\.classification_head\.conv\.1\.0\.bias; has an unknown rpn\.head\.cls_tower\.2\.bais\.$",
        ),
        (
            {"backbone.body.layer2.1.conv2.weight": torch.zeros(128, 128, 1, 1)},
            r"layer2\.1\.conv2\.weight is \[128, 128, 1, 1\], not \[128, 128, 3, 3\]",
        ),
        ({"backbone.body.stem.bn1.bias": NAN}, r"backbone\.body\.bn1\.bias is not finite"),
        ({LOGITS: torch.zeros(100, 256, 3, 3)}, "100 class outputs do not fit to 9 anchors"),
        ({"rpn.head.bbox_tower.0.weight": "text"}, r"lacks .*; has an unknown rpn\.head\.bbox_tower\.0\.weight"),
        ({"backbone.body.layer1.0.conv2.weight": torch.zeros(128, 128, 3, 3)}, "has 128 outputs and 128 inputs"),
    ],
    ids=["missing", "missing predictor", "renamed", "shape", "nan", "outputs", "no tensor", "wide"],
)
def test_read_names_what_is_wrong_with_a_state_dict(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read_changed(tmp_path, change)
    assert str(tmp_path / "m.pth") in str(caught.value)


def test_read_names_every_missing_and_misshapen_tensor(tmp_path: Path) -> None:
    block = "backbone.body.layer4.2."

    with pytest.raises(
        WeightsError, match=r": lacks \S+(; lacks \S+layer4\.2\.\S+){13}; \S+conv1\.weight is \[1\], not "
    ):
        read_changed(
            tmp_path,
            {name: None for name in peer_shapes("maskrcnn_benchmark_r50") if name.startswith(block)}
            | {f"{block}conv1.weight": torch.zeros(1)},
        )


@pytest.mark.parametrize("value", [[1, 2], {"a": torch.zeros(1)}, {}, torch.zeros(1), {"model": {}}])
def test_read_refuses_what_is_of_no_known_format(value: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not tensors by name|of no known format: its names are"):
        read_weights(save_torch(tmp_path / "m.pth", value))
