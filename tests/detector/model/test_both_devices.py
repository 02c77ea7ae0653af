"""What the detector does on a GPU equals what it does on the CPU, from pixels to losses and detections."""

from __future__ import annotations

import pytest
import torch

from detector.model.assign import assign_batch, assign_padded
from detector.model.postprocess import merge_candidates
from drloss import DRLoss, FocalLoss
from tests.devices import DEVICES
from tests.small_retinanet import MATCHING, build


def images_and_targets(device: str) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Four images of two sizes, and an image without boxes."""
    random = torch.Generator().manual_seed(0)
    images, targets = [], []
    for height, width, count in ((64, 90, 3), (50, 64, 1), (64, 64, 0), (33, 70, 5)):
        images.append(torch.randint(0, 256, (3, height, width), generator=random, dtype=torch.uint8).to(device))
        corners = torch.rand(count, 2, generator=random) * 30
        boxes = torch.cat((corners, corners + 3 + 20 * torch.rand(count, 2, generator=random)), dim=1)
        labels = torch.randint(0, 3, (count,), generator=random)
        targets.append({"boxes": boxes.to(device), "labels": labels.to(device)})
    return images, targets


@pytest.mark.parametrize("device", DEVICES)
def test_matching_is_the_same_in_loops_and_in_matrices(device: str) -> None:
    random = torch.Generator().manual_seed(1)
    anchors = torch.rand(500, 2, generator=random) * 60
    anchors = torch.cat((anchors, anchors + 4 + 20 * torch.rand(500, 2, generator=random)), dim=1)
    boxes = torch.rand(3, 7, 2, generator=random) * 50
    boxes = torch.cat((boxes, boxes + 4 + 20 * torch.rand(3, 7, 2, generator=random)), dim=2)
    labels = torch.randint(-1, 6, (3, 7), generator=random)
    expected = assign_batch(anchors, boxes, labels, MATCHING, "modern")
    here = [tensor.to(device) for tensor in (anchors, boxes, labels)]
    for way in (assign_batch, assign_padded):
        assigned, matched = way(*here, MATCHING, "modern")
        assert torch.equal(assigned.cpu(), expected[0])
        positive = expected[0] >= 0
        assert torch.equal(matched.cpu()[positive], expected[1][positive])


@pytest.mark.gpu
@pytest.mark.parametrize("loss", [DRLoss, FocalLoss])
def test_losses_and_gradients_are_those_of_the_cpu(loss: type[torch.nn.Module]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    found = []
    for device in ("cpu", "cuda"):
        model = build()
        model.criterion.classification_loss = loss()
        model.to(device).train()
        losses = model(*images_and_targets(device))
        sum(losses.values()).backward()
        gradients = [p.grad.cpu() for p in model.parameters() if p.grad is not None]
        found.append(({name: value.item() for name, value in losses.items()}, gradients))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    for here, expected in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(here, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.gpu
def test_detections_are_those_of_the_cpu() -> None:
    """From the same outputs of the head: candidates, NMS, and several scales of one image merged."""
    images, _ = images_and_targets("cpu")
    cpu, cuda = build().eval(), build().to("cuda").eval()
    with torch.inference_mode():
        torch.testing.assert_close(cuda.normalized_batch(images).cpu(), cpu.normalized_batch(images))
        cls_logits, deltas, anchors = cpu.head_outputs(images)
        there = ([x.cuda() for x in cls_logits], [x.cuda() for x in deltas], tuple(x.cuda() for x in anchors))
        found = [
            model.candidates(images, outputs)
            for model, outputs in ((cpu, (cls_logits, deltas, anchors)), (cuda, there))
        ]
        for chosen in (slice(0, 1), slice(0, 3)):
            expected, here = (merge_candidates(of[chosen], cpu.test, "modern") for of in found)
            assert len(expected["scores"]) == len(here["scores"]) > 0
            assert torch.equal(here["labels"].cpu(), expected["labels"])
            torch.testing.assert_close(here["scores"].cpu(), expected["scores"])
            torch.testing.assert_close(here["boxes"].cpu(), expected["boxes"], rtol=0, atol=1e-3)
