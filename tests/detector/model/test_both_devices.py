"""What has a way of its own on a CPU gives the same on a GPU; without one, what a GPU runs is run on the CPU.

The matching and the passes after convolutions are in tests/detector/kernels, the losses for classes in tests/drloss.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detector.device.precision import precision_context
from detector.geometry.box_coder import decode, encode
from detector.geometry.boxes import paired_iou
from detector.model import postprocess
from detector.model.assign import assign_batch, padded_targets
from detector.model.criterion import positive_ious
from detector.model.postprocess import Candidates, best_entries, image_candidates, merge_candidates
from detector.model.regression_loss import box_regression_loss, masked_losses, selected_losses
from detector.runs.job import BoxConvention, Precision
from tests.devices import host_never_waits
from tests.small_retinanet import MATCHING, REGRESSION, SLIM, TEST, build, image_of, target_of
from tests.triton_kernels import on_gpu

# "plain": the functions that a GPU runs, of torch, on the CPU.
WAYS = ["plain", pytest.param("cuda", marks=[on_gpu, pytest.mark.gpu])]
ON_GPU = pytest.mark.parametrize("device", [pytest.param("cuda", marks=[on_gpu, pytest.mark.gpu])])
TARGETS = [target_of((4, 4, 40, 50), (8, 30, 60, 62), labels=[1, 4]), target_of(), target_of((50, 3, 90, 60))]


def device_of(way: str, monkeypatch: pytest.MonkeyPatch) -> str:
    if way == "plain":
        monkeypatch.setattr(postprocess, "has_loops", lambda _: False)
        return "cpu"
    return way


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    corner = 80 * torch.rand(*shape, 2, generator=random)
    return torch.cat((corner, corner + 2 + 40 * torch.rand(*shape, 2, generator=random)), dim=-1)


def moved(values: Any, device: str) -> Any:
    return torch.utils._pytree.tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, values)


@pytest.mark.parametrize("way", WAYS)
def test_best_entries_are_the_same_where_enough_are_above(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randperm(20_000, generator=torch.Generator().manual_seed(0)).float() / 1000 - 10
    logits[::97] = torch.nan
    wanted = best_entries(logits, 300, 2.0)

    values, places = best_entries(logits.to(device_of(way, monkeypatch)), 300, 2.0)

    assert torch.equal(values.cpu(), wanted[0])
    assert torch.equal(places.cpu(), wanted[1])


def candidates(device: str, convention: BoxConvention, seed: int) -> Candidates:
    random = torch.Generator().manual_seed(seed)
    sizes = (700, 150, 3)
    logits = [torch.randperm(size * 6, generator=random).view(size, 6) / (size * 6) * 8 - 5 for size in sizes]
    deltas = [torch.randn(size, 4, generator=random) / 2 for size in sizes]
    anchors = [random_boxes(size, seed=seed + size) for size in sizes]
    return image_candidates(
        *moved((logits, deltas, anchors), device),
        image_shape=(90, 110),
        test=TEST,
        box_weights=(10.0, 10.0, 5.0, 5.0),
        convention=convention,
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("convention", ["modern", "legacy"])
def test_candidates_of_an_image_are_the_same(
    way: str, convention: BoxConvention, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = candidates("cpu", convention, 0)

    found = candidates(device_of(way, monkeypatch), convention, 0)

    assert len(wanted.labels) > 150
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_scales", [1, 3])
def test_detections_merged_from_scales_are_the_same(way: str, num_scales: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of_scales = [candidates("cpu", "legacy", seed) for seed in range(num_scales)]
    wanted = merge_candidates(of_scales, TEST, "legacy")

    device = device_of(way, monkeypatch)
    found = merge_candidates([Candidates(*moved(tuple(some), device)) for some in of_scales], TEST, "legacy")

    assert len(wanted["labels"]) == TEST.detections_per_image
    assert all(torch.equal(found[name].cpu(), wanted[name]) for name in wanted)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("beta", [0.0, 0.11])
def test_box_losses_over_all_anchors_are_those_over_positives(way: str, beta: float) -> None:
    device = "cpu" if way == "plain" else way
    deltas, anchors, boxes = torch.randn(3, 200, 4), random_boxes(200), random_boxes(3, 5, seed=1)
    assigned = (torch.randint(-2, 2, (3, 200)), torch.randint(0, 5, (3, 200)))
    settings = type(REGRESSION)(REGRESSION.box_weights, beta, REGRESSION.normalizer)
    wanted = selected_losses(deltas, anchors, boxes, assigned, settings, "legacy")

    found = masked_losses(*moved((deltas, anchors, boxes, assigned), device), settings, "legacy")

    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


@ON_GPU
@pytest.mark.parametrize("convention", ["modern", "legacy"])
def test_box_coding_and_ious_are_the_same(device: str, convention: BoxConvention) -> None:
    boxes, anchors, weights = random_boxes(500), random_boxes(500, seed=1), (10.0, 10.0, 5.0, 5.0)
    deltas = encode(boxes, anchors, weights, convention)
    decoded = decode(deltas, anchors, weights, convention)
    there = moved((boxes, anchors, deltas), device)

    torch.testing.assert_close(encode(*there[:2], weights, convention).cpu(), deltas, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decode(there[2], there[1], weights, convention).cpu(), decoded, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(paired_iou(*there[:2], convention).cpu(), paired_iou(boxes, anchors, convention))


@ON_GPU
def test_ious_of_positives_are_the_same(device: str) -> None:
    deltas, anchors, boxes = 0.1 * torch.randn(2, 90, 4), random_boxes(90), random_boxes(2, 4, seed=1)
    assigned = (torch.randint(-2, 2, (2, 90)), torch.randint(0, 4, (2, 90)))
    weights = (10.0, 10.0, 5.0, 5.0)
    wanted = positive_ious(deltas, anchors, boxes, assigned, weights, "legacy")

    found = positive_ious(*moved((deltas, anchors, boxes, assigned), device), weights, "legacy")

    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


@ON_GPU
@pytest.mark.parametrize("as_float", [False, True])
def test_normalised_images_are_the_same(device: str, as_float: bool) -> None:
    images = [image_of(40, 60, 0), image_of(64, 33, 1)]
    images = [image / 255 for image in images] if as_float else images
    model = build()
    wanted = model.normalized_batch(images)

    found = model.to(device).normalized_batch(images)

    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-6)
    assert found.stride() == wanted.stride()


@ON_GPU
@pytest.mark.parametrize(("norm", "head_norm"), [("frozen_batch", "none"), ("group", "group")])
def test_losses_gradients_and_detections_of_a_network_are_those_of_a_cpu(
    device: str, norm: str, head_norm: str
) -> None:
    model = build(SLIM | {"norm": norm, "head_norm": head_norm, "fpn_levels": (3, 7)})
    images = [image_of(64, 96, seed) for seed in range(3)]
    results: list[list[Tensor]] = []
    scores = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for place in ("cpu", device):
            model.to(place).train()
            losses = model(moved(images, place), moved(TARGETS, place))
            grads = torch.autograd.grad(sum(losses.values()), [p for p in model.parameters() if p.requires_grad])
            results.append([value.cpu() for value in (*losses.values(), *grads)])
            with torch.no_grad():
                scores.append(model.eval()(moved(images, place))[0]["scores"].cpu())
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.detach().abs().max()) + 1e-6)
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-5)


@ON_GPU
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_lower_precision_gives_losses_and_gradients_near_those_of_float32(device: str, precision: Precision) -> None:
    model = build(SLIM | {"norm": "frozen_batch", "head_norm": "none", "fpn_levels": (3, 7)}).to(device)
    images, targets = moved([image_of(64, 96, seed) for seed in range(3)], device), moved(TARGETS, device)
    results = []
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    kinds: tuple[Precision, Precision] = ("fp32", precision)
    try:
        for kind in kinds:
            with precision_context(kind, torch.device(device)):
                losses = model(images, targets)
            loss = sum(losses.values())
            grads = torch.autograd.grad(loss * 64, [p for p in model.parameters() if p.requires_grad])
            results.append((loss.detach(), torch.cat([grad.flatten() for grad in grads])))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    (loss, grad), (near_loss, near_grad) = results
    torch.testing.assert_close(near_loss, loss, rtol=0.05, atol=0.01)
    assert torch.nn.functional.cosine_similarity(near_grad, grad, dim=0) > 0.98


@ON_GPU
def test_matching_and_box_loss_never_make_the_host_wait(device: str) -> None:
    anchors, deltas = random_boxes(300).to(device), torch.randn(3, 300, 4, device=device, requires_grad=True)

    def run() -> Tensor:
        boxes, labels = padded_targets(TARGETS, like=anchors, capacity=8)
        assigned = assign_batch(anchors, boxes, labels, MATCHING, "legacy")
        loss = box_regression_loss(
            deltas, anchors, boxes, assigned, REGRESSION, convention="legacy", images_per_group=2
        )
        loss.backward()
        return loss.detach()

    wanted = run()
    with host_never_waits():
        found = run()
    assert torch.equal(found, wanted)


@ON_GPU
def test_network_passes_are_replayed_by_a_cuda_graph_to_the_same_bits(device: str) -> None:
    model = build(SLIM | {"norm": "frozen_batch", "head_norm": "none", "fpn_levels": (3, 7)}).to(device)
    images = torch.rand(2, 3, 64, 96, device=device).contiguous(memory_format=torch.channels_last)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def run() -> list[Tensor]:
        cls_logits, bbox_regression = model.head(model.backbone(images))
        total = sum(output.float().square().sum() for output in (*cls_logits, *bbox_regression))
        return list(torch.autograd.grad(total, parameters))

    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run()
        images.copy_(torch.rand_like(images))
        graph.replay()
        wanted = run()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(captured, wanted, strict=True))
