"""Weights in other projects' formats: what comes back is what went in; other networks are refused."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace as changed
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor
from torchvision.models import resnet50

from detector.errors import UsageError, WeightsError
from detector.weights.load import BOX_OUTPUTS, CLASS_OUTPUTS
from detector.weights.network import Architecture, Format, Pyramid, expected_shapes, stock_network
from detector.weights.read import Weights, read_weights
from detector.weights.write import COCO_IDS, Conversion, convert, write_weights
from tests.weight_files import caffe2_shapes, peer_shapes

TOPS = {"maskrcnn-benchmark": "c5", "detectron2": "c5", "torchvision-retinanet": "p5"}


@cache
def made_up(project: Format, *, num_classes: int = 80, fpn_channels: int = 16) -> Weights:
    """A detector of the project's network, with a narrow pyramid, of random numbers that are no powers of two."""
    p6_from = TOPS[project]
    top = Pyramid(
        fpn_channels=fpn_channels,
        fpn_levels=(3, 7),
        p6_from="c5" if p6_from == "c5" else "p5",
        head_convs=4,
        head_norm="none",
        num_anchors=9,
        num_classes=num_classes,
    )
    architecture = Architecture("resnet50", "frozen_batch", top)
    generator = torch.Generator().manual_seed(1)
    tensors = {name: random_numbers(shape, generator) for name, shape in expected_shapes(architecture).items()}
    return Weights(
        file=Path("made-up"),
        sha256="0" * 64,
        format=project,
        kind="retinanet",
        tensors=tensors,
        unused={},
        architecture=architecture,
        network=stock_network(project, "resnet50"),
        class_ids=tuple(range(num_classes)) if project == "torchvision-retinanet" else None,
    )


def random_numbers(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Large tensors are parts of the same numbers, so that 26 million need not be drawn, kept and written."""
    if shape.numel() < 100_000:
        return torch.rand(shape, generator=generator) + 0.1
    numbers, first = drawn_once(), int(torch.randint(1000, (), generator=generator))
    return numbers[first : first + shape.numel()].view(shape)


@cache
def drawn_once() -> Tensor:
    return torch.rand(6_000_000, generator=torch.Generator().manual_seed(1)) + 0.1


def same(first: dict[str, Tensor], second: dict[str, Tensor], *, but: tuple[str, ...] = ()) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(value, second[name]) for name, value in first.items() if name not in but)


@pytest.mark.parametrize("project", ["maskrcnn-benchmark", "detectron2", "torchvision-retinanet"])
def test_write_and_read_give_the_same_bits(project: Format, tmp_path: Path) -> None:
    weights = made_up(project, num_classes=91 if project == "torchvision-retinanet" else 80)

    notes = write_weights(weights, project, tmp_path / "model")
    found = read_weights(tmp_path / "model")

    assert notes == ()
    assert (found.format, found.architecture, found.network) == (project, weights.architecture, weights.network)
    assert found.unused.keys() <= {"__author__"}
    assert same(found.tensors, weights.tensors)


@pytest.mark.parametrize("project", ["maskrcnn-benchmark", "torchvision-retinanet"])
def test_write_our_own_format_keeps_what_the_weights_were_of(project: Format, tmp_path: Path) -> None:
    """Once with the file's own category ids, once with COCO's; then back into the project's format."""
    weights = made_up(project, num_classes=91 if project == "torchvision-retinanet" else 80)

    write_weights(weights, "harness", tmp_path / "ours")
    ours = read_weights(tmp_path / "ours")

    assert (ours.format, ours.network) == ("harness", weights.network)
    assert ours.class_ids == (weights.class_ids or COCO_IDS)
    assert same(ours.tensors, weights.tensors)
    assert same(read_content_of(convert(ours, project)), read_content_of(convert(weights, project)))


def read_content_of(conversion: Conversion) -> dict[str, Tensor]:
    """The state dict in a converted file."""
    content = torch.load(io.BytesIO(conversion.content), weights_only=True)
    state: dict[str, Tensor] = content.get("model", content)
    return state


def test_write_maskrcnn_benchmark_has_the_names_of_its_true_state_dict(tmp_path: Path) -> None:
    write_weights(made_up("maskrcnn-benchmark", fpn_channels=256), "maskrcnn-benchmark", tmp_path / "m.pth")

    state = torch.load(tmp_path / "m.pth", weights_only=True)["model"]

    true = {name: shape for name, shape in peer_shapes("maskrcnn_benchmark_r50").items() if "cell_anchors" not in name}
    assert {name: list(value.shape) for name, value in state.items()} == true


def test_write_detectron2_has_the_names_of_its_true_state_dict(tmp_path: Path) -> None:
    write_weights(made_up("detectron2", fpn_channels=256), "detectron2", tmp_path / "m.pkl")

    content = pickle.loads((tmp_path / "m.pkl").read_bytes())

    assert content["__author__"]  # without it Detectron2 takes the file for Caffe2's
    assert {name: list(value.shape) for name, value in content["model"].items()} == peer_shapes("detectron2_r50")
    assert {value.dtype for value in content["model"].values()} == {np.dtype("float32")}


def test_write_detectron2_of_the_base_codebase_scales_and_reorders_and_says_what_differs(tmp_path: Path) -> None:
    weights = made_up("maskrcnn-benchmark")

    notes = write_weights(weights, "detectron2", tmp_path / "m.pkl")

    text = " ".join(notes)
    assert "pixels: detectron2 takes bgr 0..255, mean 103.53 116.28 123.675" in text
    assert "box_convention is legacy in the weights, modern in detectron2" in text
    assert "round_anchors is True in the weights, False in detectron2" in text
    assert len(notes) == 3
    theirs = pickle.loads((tmp_path / "m.pkl").read_bytes())["model"]
    # Our anchor 5 (ratio 1, scale 2) is their 2 * 3 + 1; deltas lose the weights (10, 10, 5, 5).
    ours = weights.tensors[BOX_OUTPUTS[1]].numpy().reshape(9, 4)
    np.testing.assert_allclose(theirs["head.bbox_pred.bias"].reshape(9, 4)[7], ours[5] / [10, 10, 5, 5], rtol=1e-7)
    classes = weights.tensors[CLASS_OUTPUTS[1]].numpy().reshape(9, 80)
    assert np.array_equal(theirs["head.cls_score.bias"].reshape(9, 80)[7], classes[5])
    # Their norms add 1e-5 to the variance.
    np.testing.assert_allclose(
        theirs["backbone.bottom_up.stem.conv1.norm.running_var"] + 1e-5,
        weights.tensors["backbone.body.bn1.running_var"].numpy(),
        rtol=1e-6,
    )
    # And back.
    write_weights(read_weights(tmp_path / "m.pkl"), "maskrcnn-benchmark", tmp_path / "b.pth")
    back = read_weights(tmp_path / "b.pth").tensors
    for name, value in weights.tensors.items():
        torch.testing.assert_close(back[name], value, rtol=2e-7, atol=0 if "running_var" not in name else 1e-7)


def test_write_torchvision_numbers_outputs_by_category_and_silences_the_others(tmp_path: Path) -> None:
    weights = changed(made_up("torchvision-retinanet"), format="harness", class_ids=COCO_IDS)

    write_weights(weights, "torchvision-retinanet", tmp_path / "m.pth")

    state = torch.load(tmp_path / "m.pth", weights_only=True)
    bias = state[CLASS_OUTPUTS[1]].reshape(9, 91)
    assert torch.equal(bias[:, list(COCO_IDS)], weights.tensors[CLASS_OUTPUTS[1]].reshape(9, 80))
    unused = [category for category in range(91) if category not in COCO_IDS]
    assert len(unused) == 11
    assert float(bias[:, unused].sigmoid().max()) < 1e-40
    assert not state[CLASS_OUTPUTS[0]].reshape(9, 91, -1)[:, unused].any()


# Backbones


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """A ResNet-50 of each project, by the project's name."""
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    torch.save(resnet50().state_dict(), folder / "torchvision")
    random = np.random.RandomState(0)
    blobs = {name: random.rand(*shape).astype(np.float32) for name, shape in caffe2_shapes().items()}
    (folder / "caffe2").write_bytes(pickle.dumps(blobs))
    return {name: read_weights(folder / name) for name in ("caffe2", "torchvision")}


@pytest.mark.parametrize("project", ["caffe2", "torchvision"])
def test_write_backbone_and_read_give_the_same_bits(
    project: Format, backbones: dict[str, Weights], tmp_path: Path
) -> None:
    weights = backbones[project]

    assert write_weights(weights, project, tmp_path / "written") == ()

    assert same(read_weights(tmp_path / "written").tensors, weights.tensors)


def test_write_caffe2_has_the_names_and_shapes_of_its_files(backbones: dict[str, Weights]) -> None:
    blobs = pickle.loads(convert(backbones["caffe2"], "caffe2").content)

    without = {
        name: shape for name, shape in caffe2_shapes().items() if name not in ("conv1_b", "fc1000_w", "fc1000_b")
    }
    assert {name: value.shape for name, value in blobs.items()} == without


def test_write_caffe2_of_a_detector_folds_the_statistics_of_its_norms(tmp_path: Path) -> None:
    weights = made_up("maskrcnn-benchmark")

    notes = write_weights(weights, "caffe2", tmp_path / "R-50.pkl")

    assert notes == ("only the backbone is written; pyramid and head are left out",)
    blobs = pickle.loads((tmp_path / "R-50.pkl").read_bytes())
    norm = {
        part: weights.tensors[f"backbone.body.layer1.0.bn2.{part}"].double().numpy()
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    scale = norm["weight"] / np.sqrt(norm["running_var"])
    np.testing.assert_allclose(blobs["res2_0_branch2b_bn_s"], scale, rtol=1e-6)
    np.testing.assert_allclose(blobs["res2_0_branch2b_bn_b"], norm["bias"] - norm["running_mean"] * scale, rtol=1e-5)


# What is refused


@pytest.mark.parametrize(
    ("project", "to", "reasons"),
    [
        ("torchvision-retinanet", "maskrcnn-benchmark", ["stride in their 3x3", "pixels are rgb 0..1"]),
        ("torchvision-retinanet", "detectron2", ["stride in their 3x3", "pixels are rgb 0..1", "P6 from P5, there"]),
        ("maskrcnn-benchmark", "torchvision-retinanet", ["stride in their first 1x1", "P6 from C5, there"]),
        ("maskrcnn-benchmark", "torchvision", ["stride in their first 1x1", "pixels are bgr 0..255"]),
    ],
)
def test_write_refuses_another_network_and_leaves_nothing(
    project: Format, to: Format, reasons: list[str], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=f"cannot become {to}, whose network is another") as caught:
        write_weights(made_up(project), to, tmp_path / "out")
    assert all(reason in str(caught.value) for reason in reasons)
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_other_anchors_heads_and_norms(tmp_path: Path) -> None:
    weights = made_up("maskrcnn-benchmark")
    assert weights.network is not None
    assert weights.architecture.pyramid is not None
    boxes = replace(weights.network.boxes, anchor_scale=2.0)
    top = changed(weights.architecture.pyramid, head_norm="group")
    for other, reason in (
        (changed(weights, network=replace(weights.network, boxes=boxes)), r"anchor_scale is 2\.0, there 4\.0"),
        (changed(weights, architecture=changed(weights.architecture, pyramid=top)), "the head has norms"),
        (changed(weights, architecture=changed(weights.architecture, norm="group")), "no resnet50 backbone with group"),
        (changed(weights, network=None), "does not say which network"),
    ):
        with pytest.raises(WeightsError, match=reason):
            write_weights(other, "detectron2", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_a_backbone_as_a_detector_and_an_unknown_format(
    backbones: dict[str, Weights], tmp_path: Path
) -> None:
    weights = backbones["torchvision"]
    for to, message in (("harness", "is a backbone; harness holds whole detectors"), ("onnx", "Unknown format 'onnx'")):
        with pytest.raises(WeightsError, match=message):
            write_weights(weights, to, tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_write_replaces_a_file_only_where_told_and_never_a_folder(tmp_path: Path) -> None:
    weights, out = made_up("maskrcnn-benchmark"), tmp_path / "out"
    out.write_text("kept")

    with pytest.raises(UsageError, match=r"out exists.*--force"):
        write_weights(weights, "harness", out)
    assert out.read_text() == "kept"
    write_weights(weights, "harness", out, overwrite=True)
    assert read_weights(out).format == "harness"
    with pytest.raises(UsageError, match="is a folder"):
        write_weights(weights, "harness", tmp_path, overwrite=True)


def test_our_files_describe_their_network_as_plain_data(tmp_path: Path) -> None:
    weights = made_up("maskrcnn-benchmark")
    write_weights(weights, "harness", tmp_path / "out")

    content = torch.load(tmp_path / "out", weights_only=True)

    assert content["network"] == msgspec.to_builtins(weights.network)
    assert content["network"]["boxes"]["box_convention"] == "legacy"
