"""Every part of the recipe against maskrcnn-benchmark, the codebase of the paper's authors (numbers in tests/data)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from detector.build import build_model
from detector.data.transforms import resized_size
from detector.geometry.box_coder import decode, encode
from detector.geometry.boxes import from_edges, mirrored, to_edges, trainable_corners
from detector.model.anchors import AnchorSettings, cell_anchors, grid_anchors
from detector.model.assign import assign_anchors, padded_targets, pairwise_iou
from detector.model.head import _by_anchor
from detector.model.postprocess import Candidates, merge_candidates
from detector.model.retinanet import RetinaNet
from detector.runs.job import MatchSettings
from detector.training.schedule import learning_rate, parameter_groups
from drloss import DRLoss
from drloss.labels import BACKGROUND, IGNORED
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from tests.fidelity.expected import DR_LOSS, MASKRCNN_BENCHMARK, arrays, largest, relative
from tests.fidelity.report import Comparison

EXPECTED = arrays("maskrcnn_benchmark")
STRIDES = (8, 16, 32, 64, 128)
ANCHORS = AnchorSettings(scale=4.0, scales_per_octave=3, aspect_ratios=(0.5, 1.0, 2.0), convention="legacy")
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SIZES = [(256, 320), (224, 416)]


def tensor(key: str) -> Tensor:
    return torch.from_numpy(EXPECTED[key].copy())


def grid_of(height: int, width: int) -> Tensor:
    shapes = tuple((-(-height // stride), -(-width // stride)) for stride in STRIDES)
    return torch.cat(grid_anchors(shapes, STRIDES, ANCHORS, image_shape=(height, width)))


def our_labels(theirs: np.ndarray) -> Tensor:
    """0 background, -1 ignored, classes from 1 -> ours."""
    labels = torch.from_numpy(theirs.astype(np.int64)) - 1
    return torch.where(labels == -1, BACKGROUND, torch.where(labels == -2, IGNORED, labels))


def test_base_anchors(fidelity: Comparison) -> None:
    ours = torch.stack([cell_anchors(stride, ANCHORS) for stride in STRIDES])
    difference = largest(ours, EXPECTED["anchors/base"])
    fidelity(
        "base anchors", against=MASKRCNN_BENCHMARK, on="strides 8 to 128", difference=difference, bound=0, unit="px"
    )


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_anchor_grid(fidelity: Comparison, height: int, width: int) -> None:
    name = f"{height}x{width}"
    difference = largest(grid_of(height, width), EXPECTED[f"anchors/{name}"])
    fidelity("anchor grid", against=MASKRCNN_BENCHMARK, on=name, difference=difference, bound=0, unit="px")


def test_encode(fidelity: Comparison) -> None:
    ours = encode(tensor("box_coder/truth"), tensor("box_coder/anchors"), WEIGHTS, "legacy")
    difference = relative(ours, EXPECTED["box_coder/encoded"])
    fidelity("encoded boxes", against=MASKRCNN_BENCHMARK, on="220 pairs", difference=difference, bound=1e-6, unit="rel")


def test_decode(fidelity: Comparison) -> None:
    ours = decode(tensor("box_coder/deltas"), tensor("box_coder/anchors"), WEIGHTS, "legacy")
    difference = relative(ours, EXPECTED["box_coder/decoded"])
    fidelity(
        "decoded boxes",
        against=MASKRCNN_BENCHMARK,
        on="220 deltas, 64 clamped",
        difference=difference,
        bound=1e-6,
        unit="rel",
    )


@pytest.mark.parametrize("case", ["one", "low", "anchors_tie", "boxes_tie", "many"])
def test_matching(fidelity: Comparison, case: str) -> None:
    anchors, truth = grid_of(256, 320), tensor(f"matching/{case}/truth")
    iou = pairwise_iou(truth, anchors, "legacy")
    difference = max(
        largest(iou.amax(dim=1), EXPECTED[f"matching/{case}/best_iou"]),
        largest(iou[:8, ::50], EXPECTED[f"matching/{case}/iou_every_50th"]),
    )
    fidelity("IoU", against=MASKRCNN_BENCHMARK, on=case, difference=difference, bound=1e-6)
    for background in (0.4, 0.5):
        settings = MatchSettings(foreground_iou=0.5, background_iou=background, allow_low_quality=True)
        labels, matched = assign_anchors(anchors, truth, torch.arange(len(truth)), settings, "legacy")
        theirs = torch.from_numpy(EXPECTED[f"matching/{case}/matched_0.5_{background}"].astype(np.int64))
        assert BACKGROUND == -1  # theirs are the same numbers
        assert IGNORED == -2
        assert torch.equal(labels[labels >= 0], matched[labels >= 0])
        fidelity(
            f"matched boxes, background below {background}",
            against=MASKRCNN_BENCHMARK,
            on=f"{case}: {len(truth)} boxes, {len(anchors)} anchors",
            difference=int((labels != theirs).sum()),
            bound=0,
            unit="anchors",
        )


@pytest.mark.parametrize(("name", "case"), [("retinanet-r50-1x", "1x"), ("dr-r101-2x", "2x")])
def test_learning_rate_at_every_iteration(fidelity: Comparison, name: str, case: str) -> None:
    job, _ = jobs(recipe(Registry(), name), seed=0)
    groups = parameter_groups(nn.Conv2d(1, 1, 1), job.optimizer)
    starts, rates = EXPECTED[f"schedule/{case}/starts"], EXPECTED[f"schedule/{case}/rates_weight_bias"]
    theirs = np.repeat(rates, np.diff([*starts, job.schedule.iterations]), axis=0)
    base = [learning_rate(i, job.optimizer.lr, job.schedule) for i in range(job.schedule.iterations)]
    ours = np.outer(base, [group["lr_factor"] for group in groups])
    fidelity(
        "learning rates of weights and biases",
        against=MASKRCNN_BENCHMARK,
        on=f"{len(base):,} iterations ({case})",
        difference=float(np.abs(ours / theirs - 1).max()),
        bound=1e-12,
        unit="rel",
    )
    decays = [group["weight_decay"] for group in groups]
    assert decays == EXPECTED[f"schedule/{case}/weight_decay_weight_bias"].tolist()


def test_resize_rule(fidelity: Comparison) -> None:
    sides, images = EXPECTED["sizes/short_sides"].tolist(), EXPECTED["sizes/images_width_height"].tolist()
    ours = [[resized_size(w, h, short_side=side, max_size=1333)[::-1] for w, h in images] for side in sides]
    fidelity(
        "resized sizes",
        against=MASKRCNN_BENCHMARK,
        on="250 images (portrait, landscape, extreme), 14 short sides",
        difference=largest(ours, EXPECTED["sizes/resized_height_width"]),
        bound=0,
        unit="px",
    )


@pytest.mark.parametrize("case", ["portrait", "ratios_differ", "ratios_equal"])
def test_boxes_from_annotation_to_network_and_back(fidelity: Comparison, case: str) -> None:
    key = f"box_path/{case}"
    xywh = EXPECTED[f"{key}/annotated_xywh"].astype(np.float64)
    (width, height), (new_width, new_height) = EXPECTED[f"{key}/sizes_width_height"].tolist()
    edges = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    steps = {"read": from_edges(edges, "legacy")}
    corners, kept = trainable_corners(edges, width, height, "legacy")
    assert np.flatnonzero(kept).tolist() == EXPECTED[f"{key}/kept"].tolist()
    steps["clipped"] = corners[kept]
    steps["resized"] = corners[kept] * np.tile([new_width / width, new_height / height], 2)
    steps["flipped"] = mirrored(torch.from_numpy(steps["resized"]), new_width, "legacy").numpy()
    for step, ours in steps.items():
        fidelity(
            f"boxes {step}",
            against=MASKRCNN_BENCHMARK,
            on=f"{case}, {width}x{height}",
            difference=largest(ours, EXPECTED[f"{key}/{step}_xyxy"]),
            bound=1e-4,  # theirs are float32 of up to a thousand pixels
            unit="px",
        )
    back = steps["flipped"] * np.tile([width / new_width, height / new_height], 2)
    ends = to_edges(torch.from_numpy(back), "legacy").numpy()
    ends[:, 2:] -= ends[:, :2]
    difference = largest(ends, EXPECTED[f"{key}/flipped_back_xywh"])
    fidelity(
        "boxes as written",
        against=MASKRCNN_BENCHMARK,
        on=f"{case}, {width}x{height}",
        difference=difference,
        bound=1e-4,
        unit="px",
    )


@pytest.mark.parametrize("threshold", [0.4, 0.5])
def test_suppression(fidelity: Comparison, threshold: float) -> None:
    _, test = jobs(recipe(Registry(), "retinanet-r50-1x"), seed=0)
    boxes, scores = tensor("suppression/boxes"), tensor("suppression/scores")
    settings = replace(test, nms_iou=threshold, detections_per_image=300)
    found = merge_candidates([Candidates(boxes, scores, torch.zeros(300, dtype=torch.int64))], settings, "legacy")
    kept = {int((scores == score).nonzero()) for score in found["scores"]}
    theirs = set(EXPECTED[f"suppression/kept_{threshold}"].tolist())
    fidelity(
        f"survivors of NMS at {threshold}",
        against=f"{MASKRCNN_BENCHMARK} (rule of its CUDA kernel)",
        on="300 boxes",
        difference=len(kept ^ theirs),
        bound=0,
        unit="boxes",
    )


# By precision: of a loss; of the focal loss's gradient; of the regression loss's gradient.
LOSS_BOUNDS = {"float32": (1e-6, 1e-6, 1e-5), "float64": (1e-12, 1e-12, 1e-12)}


@pytest.mark.parametrize("background", [0.4, 0.5])
@pytest.mark.parametrize("dtype", LOSS_BOUNDS)
def test_normalised_losses_and_their_gradients(fidelity: Comparison, background: float, dtype: str) -> None:
    """In float64 to 1e-12; in float32, as training computes, as far as two machines agree.

    The regression loss's gradient is (delta - target) / beta. A target is 5 log(ratio of the sides): one float32 step
    of a target of 2.03, 2.4e-7, is 2.2e-6 of the largest gradient (beta 0.11). MKL's log takes other last bits with
    AVX-512 than without: there maskrcnn-benchmark itself is 2.2e-6 from its stored gradient, and the stored one is
    1.4e-6 from its float64 one. Hence 1e-5 for this one number.
    """
    model = model_for_losses(background)
    precision = getattr(torch, dtype)
    maps = {
        name: [tensor(f"losses/{name}_p{level}").to(precision).requires_grad_() for level in range(3, 8)]
        for name in ("logits", "deltas")
    }
    shapes = tuple((level.shape[-2], level.shape[-1]) for level in maps["logits"])
    anchors = grid_anchors(shapes, STRIDES, model.anchor_settings, image_shape=(64, 96))
    targets = [{"boxes": tensor(f"losses/truth_{i}"), "labels": tensor(f"losses/classes_{i}") - 1} for i in range(2)]
    anchors = tuple(level.to(precision) for level in anchors)  # the targets are computed in the anchors' precision
    losses = model.criterion(
        [_by_anchor(level, 5) for level in maps["logits"]],
        [_by_anchor(level, 4) for level in maps["deltas"]],
        anchors,
        *padded_targets(targets, like=anchors[0]),
    )
    loss_bound, *gradient_bounds = LOSS_BOUNDS[dtype]
    key, suffix = f"losses/0.5_{background}", "_float64" if dtype == "float64" else ""
    on = f"2 images, background below {background}"
    for ours, theirs, inputs, gradient, bound in (
        ("classification", "focal", "logits", "logit", gradient_bounds[0]),
        ("bbox_regression", "regression", "deltas", "delta", gradient_bounds[1]),
    ):
        fidelity(
            f"{theirs} loss, {dtype}",
            against=MASKRCNN_BENCHMARK,
            on=on,
            difference=relative(losses[ours].detach(), EXPECTED[f"{key}/{theirs}{suffix}"]),
            bound=loss_bound,
            unit="rel",
        )
        found = torch.autograd.grad(losses[ours], maps[inputs], retain_graph=True)
        expected = [EXPECTED[f"{key}/{gradient}_gradient_p{level}{suffix}"] for level in range(3, 8)]
        scale = max(float(np.abs(level).max()) for level in expected)
        difference = max(largest(a, b) for a, b in zip(found, expected, strict=True)) / scale
        fidelity(
            f"gradient of the {theirs} loss, {dtype}",
            against=MASKRCNN_BENCHMARK,
            on=on,
            difference=difference,
            bound=bound,
            unit="rel",
        )


def model_for_losses(background: float) -> RetinaNet:
    """The focal recipe's losses of 5 classes. The outputs of the network are given, so its body may be any."""
    resolution = recipe(Registry(), "retinanet-r50-1x")
    resolution.put("model.backbone", "slim", "test")
    resolution.put("model.norm", "group", "test")
    resolution.put("matching.background_iou", background, "test")
    job, test = jobs(resolution, seed=0)
    return build_model(job, num_classes=5, test=test, pretrained=False)


@pytest.mark.parametrize("case", ["image_0", "image_1", "both", "no_positive"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dr_loss_of_the_authors(fidelity: Comparison, case: str, dtype: str) -> None:
    flat, labels = tensor("losses/0.5_0.4/flat_logits"), our_labels(EXPECTED[f"losses/dr/{case}/labels"])
    rows = {"image_1": slice(1161, None), "both": slice(None)}.get(case, slice(0, 1161))
    logits = flat[rows].to(getattr(torch, dtype)).requires_grad_()
    loss = DRLoss()(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    bound = 1e-9 if dtype == "float64" else 1e-5
    key = f"losses/dr/{case}"
    on = f"{len(labels)} anchors, 5 classes ({case}, {dtype})"
    difference = relative(loss.detach(), EXPECTED[f"{key}/value_{dtype}"])
    fidelity("DR loss", against=DR_LOSS, on=on, difference=difference, bound=bound, unit="rel")
    difference = relative(gradient, EXPECTED[f"{key}/gradient_{dtype}"])
    fidelity("gradient of the DR loss", against=DR_LOSS, on=on, difference=difference, bound=bound, unit="rel")
