"""Weights into a model: converted to its settings, or refused with every difference named and nothing changed."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn
from torchvision.models import resnet50, resnet101
from torchvision.ops import FrozenBatchNorm2d

from detector.build import build_model
from detector.errors import WeightsError
from detector.model.backbone import build_backbone
from detector.model.retinanet import RetinaNet
from detector.runs.job import ModelSettings, PixelSettings, TestSettings, TrainJob
from detector.weights.find import URLS
from detector.weights.load import (
    BOX_OUTPUTS,
    CLASS_OUTPUTS,
    differences,
    load_backbone,
    load_detector,
    recoded,
    select_classes,
)
from detector.weights.network import Body, Boxes, Network, network_of
from detector.weights.read import Weights, read_weights
from detector.weights.write import COCO_IDS
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from tests.weight_files import blank, peer_shapes, save_maskrcnn_benchmark


def job_of(name: str) -> tuple[TrainJob, TestSettings]:
    return jobs(recipe(Registry(), name), seed=0)


def model_of(name: str, num_classes: int = 80) -> RetinaNet:
    job, test = job_of(name)
    torch.manual_seed(0)
    return build_model(job, num_classes=num_classes, test=test, pretrained=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """maskrcnn-benchmark's R-50."""
    folder = tmp_path_factory.mktemp("base")
    return read_weights(save_maskrcnn_benchmark(folder / "m.pth", blank(peer_shapes("maskrcnn_benchmark_r50"))))


@pytest.fixture(scope="module")
def model(base: Weights) -> RetinaNet:
    """The model of maskrcnn-benchmark's R-50; for tests that leave it as it is."""
    return model_of("dr-r50-1x")


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_unchanged(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# What is converted


def test_load_detector_fills_every_tensor(base: Weights) -> None:
    model, job = model_of("dr-r50-1x"), job_of("dr-r50-1x")[0]

    load_detector(model, base, job, category_ids=list(COCO_IDS))

    state = model.state_dict()
    assert state.keys() == base.tensors.keys()
    assert all(torch.equal(value, base.tensors[name]) for name, value in state.items())


def test_load_detector_leaves_out_what_either_loss_keeps_for_itself(base: Weights, tmp_path: Path) -> None:
    name = "criterion.classification_loss.counts"
    trained = base.tensors | {name: torch.full((80,), 7.0)}
    torch.save({"model": trained, "category_ids": list(COCO_IDS)}, tmp_path / "final.pt")
    model, job = model_of("dr-r50-1x"), job_of("dr-r50-1x")[0]
    model.criterion.classification_loss.register_buffer("counts", torch.zeros(3))

    weights = read_weights(tmp_path / "final.pt")
    load_detector(model, weights, job)

    assert (weights.format, weights.unused[name]) == ("harness", "state of the loss")
    state = model.state_dict()
    assert state.pop(name).tolist() == [0, 0, 0]
    assert all(torch.equal(value, base.tensors[key]) for key, value in state.items())


def test_load_detector_scales_boxes_to_the_jobs_weights(base: Weights) -> None:
    job = job_of("dr-r50-1x")[0]
    job = replace(job, regression=replace(job.regression, box_weights=(1.0, 2.0, 5.0, 10.0)))
    model = model_of("dr-r50-1x")

    load_detector(model, base, job)

    # The file is coded with (10, 10, 5, 5), and holds 0.5 everywhere.
    for name in BOX_OUTPUTS:
        rows = model.state_dict()[name].flatten(1) if name.endswith("weight") else model.state_dict()[name][:, None]
        assert rows[4:8, 0].tolist() == pytest.approx([0.05, 0.1, 0.5, 1.0])


@pytest.mark.parametrize(("theirs", "ours"), [(0.0, 1e-5), (1e-5, 0.0), (1e-3, 1e-5)])
def test_recoded_moves_the_difference_of_epsilons_into_the_variance(theirs: float, ours: float, base: Weights) -> None:
    assert base.network is not None
    network = Network(replace(base.network.body, norm_epsilon=theirs), base.network.boxes)
    variance = torch.tensor([2e-3, 0.3, 1.0, 50.0])
    norm = {"weight": torch.rand(4), "bias": torch.rand(4), "running_mean": torch.rand(4), "running_var": variance}
    weights = changed(base, network=network, tensors={f"backbone.body.bn1.{name}": v for name, v in norm.items()})

    tensors = recoded(weights, norm_epsilon=ours, box_weights=None)

    there, here = FrozenBatchNorm2d(4, eps=theirs), FrozenBatchNorm2d(4, eps=ours)
    there.load_state_dict(norm)
    here.load_state_dict({name.rsplit(".", 1)[1]: value for name, value in tensors.items()})
    image = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(here(image), there(image), rtol=2e-6, atol=1e-6)
    assert not torch.equal(tensors["backbone.body.bn1.running_var"], variance)


def test_select_classes_keeps_each_anchors_rows_together() -> None:
    # Two anchors of three classes; the value is 10 * anchor + class.
    bias = torch.tensor([0, 1, 2, 10, 11, 12])

    assert select_classes(bias, torch.tensor([2, 0]), num_anchors=2).tolist() == [2, 0, 12, 10]
    assert select_classes(bias.reshape(6, 1), torch.tensor([1]), num_anchors=2).tolist() == [[1], [11]]


def test_load_detector_takes_torchvisions_outputs_by_category_id(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = model_of("torchvision-r50", 91)
    state = blank({name: value.shape for name, value in model.state_dict().items()})
    anchor, category = torch.meshgrid(torch.arange(9), torch.arange(91), indexing="ij")
    state[CLASS_OUTPUTS[1]] = (1000 * anchor + category).flatten().float()
    torch.save(state, tmp_path / "m.pth")
    weights = read_weights(tmp_path / "m.pth")
    job = job_of("torchvision-r50")[0]

    few = model_of("torchvision-r50", 3)
    load_detector(few, weights, job, category_ids=[3, 13, 90])
    bias = few.state_dict()[CLASS_OUTPUTS[1]].reshape(9, 3)
    assert bias[2].tolist() == [2003.0, 2013.0, 2090.0]
    assert bias[7].tolist() == [7003.0, 7013.0, 7090.0]
    before = state_of(few)
    with pytest.raises(WeightsError, match="no class for the category ids 91 of the data; it has 91"):
        load_detector(few, weights, job, category_ids=[3, 13, 91])
    assert is_unchanged(few, before)


# What is refused


BASE_BODY = Body(
    pixels=PixelSettings(order="bgr", range=255, mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0)),
    stride_in_1x1=True,
    norm_epsilon=0.0,
)
BASE_BOXES = Boxes(box_convention="legacy", round_anchors=True, box_weights=(10.0, 10.0, 5.0, 5.0))


def test_network_of_the_recipes_is_that_of_their_files(base: Weights) -> None:
    assert network_of(job_of("dr-r50-1x")[0]) == base.network == Network(BASE_BODY, BASE_BOXES)
    assert differences(base, job_of("dr-r50-1x")[0]) == []


@pytest.mark.parametrize(
    ("part", "value", "settings"),
    [
        ("body", {"stride_in_1x1": False}, ["model.stride_in_1x1"]),
        ("body", {"pixels": replace(BASE_BODY.pixels, order="rgb")}, ["model.pixels"]),
        ("body", {"pixels": replace(BASE_BODY.pixels, mean=(103.53, 116.28, 123.675))}, ["model.pixels"]),
        ("body", {"pixels": replace(BASE_BODY.pixels, range=1)}, ["model.pixels"]),
        ("boxes", {"box_convention": "modern"}, ["box_convention"]),
        ("boxes", {"round_anchors": False}, ["model.round_anchors"]),
        ("boxes", {"anchor_spacing": "fitted"}, ["model.anchor_spacing"]),
        ("boxes", {"aspect_ratios": (0.5, 1.0, 3.0)}, ["model.aspect_ratios"]),
        ("pyramid", {"p6_from": "p5"}, ["model.p6_from"]),
        ("pyramid", {"head_norm": "group"}, ["model.head_norm"]),
        ("pyramid", {"num_anchors": 3}, ["anchors per location"]),
        ("body", {"norm_epsilon": 1e-5}, []),
        ("boxes", {"box_weights": (1.0, 1.0, 1.0, 1.0)}, []),
        ("pyramid", {"num_classes": 3}, []),
    ],
)
def test_differences_names_what_cannot_be_converted(
    part: str, value: dict[str, Any], settings: list[str], base: Weights
) -> None:
    assert base.network is not None
    assert base.architecture.pyramid is not None
    if part == "pyramid":
        weights = changed(
            base, architecture=changed(base.architecture, pyramid=changed(base.architecture.pyramid, **value))
        )
    else:
        weights = changed(base, network=replace(base.network, **{part: replace(getattr(base.network, part), **value)}))

    assert [difference.setting for difference in differences(weights, job_of("dr-r50-1x")[0])] == settings


def test_differences_does_not_mind_the_scale_in_which_pixels_are_given(base: Weights) -> None:
    job = job_of("torchvision-r50")[0]
    unit = job.model.pixels
    scaled = replace(unit, range=255, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    assert base.network is not None
    weights = changed(base, network=replace(network_of(job), body=replace(network_of(job).body, pixels=scaled)))

    assert [found.setting for found in differences(weights, job)] == ["model.p6_from"]


def test_load_detector_refuses_another_network_naming_all_of_it_and_keeps_the_model(
    base: Weights, model: RetinaNet
) -> None:
    job = job_of("detectron2-r50")[0]
    before = state_of(model)

    with pytest.raises(WeightsError) as caught:
        load_detector(model, base, job)

    message = str(caught.value)
    for part in (
        "m.pth (maskrcnn-benchmark) is another network than the recipe's",
        "model.pixels is bgr 0..255, mean 102.98 115.947 122.772, std 1 1 1 in the file, "
        "bgr 0..255, mean 103.53 116.28 123.675, std 1 1 1 in the recipe",
        "box_convention is legacy in the file, modern in the recipe",
        "model.round_anchors is True in the file, False in the recipe",
        "harness weights show",
    ):
        assert part in message
    assert is_unchanged(model, before)


def test_load_detector_refuses_another_depth_and_another_number_of_classes(base: Weights, model: RetinaNet) -> None:
    with pytest.raises(WeightsError, match=r"model\.backbone is resnet50 in the file, resnet101 in the recipe"):
        load_detector(model, base, job_of("dr-r101-2x")[0])
    few = model_of("dr-r50-1x", num_classes=3)
    with pytest.raises(WeightsError, match="has 80 classes, the data 3"):
        load_detector(few, base, job_of("dr-r50-1x")[0], category_ids=[1, 2, 3])


# Backbones


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's ResNet-50 as it is published, with made-up numbers."""
    path = tmp_path_factory.mktemp("torchvision") / "resnet50.pth"
    torch.manual_seed(0)
    torch.save(resnet50().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def backbone(classifier: Path) -> Weights:
    return read_weights(classifier)


@pytest.fixture(scope="module")
def body(backbone: Weights) -> nn.Module:
    """torchvision's ResNet-50 within our backbone; for tests that leave it as it is."""
    return build_backbone(settings_of("torchvision-r50")).body


def settings_of(name: str, **options: Any) -> ModelSettings:
    return replace(job_of(name)[0].model, **options)


def test_load_backbone_fills_the_body(classifier: Path) -> None:
    settings = settings_of("torchvision-r50", norm_epsilon=1e-5)
    body = build_backbone(settings).body

    load_backbone(body, read_weights(classifier), settings)

    state, expected = body.state_dict(), torch.load(classifier, weights_only=True)
    assert len(state) == 53 * 5  # convolution, and weight, bias, mean and variance of its norm
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet101"}, r"model\.backbone is resnet50 in the file, resnet101 in the recipe"),
        ({"norm": "group"}, r"model\.norm is frozen_batch in the file, group in the recipe"),
        ({"stride_in_1x1": True}, r"model\.stride_in_1x1 is False in the file, True in the recipe"),
        ({"pixels": BASE_BODY.pixels}, r"model\.pixels is rgb 0\.\.1, .* in the file, bgr 0\.\.255, "),
    ],
)
def test_load_backbone_refuses_another_network_and_keeps_the_body(
    options: dict[str, Any], message: str, backbone: Weights, body: nn.Module
) -> None:
    before = state_of(body)

    with pytest.raises(WeightsError, match=message):
        load_backbone(body, backbone, settings_of("torchvision-r50", **options))
    assert is_unchanged(body, before)


def test_load_backbone_refuses_tensors_that_do_not_fit_and_keeps_the_body(backbone: Weights, body: nn.Module) -> None:
    before = state_of(body)
    lacking = {name: value for name, value in backbone.tensors.items() if name != "layer4.2.conv3.weight"}

    with pytest.raises(WeightsError, match=r"lacks layer4\.2\.conv3\.weight"):
        load_backbone(body, changed(backbone, tensors=lacking), settings_of("torchvision-r50"))
    assert is_unchanged(body, before)


def test_a_backbone_is_no_detector_and_a_detector_no_backbone(
    backbone: Weights, base: Weights, model: RetinaNet
) -> None:
    job = job_of("dr-r50-1x")[0]

    with pytest.raises(WeightsError, match=r"is a backbone \(torchvision\), without a pyramid and a head"):
        load_detector(model, backbone, job)
    with pytest.raises(WeightsError, match=rf"is a whole detector .*model\.weights=sha256:{base.sha256}"):
        load_backbone(model.backbone.body, base, job.model)


# From a job


def test_build_model_starts_from_the_named_project_only(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, test = job_of("dr-r50-1x")
    published = f"https://example.org/resnet50-{read_weights(classifier).sha256[:8]}.pth"
    monkeypatch.setitem(URLS, ("torchvision", "resnet50"), published)

    with pytest.raises(WeightsError, match=r"is a torchvision file; the recipe starts from caffe2's"):
        build_model(job, num_classes=80, test=test, weights_file=classifier)
    job, test = job_of("torchvision-r50")
    model = build_model(job, num_classes=80, test=test, weights_file=classifier)
    expected = torch.load(classifier, weights_only=True)
    assert torch.equal(model.backbone.body.state_dict()["conv1.weight"], expected["conv1.weight"])


def test_a_file_that_is_not_the_published_one_is_refused(classifier: Path) -> None:
    """Its tensors fit; its sum is not the one that torchvision's file name holds."""
    job, test = job_of("torchvision-r50")

    with pytest.raises(WeightsError, match=r"is not the file that torchvision publishes: .*, not 0676ba61\. Fetch .*"):
        build_model(job, num_classes=80, test=test, weights_file=classifier)


def test_build_model_starts_from_a_whole_detector_named_by_its_content(base: Weights) -> None:
    job, test = job_of("dr-r50-1x")
    job = replace(job, model=replace(job.model, weights=f"sha256:{base.sha256}"))

    model = build_model(job, num_classes=80, test=test, weights_file=base.file)

    assert all(torch.equal(value, base.tensors[name]) for name, value in model.state_dict().items())
    wanted = replace(job, model=replace(job.model, weights=f"sha256:{'0' * 64}"))
    with pytest.raises(WeightsError, match="is another file than sha256:0000"):
        build_model(wanted, num_classes=80, test=test, weights_file=base.file)


def test_read_weights_of_another_depth_does_not_fit(body: nn.Module, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in resnet101().state_dict().items()}
    torch.save(blank(shapes), tmp_path / "m.pth")

    with pytest.raises(WeightsError, match=r"model\.backbone is resnet101 in the file, resnet50 in the recipe"):
        load_backbone(body, read_weights(tmp_path / "m.pth"), settings_of("torchvision-r50"))
