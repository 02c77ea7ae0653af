"""One training step of the whole ResNet-50 detector on real images, against maskrcnn-benchmark of the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from detector.build import build_model
from detector.data.coco.index import load_index, select
from detector.data.loader import Group, TrainingData
from detector.geometry.padding import padded_shape
from detector.model.retinanet import RetinaNet
from detector.runs.job import TrainJob
from detector.weights import names
from detector.weights.load import load_detector
from detector.weights.read import read_weights
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from support.random_weights import random_state
from tests.fidelity.expected import DR_LOSS, FOLDER, MASKRCNN_BENCHMARK, arrays, largest
from tests.fidelity.report import Comparison

EXPECTED = arrays("maskrcnn_benchmark")


def job_of(name: str, **changes: object) -> TrainJob:
    """The recipe's training at the size of the stored step."""
    job, _ = jobs(recipe(Registry(), name), seed=0)
    side = replace(job.augmentation, short_sides=(256,), max_size=426, flip_probability=0.0)
    return replace(job, augmentation=side, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as maskrcnn-benchmark writes it, of random weights."""
    shapes = json.loads((FOLDER / "names_maskrcnn_benchmark_r50.json").read_text())
    state = {f"module.{name}": torch.from_numpy(value) for name, value in random_state(shapes).items()}
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": state}, path)
    return path


@pytest.fixture(scope="module")
def group(coco_tiny: Path) -> Group:
    """The two images through our training's data path."""
    index = load_index(coco_tiny, "val2017")
    wanted = EXPECTED["training/image_ids"]
    chosen = select(index, np.flatnonzero(np.isin(index.image_ids, wanted)))
    data = TrainingData(job_of("dr-r50-1x"), chosen, rank=0, world_size=1)
    positions = [int(np.flatnonzero(data.index.image_ids == image)[0]) for image in wanted]
    return data._group(np.array(positions), iteration=0)


def step(weights_file: Path, job: TrainJob, group: Group, dtype: torch.dtype) -> tuple[RetinaNet, dict[str, float]]:
    """Losses of one step, its gradients left in the model."""
    _, test = jobs(recipe(Registry(), "dr-r50-1x"), seed=0)
    model = build_model(job, num_classes=80, test=test, pretrained=False)
    load_detector(model, read_weights(weights_file), job)
    model.to(dtype)
    losses = model(group.images, group.targets)
    sum(losses.values()).backward()
    return model, {name: value.item() for name, value in losses.items()}


@pytest.mark.coco
def test_ground_truth_as_it_enters_the_network(fidelity: Comparison, group: Group) -> None:
    assert [list(image.shape[1:]) for image in group.images] == EXPECTED["training/resized_padded"][:2].tolist()
    shape = padded_shape([(image.shape[1], image.shape[2]) for image in group.images])
    assert list(shape) == EXPECTED["training/resized_padded"][2].tolist()
    for i, target in enumerate(group.targets):
        assert (target["labels"] + 1).tolist() == EXPECTED[f"training/classes_{i}"].tolist()
        fidelity(
            "ground truth of a training batch",
            against=MASKRCNN_BENCHMARK,
            on="2 COCO images",
            difference=largest(target["boxes"], EXPECTED[f"training/truth_{i}"]),
            bound=1e-4,
            unit="px",
        )


# Float32 alone moves maskrcnn-benchmark's own losses by 4e-5 and its gradients by 7e-4: 60 layers of random weights
# enlarge its rounding. In float64 nothing is left to hide a difference (boxes and their targets stay float32 in both).
BOUNDS = {torch.float32: (1e-4, 2e-3), torch.float64: (1e-7, 1e-6)}


@pytest.mark.slow
@pytest.mark.coco
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("loss", ["focal", "dr"])
def test_losses_and_gradients_of_the_whole_model(
    fidelity: Comparison, group: Group, weights_file: Path, loss: str, dtype: torch.dtype
) -> None:
    # The stored step has background IoU 0.5 with both losses, and the authors' loss ranks both images as one set.
    job = job_of("dr-r50-1x")
    changed = job_of("retinanet-r50-1x").loss if loss == "focal" else replace(job.loss, scope="batch")
    model, losses = step(weights_file, replace(job, loss=changed), group, dtype)
    peer = MASKRCNN_BENCHMARK if loss == "focal" else f"{MASKRCNN_BENCHMARK} with {DR_LOSS}"
    kind = str(dtype).removeprefix("torch.")
    suffix = "_float64" if dtype == torch.float64 else ""
    loss_bound, gradient_bound = BOUNDS[dtype]
    for name, theirs in (("classification", "classification"), ("bbox_regression", "regression")):
        expected = float(EXPECTED[f"training/{loss}/{theirs}{suffix}"])
        fidelity(
            f"{theirs} loss of a training step, {loss}, {kind}",
            against=peer,
            on="2 COCO images, ResNet-50",
            difference=abs(losses[name] / expected - 1),
            bound=loss_bound,
            unit="rel",
        )
    parameters = dict(model.named_parameters())
    norms = []
    for theirs in EXPECTED["training/gradient_names"]:
        gradient = parameters[our_name(str(theirs))].grad
        assert gradient is not None
        norms.append(float(gradient.double().norm()))
    fidelity(
        f"norms of 12 parameters' gradients, {loss}, {kind}",
        against=peer,
        on="2 COCO images, ResNet-50",
        difference=float(np.abs(np.array(norms) / EXPECTED[f"training/{loss}/gradient_norms{suffix}"] - 1).max()),
        bound=gradient_bound,
        unit="rel",
    )


def our_name(theirs: str) -> str:
    name = names.renamed(theirs, names.inverse(names.MASKRCNN_BENCHMARK))
    assert name is not None, theirs
    return name
