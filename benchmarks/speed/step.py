"""The detector's training step and inference beside torchvision's RetinaNet, and how much of them is convolution.

Both have ResNet-50, the same weights, images and boxes, and train the same layers with the focal loss. torchvision's is
used as its documentation has it: in its own memory format, with plain SGD. Neither resizes the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.measure import Curve, Report, Row, compare
from benchmarks.speed.convolutions import convolutions_of
from detector.build import build_model
from detector.device.precision import precision_context
from detector.model.assign import assign_batch, padded_targets
from detector.model.retinanet import RetinaNet, Target
from detector.runs.job import Precision, TrainJob
from detector.training.schedule import parameter_groups
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from support.random_weights import random_state

NUM_CLASSES = 91
NUM_BOXES = 7  # of an image of COCO, in the mean
FLOOR = "the same convolutions alone"
SIDES, COUNTS = (320, 480, 640, 800), (1, 2, 4, 8)


@dataclass(frozen=True)
class Setting:
    """A way to run on a device: ``threads`` of a CPU, or a precision of a GPU."""

    device: torch.device
    threads: int
    precision: Precision

    def __str__(self) -> str:
        return self.precision if self.device.type == "cuda" else f"{self.precision}, threads: {self.threads}"

    @contextmanager
    def applied(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with precision_context(self.precision, self.device):
                yield
        finally:
            torch.set_num_threads(before)

    def compare(self, candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Median seconds of each in this setting."""
        with self.applied():
            wait = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
            return compare(candidates, rounds=rounds, wait=wait)


@dataclass(frozen=True)
class Batch:
    """Images uint8 [3, H, W], the same in 0..1, and their targets."""

    images: list[Tensor]
    unit_images: list[Tensor]
    targets: list[Target]


@dataclass(frozen=True)
class Models:
    """Both detectors, with equal weights, and what ours was built for."""

    ours: RetinaNet
    theirs: nn.Module
    job: TrainJob

    def train(self, on: bool) -> None:
        self.ours.train(on)
        self.theirs.train(on)


def report(*, quick: bool) -> Report:
    """Two images of 800 x 1333 pixels (quick: 64 x 107); on a CPU by one and by two threads."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    short_side, rounds = (64, 1) if quick else (800, 2 if device.type == "cpu" else 7)
    models, batch = models_on(device), batch_of(2, short_side, device)
    rows: list[Row] = []
    facts: dict[str, float | str] = {}
    for setting in settings(device)[: 1 if quick else None]:
        step = step_row(models, batch, setting, rounds)
        rows += [step, inference_row(models, batch, setting, rounds), postprocess_row(models, batch, setting, rounds)]
        facts |= shares(models, batch, setting, step.seconds)
    return Report(rows=tuple(rows), curves=curves(models, quick=quick), facts=facts)


def settings(device: torch.device) -> list[Setting]:
    """What is measured on a device."""
    if device.type == "cpu":
        return [Setting(device, threads, "fp32") for threads in (1, 2)]
    return [Setting(device, torch.get_num_threads(), precision) for precision in ("fp32", "tf32", "bf16")]


# What is compared


def models_on(device: torch.device) -> Models:
    """Random weights that give activations of order one and some hundred candidates."""
    job, test = jobs(recipe(Registry(), "torchvision-r50"), 0)
    ours = build_model(job, num_classes=NUM_CLASSES, test=test, pretrained=False)
    state = random_state({name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()})
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    theirs = TorchvisionRetinaNet(backbone, NUM_CLASSES)
    theirs.transform.resize = lambda image, target: (image, target)
    for model in (ours, theirs):
        model.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
        model.to(device)
    return Models(ours, theirs, job)


def batch_of(num_images: int, short_side: int, device: torch.device) -> Batch:
    """Noise of 3 : 5, and boxes of all sizes."""
    random = torch.Generator().manual_seed(0)
    size = torch.tensor([short_side * 5 // 3, short_side])
    shape = (num_images, 3, *size.flip(0).tolist())
    images = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8).to(device)
    corners = torch.rand(num_images, NUM_BOXES, 2, generator=random) * 0.6 * size
    boxes = torch.cat((corners, corners + (0.05 + 0.3 * torch.rand(corners.shape, generator=random)) * size), dim=-1)
    labels = torch.randint(0, NUM_CLASSES, boxes.shape[:2], generator=random)
    targets = [
        {"boxes": image_boxes.to(device), "labels": image_labels.to(device)}
        for image_boxes, image_labels in zip(boxes, labels, strict=True)
    ]
    return Batch(list(images), [image / 255 for image in images], targets)


def stepper(model: nn.Module, optimizer: torch.optim.Optimizer, images: list[Tensor], targets: list[Target]) -> None:
    """One training step."""
    optimizer.zero_grad(set_to_none=True)
    sum(model(images, targets).values()).backward()
    optimizer.step()


def steppers(models: Models, batch: Batch) -> dict[str, Callable[[], object]]:
    """Steps so small that weights stay as they are."""
    models.train(True)
    groups = parameter_groups(models.ours, models.job.optimizer)
    ours = torch.optim.SGD(groups, lr=1e-12, momentum=0.9, fused=True)
    theirs = torch.optim.SGD(trained_parameters(models), lr=1e-12, momentum=0.9, weight_decay=1e-4)
    return {
        "ours": partial(stepper, models.ours, ours, batch.images, batch.targets),
        "theirs": partial(stepper, models.theirs, theirs, batch.unit_images, batch.targets),
    }


def trained_parameters(models: Models) -> list[nn.Parameter]:
    """Those of torchvision's."""
    return [parameter for parameter in models.theirs.parameters() if parameter.requires_grad]


def with_floor(candidates: dict[str, Callable[[], object]], setting: Setting) -> dict[str, Callable[[], object]]:
    """And the convolutions of ours, recorded in the setting."""
    with setting.applied():
        return candidates | {"floor": convolutions_of(candidates["ours"])}


# Rows


def step_row(models: Models, batch: Batch, setting: Setting, rounds: int) -> Row:
    """Forward, losses, backward and optimiser."""
    seconds = setting.compare(with_floor(steppers(models, batch), setting), rounds)
    return Row(
        work=f"training step, focal loss, {described(batch)}, {setting}",
        peer="torchvision's RetinaNet",
        peer_seconds=seconds["theirs"],
        seconds=seconds["ours"],
        limit=FLOOR,
        limit_seconds=seconds["floor"],
        goal="<= 1.1x the limit; >= 1.25x torchvision on a CPU, >= 1.7x on a GPU",
    )


@torch.inference_mode()
def inference_row(models: Models, batch: Batch, setting: Setting, rounds: int) -> Row:
    """From pixels to detections, of one image."""
    models.train(False)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(models.ours, batch.images[:1]),
        "theirs": partial(models.theirs, batch.unit_images[:1]),
    }
    seconds = setting.compare(with_floor(candidates, setting), rounds)
    return Row(
        work=f"inference, {described(Batch(batch.images[:1], [], []))}, {setting}",
        peer="torchvision's RetinaNet",
        peer_seconds=seconds["theirs"],
        seconds=seconds["ours"],
        limit=FLOOR,
        limit_seconds=seconds["floor"],
        goal="<= 1.1x the limit",
    )


@torch.inference_mode()
def postprocess_row(models: Models, batch: Batch, setting: Setting, rounds: int) -> Row:
    """From the heads' outputs to detections."""
    models.train(False)
    with setting.applied():
        outputs = models.ours.head_outputs(batch.images)
    cls_logits, bbox_regression, anchors = outputs
    head_outputs = {"cls_logits": cls_logits, "bbox_regression": bbox_regression}
    shapes = [(image.shape[-2], image.shape[-1]) for image in batch.images]
    seconds = setting.compare(
        {
            "ours": lambda: models.ours.detections(batch.images, outputs),
            "theirs": lambda: models.theirs.postprocess_detections(head_outputs, [list(anchors)] * len(shapes), shapes),
        },
        rounds=7 * rounds,
    )
    return Row(
        work=f"post-processing, {described(batch)}, {setting}",
        peer="torchvision's postprocess_detections",
        peer_seconds=seconds["theirs"],
        seconds=seconds["ours"],
        goal=">= 3x",
    )


def described(batch: Batch) -> str:
    height, width = batch.images[0].shape[-2:]
    return f"ResNet-50, {len(batch.images)} x {height} x {width}"


# Shares and curves


def shares(models: Models, batch: Batch, setting: Setting, step_seconds: float) -> dict[str, float | str]:
    """What in a step is no convolution, in percent of it."""
    models.train(True)
    model = models.ours
    with setting.applied(), torch.no_grad():
        cls_logits, bbox_regression, anchors = model.head_outputs(batch.images)
    for output in (*cls_logits, *bbox_regression):
        output.requires_grad_()

    def assign() -> None:
        joined = torch.cat(anchors)
        padded = padded_targets(batch.targets, like=joined)
        assign_batch(joined, *padded, model.matching, model.box_convention)

    def losses() -> None:
        padded = model.padded_targets(batch.targets)
        sum(model.criterion(cls_logits, bbox_regression, anchors, *padded).values()).backward()

    work = {
        "input, normalised and padded": partial(model.normalized_batch, batch.images),
        "anchors assigned": assign,
        "assignment and losses, forward and backward": losses,
    }
    seconds = setting.compare(work, rounds=3)
    return {f"{name}, % of a step ({setting})": round(100 * s / step_seconds, 2) for name, s in seconds.items()}


def curves(models: Models, *, quick: bool) -> tuple[Curve, ...]:
    """The step's time over images and over their size, in the device's first setting."""
    device = models.ours.mean.device
    setting, rounds = settings(device)[0], 1 if device.type == "cpu" else 5
    counts, sides, fixed = ((1, 2), (), 32) if quick else (COUNTS, SIDES, SIDES[0])

    def curve(title: str, x: str, xs: tuple[int, ...], batches: list[Batch]) -> Curve:
        found = [setting.compare(with_floor(steppers(models, batch), setting), rounds) for batch in batches]
        names = {"ours": "ours", "theirs": "torchvision", "floor": FLOOR}
        series = {shown: tuple(seconds[name] for seconds in found) for name, shown in names.items()}
        return Curve(title=f"{title}, {setting}", x=x, xs=tuple(map(float, xs)), series=series)

    by_count = [batch_of(count, fixed, device) for count in counts]
    by_side = [batch_of(2, side, device) for side in sides]
    return (
        curve(f"A step, short side {fixed}", "images", counts, by_count),
        *([curve("A step of 2 images", "short side, pixels", sides, by_side)] if sides else []),
    )
