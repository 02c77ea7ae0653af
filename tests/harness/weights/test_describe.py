"""``harness weights`` and ``harness eval --weights``: what they print, write and refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from msgspec.structs import replace
from torchvision.models import resnet50
from typer.testing import CliRunner

from detector.build import build_model
from detector.data.coco.index import load_index
from detector.errors import HarnessError, UsageError, WeightsError
from detector.evaluation.detections import read_detections
from detector.evaluation.inference import detect_split
from detector.evaluation.scoring import coco_metrics
from detector.weights.find import URLS
from detector.weights.network import network_of
from detector.weights.read import read_weights
from harness.cli import app
from harness.launch.prepare import find_weights
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe, resolve_recipe
from support.micro import ALONE, micro_data, micro_job, write_experiments
from support.random_weights import random_state
from tests.command import error, invoke
from tests.weight_files import blank, peer_shapes, save_maskrcnn_benchmark

pytestmark = pytest.mark.usefixtures("empty_folders")
DR = "dr-r50-1x"


def run(*arguments: str) -> str:
    return invoke(*arguments).output


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def classifier(folder: Path) -> Path:
    """torchvision's ImageNet classifier."""
    path = folder / "resnet50.pth"
    torch.save(blank({name: value.shape for name, value in resnet50().state_dict().items()}), path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of maskrcnn-benchmark whose classifier starts where the DR loss starts it."""
    state = blank(peer_shapes("maskrcnn_benchmark_r50"), value=0.1)
    state["rpn.head.cls_logits.bias"] = torch.full((720,), -0.3)
    return save_maskrcnn_benchmark(tmp_path_factory.mktemp("base") / "model_final.pth", state)


# show


def test_show_says_what_a_checkpoint_is_and_which_recipe_evaluates_it(base: Path) -> None:
    text = run("weights", "show", str(base))

    for line in (
        "format        maskrcnn-benchmark, retinanet",
        "backbone      resnet50, norm frozen_batch",
        "strides       in the first 1x1 convolution of a block",
        "pixels        bgr 0..255, mean 102.98 115.947 122.772, std 1 1 1",
        "pyramid       P3 .. P7 of 256 channels, P6 from C5",
        "classes       80, in the order of the data's category ids",
        "anchors       9 per location",
        "boxes         legacy, anchors rounded, nominal spacing",
        "box weights   10 10 5 5",
        "unused        anchors: made anew for every image: rpn.anchor_generator.cell_anchors.0 and 4 more",
        "unused        state of the optimiser: optimizer",
        f"evaluate      harness eval --recipe {DR} --weights {base} --data COCO",
    ):
        assert line in text.splitlines()


def test_show_orders_recipes_by_the_bias_of_the_classifier(base: Path, tmp_path: Path) -> None:
    data = json.loads(run("weights", "show", str(base), "--json"))
    assert data["recipes"][0] == DR
    assert "retinanet-r50-1x" in data["recipes"]
    assert not any(name.startswith(("torchvision", "detectron2")) or "101" in name for name in data["recipes"])
    assert data["sha256"] == sha256_of(base)

    state = blank(peer_shapes("maskrcnn_benchmark_r50"), value=0.1)
    state["rpn.head.cls_logits.bias"] = torch.full((720,), -4.2)  # where the focal loss starts it, nearly
    focal = save_maskrcnn_benchmark(tmp_path / "focal.pth", state)
    assert json.loads(run("weights", "show", str(focal), "--json"))["recipes"][0] == "retinanet-r50-1x"


def test_show_of_a_backbone_names_the_recipes_that_start_from_it(tmp_path: Path) -> None:
    path = classifier(tmp_path)

    text = run("weights", "show", str(path))

    assert "format        torchvision, backbone" in text
    assert "recipes       torchvision-r50" in text
    assert f"train         harness run TARGET --weights {path}" in text


# convert


def test_convert_writes_a_file_that_is_read_again_and_says_what_differs(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pkl"

    text = run("weights", "convert", str(base), "--to", "detectron2", "--out", str(out))

    assert "note: box_convention is legacy in the weights, modern in detectron2" in text
    assert f"harness weights show {out}" in text
    assert read_weights(out).format == "detectron2"
    assert "exists" in error("weights", "convert", str(base), "--to", "detectron2", "--out", str(out))
    run("weights", "convert", str(base), "--to", "harness", "--out", str(out), "--force")
    assert read_weights(out).format == "harness"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]


def test_convert_refuses_another_network_and_an_unknown_format(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = error("weights", "convert", str(base), "--to", "torchvision-retinanet", "--out", str(out))
    assert "cannot become torchvision-retinanet, whose network is another" in refused
    refused = error("weights", "convert", str(base), "--to", "onnx", "--out", str(out))
    assert "Unknown format 'onnx'. Known: caffe2, torchvision" in refused
    assert not out.exists()


# run


def test_find_weights_refuses_what_does_not_fit_before_anything_is_trained(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision = classifier(tmp_path)
    published = f"https://example.org/resnet50-{sha256_of(torchvision)[:8]}.pth"
    monkeypatch.setitem(URLS, ("torchvision", "resnet50"), published)
    dr, r101, ours = (jobs(recipe(Registry(), name), seed=0)[0] for name in (DR, "dr-r101-2x", "torchvision-r50"))

    with pytest.raises(WeightsError, match=r"is a torchvision file; the recipe starts from caffe2's"):
        find_weights([dr], torchvision)
    with pytest.raises(UsageError, match=r"resnet101 \(caffe2\), resnet50 \(caffe2\) are wanted"):
        find_weights([dr, r101], torchvision)
    whole = replace(r101, model=replace(r101.model, weights=f"sha256:{sha256_of(base)}"))
    with pytest.raises(WeightsError, match=r"model\.backbone is resnet50 in the file, resnet101 in the recipe"):
        find_weights([whole], base)
    assert find_weights([ours], torchvision) == {("torchvision", "resnet50"): torchvision}
    assert find_weights([], None) == {}


# eval


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give a row, such as table2/L6, or both --recipe NAME and --weights FILE."),
        (("--recipe", DR), "Give a row"),
        (("--weights", "x.pth"), "Give a row"),
        (("table2/L6", "--recipe", DR, "--weights", "x.pth"), "Give a row"),
        (("table2/L6", "--out", "x"), "--out goes with --weights"),
        (("--recipe", DR, "--weights", "x.pth", "--seed", "1"), "--seed chooses among the runs of a row"),
        (("--recipe", DR, "--weights", "x.pth"), "A COCO root"),
        (("--recipe", "dr", "--weights", "x.pth", "--data", "y"), f"Unknown recipe 'dr'. Known: .*{DR}"),
        (("--recipe", DR, "--weights", "gone.pth", "--data", "y"), "There is no weights file gone.pth"),
        (("--recipe", DR, "--weights", "x", "--data", "y", "--set", "test.x=1"), "unknown setting 'test.x'"),
        (("--recipe", DR, "--weights", "x", "--data", "y", "--set", "test.nms_iou=2"), "test.nms_iou"),
    ],
)
def test_eval_refuses_what_it_cannot_take(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        CliRunner().invoke(app, ["eval", *arguments], catch_exceptions=False)


def test_eval_refuses_another_network_and_names_the_recipes_that_fit(base: Path, tmp_path: Path) -> None:
    message = error("eval", "--recipe", "dr-r101-2x", "--weights", str(base), "--data", str(tmp_path))
    assert "model.backbone is resnet50 in the file, resnet101 in the recipe" in message
    assert f"Shipped recipes with its network: {DR}, " in message
    message = error("eval", "--recipe", "torchvision-r50", "--weights", str(base), "--data", str(tmp_path))
    for setting in ("model.pixels", "model.stride_in_1x1", "model.p6_from", "box_convention", "model.anchor_spacing"):
        assert f"{setting} is " in message

    path = classifier(tmp_path)
    message = error("eval", "--recipe", DR, "--weights", str(path), "--data", str(tmp_path))
    assert "is a backbone (torchvision), without a pyramid and a head: nothing to evaluate" in message


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Generated data and a file of our own with random weights for the tiny profile's network."""
    experiments = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(experiments))
    job = micro_job(experiments)
    data = micro_data(tmp_path / "data", job)
    torch.manual_seed(0)
    model = build_model(job.train, num_classes=3, test=job.test)
    content = {"model": model.state_dict(), "category_ids": load_index(data, "val2017").category_ids.tolist()}
    torch.save(content | {"network": msgspec.to_builtins(network_of(job.train))}, tmp_path / "own.pth")
    torch.save(content, tmp_path / "silent.pth")
    return {"data": data, "own": tmp_path / "own.pth", "silent": tmp_path / "silent.pth"}


def eval_of(tiny: dict[str, Path], file: str = "own") -> tuple[str, ...]:
    """The arguments of its evaluation."""
    return "eval", "--recipe", DR, "--profile", "tiny", "--data", str(tiny["data"]), "--weights", str(tiny[file])


def evaluate(tiny: dict[str, Path], *arguments: str, file: str = "own") -> str:
    return run(*eval_of(tiny, file), "--device", "cpu", *arguments)


def test_eval_of_a_file_gives_the_metrics_of_its_model(tiny: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    text = evaluate(tiny, "--out", str(out))

    registry = Registry()
    job, test = jobs(resolve_recipe(registry, DR, registry.profile("tiny")), seed=0)
    model = build_model(job, num_classes=3, test=test)
    model.load_state_dict(torch.load(tiny["own"], weights_only=True)["model"])
    index = load_index(tiny["data"], "val2017")
    expected, _ = detect_split(model, index, ALONE, lambda share: None)
    assert len(expected) > 50
    found = json.loads((out / "evaluation.json").read_text())
    assert found["metrics"] == coco_metrics(index, expected)
    assert found["scored_by"] == "pycocotools"
    assert read_detections(out / "detections.json.gz").scores.tolist() == expected.scores.tolist()
    assert (found["recipe"], found["profile"], found["split_fingerprint"]["images"]) == (DR, "tiny", 6)
    assert found["weights"] == {"name": "own.pth", "sha256": read_weights(tiny["own"]).sha256, "format": "harness"}
    assert found["settings"]["model"]["backbone"] == "slim"
    assert found["environment"]["device"].startswith("cpu")
    assert "6 images that are not the whole of a COCO 2017 split: not comparable with published numbers" in text
    assert "This is no record and fills no table's cell." in text
    assert not (tmp_path / "runs").exists()
    with pytest.raises(HarnessError, match=r"detections.json.gz exists and is not overwritten"):
        evaluate(tiny, "--out", str(out))


def test_eval_of_a_file_takes_other_test_settings_and_prints_json(tiny: dict[str, Path]) -> None:
    result = invoke(*eval_of(tiny), "--set", "test.score_threshold=1.0", "--json")

    data: dict[str, Any] = json.loads(result.stdout)

    assert data["metrics"]["AP"] == 0.0  # no score is above 1
    assert (
        json.loads(invoke(*eval_of(tiny), "--backend", "fast", "--json").stdout)["metrics"]
        == json.loads(invoke(*eval_of(tiny), "--json").stdout)["metrics"]
    )
    assert (data["recipe"], data["images"], data["written"]) == (DR, 6, [])


def test_eval_says_where_a_file_does_not_describe_its_network(tiny: dict[str, Path]) -> None:
    assert "the file does not give its network; the recipe's was used" in evaluate(tiny, file="silent")
    assert "does not say" not in evaluate(tiny)


def test_eval_refuses_data_without_images_or_with_other_categories(tiny: dict[str, Path]) -> None:
    images = sorted((tiny["data"] / "val2017").iterdir())
    images[0].unlink()
    assert f"image files, first {images[0].name}" in error(*eval_of(tiny))
    path = tiny["data"] / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 77, "name": "other"})
    path.write_text(json.dumps(content))
    assert "no class for the category ids 77 of the data; it has 3" in error(*eval_of(tiny), "--split", "train2017")


def test_eval_refuses_data_whose_categories_have_other_names_under_the_same_ids(
    tiny: dict[str, Path], tmp_path: Path
) -> None:
    """Without names the classes would be exchanged: AP falls from 89 to 23, and nothing says why."""
    content = torch.load(tiny["own"], weights_only=True)
    index = load_index(tiny["data"], "val2017")
    first, second, third = index.category_names
    named = tmp_path / "named.pth"
    torch.save(content | {"category_names": [first.upper(), f" {second}", third]}, named)
    evaluate(tiny | {"named": named}, file="named")  # case and spaces are no difference

    torch.save(content | {"category_names": [second, first, third]}, named)
    message = error(*eval_of(tiny | {"named": named}, "named"))
    ids = index.category_ids.tolist()
    assert f"named.pth was trained on other categories than {tiny['data']}/val2017 has" in message
    assert f"id {ids[0]} is {second!r} in the weights, {first!r} in the data" in message
    torch.save(content | {"category_names": [first]}, named)
    assert "has 1 names for 3 class outputs" in error(*eval_of(tiny | {"named": named}, "named"))


def test_eval_finds_one_changed_bit_of_a_weights_file(tiny: dict[str, Path]) -> None:
    data = bytearray(tiny["own"].read_bytes())
    data[len(data) // 2] ^= 1
    tiny["own"].write_bytes(data)
    for command in (eval_of(tiny), ("weights", "show", str(tiny["own"]))):
        assert "own.pth is damaged or no weights file (Bad CRC-32" in error(*command)


@pytest.mark.coco
@pytest.mark.slow
def test_eval_of_a_checkpoint_of_maskrcnn_benchmark_on_real_images(coco_tiny: Path, tmp_path: Path) -> None:
    """Scored as by the very detections that maskrcnn-benchmark itself has stored: see test_peers for those."""
    state = random_state(peer_shapes("maskrcnn_benchmark_r50"))
    path = save_maskrcnn_benchmark(tmp_path / "m.pth", {name: torch.from_numpy(v) for name, v in state.items()})
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    content = json.loads((coco_tiny / "annotations" / "instances_val2017.json").read_text())
    content["images"] = sorted(content["images"], key=lambda image: image["id"])[:4]
    ids = [image["id"] for image in content["images"]]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    shutil.copytree(coco_tiny / "val2017", root / "val2017")
    small = ("--set", "test.short_sides=[128]", "--set", "test.max_size=213")

    run("eval", "--recipe", DR, "--weights", str(path), "--data", str(root), *small, "--out", str(tmp_path / "out"))

    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["settings"]["box_convention"] == "legacy"
    assert found["split_fingerprint"]["images"] == 4
    detections = read_detections(tmp_path / "out" / "detections.json.gz")
    assert set(detections.image_ids.tolist()) <= set(ids)
    assert len(detections) > 100
    assert coco_metrics(load_index(root, "val2017"), detections) == found["metrics"]
