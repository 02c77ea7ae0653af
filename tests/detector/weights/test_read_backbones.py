"""Backbones of ImageNet under our names: statistics that were folded, strides, the classifier left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from detector.runs.job import UNIT_RGB
from detector.weights.network import CAFFE2_PIXELS, Body, Network
from detector.weights.read import read_weights
from tests.weight_files import blank, caffe2_shapes, numpy_state, peer_shapes, save_pickle, save_torch


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


def test_read_caffe2_resnext_strides_in_the_3x3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    # Not by way of a file, which would take 350 MB; the one of the ResNet is read above.
    monkeypatch.setattr("detector.weights.read.read_content", lambda path: (blobs, "0" * 64))
    weights = read_weights(tmp_path / "X.pkl")

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
