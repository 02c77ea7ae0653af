"""What a classification loss may ask of the criterion and give back to it, and what its own state changes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from detector.geometry.box_coder import encode
from detector.model import criterion as criteria
from detector.model.assign import padded_targets
from detector.model.criterion import Criterion, positive_ious, without_loss_state
from detector.runs.job import BoxConvention, RegressionSettings
from drloss import DRLoss
from drloss.labels import BACKGROUND, IGNORED
from tests.small_retinanet import MATCHING, build, image_of, target_of

UNIT = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.11, normalizer=4.0)
# Of the box (0, 0, 10, 10): equal to it, half of it (positive), four tenths (ignored), beside it (background).
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4.5], [20, 20, 30, 30]])
TARGET = target_of((0, 0, 10, 10), labels=[1])


def criterion_of(loss: nn.Module, images_per_group: int = 2) -> Criterion:
    return Criterion(
        loss,
        matching=MATCHING,
        regression=UNIT,
        images_per_group=images_per_group,
        box_convention="modern",
    )


def losses_of(loss: nn.Module, num_images: int, deltas: Tensor | None = None, **options: Any) -> dict[str, Tensor]:
    """On images of one box each, whose logits are all 0."""
    deltas = torch.zeros(num_images, 4, 4) if deltas is None else deltas
    logits = [torch.zeros(num_images, 3, 2), torch.zeros(num_images, 1, 2)]
    found: dict[str, Tensor] = criterion_of(loss, **options)(
        logits,
        [deltas[:, :3], deltas[:, 3:]],
        (ANCHORS[:3], ANCHORS[3:]),
        *padded_targets([TARGET] * num_images, like=ANCHORS),
    )
    return found


class ByIoU(nn.Module):
    """Keeps the overlaps that it was given."""

    wants_iou = True

    def forward(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int, ious: Tensor) -> Tensor:
        self.labels, self.ious = labels, ious
        return ious.sum()


class PerImage(nn.Module):
    """Returns the given values, whatever it is called with."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = torch.tensor(values)

    def forward(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int) -> Tensor:
        return self.values


class Weighted(nn.Module):
    """Has a buffer and a parameter of its own."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(6))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int) -> Tensor:
        return (torch.cat(logits, dim=1).sigmoid() * self.weight).mean() * self.scale


# Overlaps


def test_a_loss_that_asks_gets_the_iou_of_each_positives_decoded_box() -> None:
    loss = ByIoU()
    wider = torch.zeros(2, 4, 4, requires_grad=True)
    with torch.no_grad():
        wider[1, 0, 2] = torch.log(torch.tensor(2.0))  # image 1's first anchor says (-5, 0, 15, 10)

    found = losses_of(loss, 2, wider)

    assert loss.labels.tolist() == [[1, 1, IGNORED, BACKGROUND]] * 2
    torch.testing.assert_close(loss.ious, torch.tensor([[1.0, 0.5, 0, 0], [0.5, 0.5, 0, 0]]))
    assert loss.ious.dtype == torch.float32
    assert not loss.ious.requires_grad
    assert found["classification"] == loss.ious.sum()
    assert found["bbox_regression"].requires_grad


def test_overlaps_cost_nothing_where_no_loss_asks() -> None:
    with mock.patch.object(criteria, "positive_ious", side_effect=AssertionError("asked")):
        losses_of(DRLoss(), 2)
        with pytest.raises(AssertionError, match="asked"):
            losses_of(ByIoU(), 2)


@pytest.mark.parametrize(("convention", "expected"), [("modern", 50 / 100), ("legacy", 66 / 121)])
def test_overlaps_are_counted_in_the_models_convention(convention: BoxConvention, expected: float) -> None:
    # The anchor's own box, half of the image's; legacy pixels make it 11 x 6 of 11 x 11.
    labels, matched = torch.tensor([[0]]), torch.tensor([[0]])

    found = positive_ious(
        torch.zeros(1, 1, 4), ANCHORS[1:2], ANCHORS[None, :1], (labels, matched), UNIT.box_weights, convention
    )

    assert found.item() == pytest.approx(expected)


def test_overlaps_of_selected_positives_equal_those_by_way_of_all_anchors() -> None:
    random = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(80, 2, generator=random)
    boxes = torch.cat((corners, corners + 1 + 20 * torch.rand(80, 2, generator=random)), dim=1)
    anchors, truth = boxes[:60], boxes[60:].view(2, 10, 4)
    labels = torch.randint(-2, 2, (2, 60), generator=random)
    matched = torch.randint(0, 10, (2, 60), generator=random)
    wanted = truth.gather(1, matched[..., None].expand(-1, -1, 4))
    deltas = encode(wanted, anchors, UNIT.box_weights, "modern") + 0.1 * torch.randn(2, 60, 4, generator=random)

    selected = positive_ious(deltas, anchors, truth, (labels, matched), UNIT.box_weights, "modern")
    elsewhere = mock.Mock(type="cuda")
    with mock.patch.object(Tensor, "device", elsewhere):
        masked = positive_ious(deltas, anchors, truth, (labels, matched), UNIT.box_weights, "modern")

    assert (selected > 0).any()
    assert torch.equal(selected == 0, labels < 0)
    torch.testing.assert_close(selected, masked)
    decoded = criteria.decode(deltas, anchors, UNIT.box_weights, "modern")
    theirs = torch.stack([box_iou(decoded[n], wanted[n]).diagonal() for n in range(2)])
    torch.testing.assert_close(selected[labels >= 0], theirs[labels >= 0])


def test_overlaps_stay_float32_under_autocast() -> None:
    loss = ByIoU()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses_of(loss, 1, torch.full((1, 4, 4), 0.1, dtype=torch.bfloat16))
    assert loss.ious.dtype == torch.float32


# Values per image


def test_values_per_image_are_averaged_in_each_group_then_over_groups() -> None:
    # Groups (1, 3), (5, 7) and (100,): the means 2, 6 and 100.
    assert losses_of(PerImage([1.0, 3, 5, 7, 100]), 5)["classification"] == 36
    assert losses_of(PerImage([1.0, 3, 5, 7, 100]), 5, images_per_group=5)["classification"] == pytest.approx(23.2)
    assert losses_of(PerImage([4.0]), 1)["classification"] == 4


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 3.0]])
def test_values_of_another_number_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"PerImage returned values of shape \({len(values)},\) for 2 images"):
        losses_of(PerImage(values), 2)


# Rankings over the images of a group


def test_a_ranking_over_a_groups_images_does_not_depend_on_the_groups_beside_it() -> None:
    torch.manual_seed(0)
    criterion = criterion_of(DRLoss(scope="batch"))
    logits, deltas = torch.randn(4, 4, 2), [torch.zeros(4, 4, 4)]
    targets = [TARGET, target_of(), TARGET, TARGET]

    boxes, labels = padded_targets(targets, like=ANCHORS)
    together = criterion([logits], deltas, (ANCHORS,), boxes, labels)["classification"]
    alone = [
        criterion([logits[i : i + 2]], [torch.zeros(2, 4, 4)], (ANCHORS,), boxes[i : i + 2], labels[i : i + 2])
        for i in (0, 2)
    ]
    image_by_image = criterion_of(DRLoss())([logits], deltas, (ANCHORS,), boxes, labels)["classification"]

    torch.testing.assert_close(together, torch.stack([losses["classification"] for losses in alone]).mean())
    assert not torch.isclose(together, image_by_image)


# State


def model_with(loss: nn.Module) -> Any:
    model = build()
    model.criterion.classification_loss = loss
    return model


def test_names_in_a_state_dict_are_those_of_the_network_alone() -> None:
    names = set(model_with(DRLoss()).state_dict())
    assert {name.split(".")[0] for name in names} == {"backbone", "head"}
    assert set(model_with(Weighted()).state_dict()) - names == {
        "criterion.classification_loss.weight",
        "criterion.classification_loss.scale",
    }


@pytest.mark.parametrize(("trained", "used"), [(Weighted, DRLoss), (DRLoss, Weighted), (Weighted, Weighted)])
def test_detection_loads_weights_whatever_state_the_loss_had(trained: type[nn.Module], used: type[nn.Module]) -> None:
    state = {name: value + 1 for name, value in model_with(trained()).state_dict().items()}
    model = model_with(used())
    own = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("criterion.")}

    model.load_for_detection(state)

    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in without_loss_state(state).items())
    assert all(torch.equal(loaded[name], value) for name, value in own.items())


def test_detection_refuses_weights_that_are_not_whole() -> None:
    model = build()
    state = model.state_dict()
    del state["head.regression_head.bbox_reg.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*bbox_reg\.bias"):
        model.load_for_detection(state)
    with pytest.raises(RuntimeError, match="Unexpected key.*other"):
        model.load_for_detection({**model.state_dict(), "other": torch.ones(1)})


def test_a_losss_own_parameter_is_trained_and_its_buffer_goes_to_the_models_device() -> None:
    model = model_with(Weighted()).to("meta")
    assert model.criterion.classification_loss.weight.device.type == "meta"
    model = model_with(Weighted())
    sum(model([image_of(64, 64)], [target_of((8, 8, 40, 40))]).values()).backward()
    assert model.criterion.classification_loss.scale.grad != 0
