"""The whole detector beside torchvision's retinanet_resnet50_fpn with the same weights, from pixels to gradients.

torchvision's model is built as for its released weights (frozen batch norm without epsilon; stem and first stage
frozen) with random numbers in their place. Its resize is left out, so that both sides see the same pixels; and it runs
in our memory format, channels last, hence on the same convolution kernels: what its own format changes is measured
apart. Labels are torchvision's: category ids, of which it has 91.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision
from msgspec.structs import replace
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights, retinanet_resnet50_fpn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector.build import build_model
from detector.data.coco.index import CocoIndex, load_index
from detector.data.images import open_image
from detector.data.transforms import resize, to_tensor
from detector.geometry.boxes import trainable_corners
from detector.model.assign import assign_anchors
from detector.model.retinanet import RetinaNet, Target
from detector.runs.job import UNIT_RGB
from drloss.labels import BACKGROUND, IGNORED
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from support.random_weights import random_state
from tests.fidelity.report import Comparison

PEER = f"torchvision {torchvision.__version__.partition('+')[0]}"
NUM_CLASSES = 91
# Whatever survives the suppression, so that the score threshold shows (torchvision keeps 300, COCO's evaluation 100).
ALL_DETECTIONS = 10_000
INPUTS = {"generated": "2 images of noise", "coco": "6 COCO images of both splits, short sides 160 to 233 px"}

# Largest differences relative to the largest number of the tensor that is compared; 0: equal to the last bit.
TRAINING_BOUNDS = {
    "anchors of the five levels": 0.0,
    "box, background or ignored: the match of every anchor": 0.0,
    "classification logits": 1e-5,
    "box deltas": 1e-5,
    "classification loss": 1e-5,
    "box regression loss": 1e-5,
    "gradient of every trained parameter": 1e-5,
}
DETECTION_BOUNDS = {
    "number of detections": 0.0,
    "labels of the detections": 0.0,
    "scores of the detections": 1e-5,
    "boxes of the detections": 1e-5,
}
# In another memory format the convolutions sum in another order, and 60 layers of random weights enlarge the float32
# rounding: either format differs from float64 as much as from the other (2e-5).
OTHER_ORDER = {"float32": 1e-4, "float64": 1e-12}


@dataclass(frozen=True)
class Models:
    """Both detectors, with equal weights."""

    ours: RetinaNet
    theirs: nn.Module


@dataclass(frozen=True)
class Batch:
    """Images uint8 [3, H, W] and their targets, labelled by category id."""

    images: list[Tensor]
    targets: list[Target]

    @property
    def unit_images(self) -> list[Tensor]:
        """What torchvision takes: float in 0..1."""
        return [image / 255 for image in self.images]


class Unresized(GeneralizedRCNNTransform):
    """Normalises and pads, no more."""

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        return image, target


@pytest.fixture(scope="module")
def models() -> Models:
    torch.set_num_threads(1)
    job, test = jobs(recipe(Registry(), "torchvision-r50"), 0)
    test = replace(test, detections_per_image=ALL_DETECTIONS)
    ours = build_model(job, num_classes=NUM_CLASSES, test=test, pretrained=False)
    state = random_state({name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()})
    weights = {name: torch.from_numpy(values) for name, values in state.items()}
    ours.load_state_dict(weights)
    with mock.patch.object(RetinaNet_ResNet50_FPN_Weights, "get_state_dict", return_value=weights):
        theirs = retinanet_resnet50_fpn(
            weights=RetinaNet_ResNet50_FPN_Weights.COCO_V1, detections_per_img=ALL_DETECTIONS
        )
    theirs.transform = Unresized(1, 1, UNIT_RGB.mean, UNIT_RGB.std)
    return Models(ours, theirs.to(memory_format=torch.channels_last))


@pytest.fixture(scope="module", params=["generated", pytest.param("coco", marks=[pytest.mark.coco, pytest.mark.slow])])
def source(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def batches(request: pytest.FixtureRequest, source: str) -> list[Batch]:
    return [noise()] if source == "generated" else photographs(request.getfixturevalue("coco_tiny"))


def noise() -> Batch:
    random = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *shape), generator=random, dtype=torch.uint8) for shape in ((97, 160), (90, 75))
    ]
    boxes = [torch.tensor([[8.5, 4.0, 70.0, 60.25], [60.0, 30.0, 150.0, 97.0]]), torch.tensor([[1.0, 2.0, 70.0, 9.0]])]
    return Batch(images, [{"boxes": found, "labels": torch.arange(len(found)) + 17} for found in boxes])


def photographs(root: Path) -> list[Batch]:
    """Two batches of mixed sizes and one image alone, of both splits; one image of the first goes without its boxes."""
    train, val = (load_index(root, split) for split in ("train2017", "val2017"))
    (wide, wide_too, *_), (tall, *_) = (positions(train, portrait=portrait) for portrait in (False, True))
    (val_wide, val_wide_too, *_), (val_tall, *_) = (positions(val, portrait=portrait) for portrait in (False, True))
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [
        batch_of(sample(train, wide, 233), (sample(val, val_wide, 201)[0], nothing), sample(train, tall, 160)),
        batch_of(sample(val, val_tall, 219), sample(train, wide_too, 177)),
        batch_of(sample(val, val_wide_too, 233)),
    ]


def positions(index: CocoIndex, *, portrait: bool) -> list[int]:
    """The images of one orientation that have three boxes or more."""
    num_boxes = np.bincount(index.positions()[~index.crowd], minlength=index.num_images)
    return np.flatnonzero(((index.heights > index.widths) == portrait) & (num_boxes >= 3)).tolist()


def sample(index: CocoIndex, position: int, short_side: int) -> tuple[Tensor, Target]:
    """One image and its boxes, resized."""
    image, rows = open_image(index, position), index.annotations_of(position)
    corners, valid = trainable_corners(index.boxes[rows], image.width, image.height, "modern")
    kept = valid & ~index.crowd[rows]
    resized = resize(image, short_side=short_side, max_size=2 * short_side)
    boxes = corners[kept] * np.tile([resized.width / image.width, resized.height / image.height], 2)
    labels = index.category_ids[index.labels[rows][kept]]
    return to_tensor(resized), {"boxes": torch.from_numpy(boxes).float(), "labels": torch.from_numpy(labels)}


def batch_of(*samples: tuple[Tensor, Target]) -> Batch:
    return Batch([image for image, _ in samples], [target for _, target in samples])


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a part of the largest number that is expected; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    if torch.equal(found, expected):
        return 0.0
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def worst(found: list[dict[str, float]]) -> dict[str, float]:
    """The largest of every check."""
    return {check: max(differences[check] for differences in found) for check in found[0]}


# Training


@pytest.fixture(scope="module")
def training(models: Models, batches: list[Batch]) -> dict[str, float]:
    models.ours.train()
    models.theirs.train()
    return worst([training_differences(models, batch) for batch in batches])


def training_differences(models: Models, batch: Batch) -> dict[str, float]:
    """One forward and backward pass of both; what torchvision hands to its losses is looked at on the way."""
    ours, theirs = models.ours, models.theirs
    with mock.patch.object(theirs.head, "compute_loss", wraps=theirs.head.compute_loss) as losses_of:
        their_losses = theirs(batch.unit_images, batch.targets)
    _, their_outputs, their_anchors, their_matches = losses_of.call_args.args
    outputs = cls_logits, bbox_regression, levels = ours.head_outputs(batch.images)
    with mock.patch.object(ours, "head_outputs", return_value=outputs):  # computed once
        losses = ours(batch.images, batch.targets)
    anchors = torch.cat(levels)
    matches = torch.stack([match_indices(ours, anchors, target) for target in batch.targets])
    assert {BACKGROUND, IGNORED, 0} <= set(matches.unique().tolist())
    return {
        "anchors of the five levels": max(relative(anchors, expected) for expected in their_anchors),
        "box, background or ignored: the match of every anchor": relative(matches, torch.stack(their_matches)),
        "classification logits": relative(torch.cat(cls_logits, dim=1), their_outputs["cls_logits"]),
        "box deltas": relative(torch.cat(bbox_regression, dim=1), their_outputs["bbox_regression"]),
        "classification loss": relative(losses["classification"], their_losses["classification"]),
        "box regression loss": relative(losses["bbox_regression"], their_losses["bbox_regression"]),
        "gradient of every trained parameter": gradient_difference(models, losses, their_losses),
    }


def match_indices(model: RetinaNet, anchors: Tensor, target: Target) -> Tensor:
    """As torchvision's matcher: the index of each anchor's box, or BACKGROUND, or IGNORED; [R] int64."""
    labels, matched = assign_anchors(anchors, target["boxes"], target["labels"], model.matching, model.box_convention)
    return torch.where(labels >= 0, matched, labels)


def gradient_difference(models: Models, losses: dict[str, Tensor], their_losses: dict[str, Tensor]) -> float:
    """The worst parameter's; infinite where a parameter is trained on one side only."""
    gradients = []
    for model, values in ((models.ours, losses), (models.theirs, their_losses)):
        model.zero_grad()
        torch.stack(list(values.values())).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys()
    assert all(gradient.any() for gradient in theirs.values())
    return max(relative(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("check", TRAINING_BOUNDS)
def test_training_step_equals_torchvisions(
    check: str, source: str, training: dict[str, float], fidelity: Comparison
) -> None:
    fidelity(
        check,
        against=PEER,
        on=INPUTS[source],
        difference=training[check],
        bound=TRAINING_BOUNDS[check],
        unit="relative",
    )


# Inference


@pytest.fixture(scope="module")
def detection(models: Models, batches: list[Batch]) -> dict[str, float]:
    models.ours.eval()
    models.theirs.eval()
    return worst([detection_differences(models, batch) for batch in batches])


@torch.no_grad()
def detection_differences(models: Models, batch: Batch) -> dict[str, float]:
    differences = []
    for found, expected in zip(models.ours(batch.images), models.theirs(batch.unit_images), strict=True):
        assert len(expected["scores"]) > 0
        differences.append(
            {
                "number of detections": float(abs(len(found["scores"]) - len(expected["scores"]))),
                "labels of the detections": relative(found["labels"], expected["labels"]),
                "scores of the detections": relative(found["scores"], expected["scores"]),
                "boxes of the detections": relative(found["boxes"], expected["boxes"]),
            }
        )
    return worst(differences)


@pytest.mark.parametrize("check", DETECTION_BOUNDS)
def test_detections_equal_torchvisions(
    check: str, source: str, detection: dict[str, float], fidelity: Comparison
) -> None:
    fidelity(
        check,
        against=PEER,
        on=INPUTS[source],
        difference=detection[check],
        bound=DETECTION_BOUNDS[check],
        unit="relative",
    )


# The convolutions' order of sums


@pytest.mark.parametrize(("precision", "bound"), OTHER_ORDER.items())
def test_head_outputs_equal_torchvisions_in_its_own_memory_format(
    precision: str, bound: float, models: Models, fidelity: Comparison
) -> None:
    dtype = getattr(torch, precision)
    ours = deepcopy(models.ours).to(dtype)
    theirs = deepcopy(models.theirs).to(dtype, memory_format=torch.contiguous_format)
    pixels = models.ours.normalized_batch(noise().images).to(dtype)
    with torch.no_grad():
        cls_logits, bbox_regression = ours.head(ours.backbone(pixels))
        expected = theirs.head(list(theirs.backbone(pixels.contiguous()).values()))

    found = {"cls_logits": torch.cat(cls_logits, dim=1), "bbox_regression": torch.cat(bbox_regression, dim=1)}
    fidelity(
        f"logits and deltas in {precision}, torchvision in its own memory format",
        against=PEER,
        on=INPUTS["generated"],
        difference=max(relative(found[name], expected[name]) for name in found),
        bound=bound,
        unit="relative",
    )
