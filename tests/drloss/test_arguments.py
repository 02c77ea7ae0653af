"""What is no tensor or no number gets the losses' own message: the argument, what was given, what is valid."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from drloss import BACKGROUND, CrossEntropyLoss, DRLoss, FocalLoss
from drloss.functional import (
    all_pairs_loss,
    cross_entropy_loss,
    dr_loss,
    expected_scores,
    focal_loss,
    hinge,
    logistic,
    neg_only_loss,
    quadratic,
    worst_case_loss,
)

LOGITS = torch.zeros(2, 10, 4)
LABELS = torch.full((2, 10), BACKGROUND).index_fill(1, torch.tensor([0]), 1)
MODULES = (DRLoss, FocalLoss, CrossEntropyLoss)
FUNCTIONS = (
    *(dr_loss, neg_only_loss, all_pairs_loss, worst_case_loss, expected_scores),
    *(focal_loss, cross_entropy_loss),
)
CALLS: tuple[Callable[..., Any], ...] = (*(module() for module in MODULES), DRLoss(fused=False), *FUNCTIONS)
WORDS = ("Valid: ", "Expected: ", "Known: ")
NO_LOGITS = {
    "a list of numbers": [[0.1, 0.2]],
    "an empty list": [],
    "an array": LOGITS.numpy(),
    "a list of arrays": [LOGITS.numpy()],
    "None": None,
    "text": "x",
    "a number": 5,
    "integers": LOGITS.long(),
    "booleans": LOGITS.bool(),
    "complex numbers": LOGITS.to(torch.complex64),
    "sparse": LOGITS.to_sparse(),
    "compressed rows": torch.zeros(10, 4).to_sparse_csr,
    "eight bits": LOGITS.to(torch.float8_e4m3fn),
    "without data": LOGITS.to("meta"),
    "four dimensions": LOGITS[None],
    "no dimension": torch.tensor(1.0),
    "no image": LOGITS[:0],
    "a mapping": {"logits": LOGITS},
    "a level that is None": (LOGITS, None),
    "a level of integers": [LOGITS[:, :5], LOGITS[:, 5:].long()],
    "a sparse level": [LOGITS.to_sparse()],
}
NO_LABELS = {
    "a list": LABELS.tolist(),
    "an array": LABELS.numpy(),
    "None": None,
    "text": "x",
    "32 bits": LABELS.int(),
    "floats": LABELS.float(),
    "booleans": LABELS.bool(),
    "complex numbers": LABELS.to(torch.complex64),
    "sparse": LABELS.to_sparse(),
    "without data": LABELS.to("meta"),
    "a list of tensors": [LABELS[0], LABELS[1]],
    "three dimensions": LABELS[..., None],
    "too few": LABELS[:, :5],
}
NO_NUMBERS = (None, "x", [1.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), True, 1j, {}, 10**400, object())


def message(call: Callable[[], object]) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("logits", NO_LOGITS.values(), ids=NO_LOGITS)
@pytest.mark.parametrize("loss", CALLS, ids=lambda loss: getattr(loss, "__name__", type(loss).__name__))
def test_what_are_no_logits_gets_the_losses_message(loss: Callable[..., Any], logits: Any) -> None:
    given = logits() if callable(logits) and not isinstance(logits, torch.Tensor) else logits
    text = message(lambda: loss(given, LABELS))
    assert any(word in text for word in WORDS)
    assert text.startswith(("logits", "Levels"))


@pytest.mark.parametrize("labels", NO_LABELS.values(), ids=NO_LABELS)
@pytest.mark.parametrize("loss", CALLS, ids=lambda loss: getattr(loss, "__name__", type(loss).__name__))
def test_what_are_no_labels_gets_the_losses_message(loss: Callable[..., Any], labels: Any) -> None:
    text = message(lambda: loss(LOGITS, labels))
    assert any(word in text for word in WORDS)
    assert "labels" in text


@pytest.mark.parametrize("loss", CALLS, ids=lambda loss: getattr(loss, "__name__", type(loss).__name__))
@pytest.mark.parametrize("count", ["2", 1.5, True, [1], 0, -1, float("nan"), np.float32(1), torch.tensor(0.5)], ids=str)
def test_a_number_of_images_is_whole(loss: Callable[..., Any], count: Any) -> None:
    if loss is expected_scores:  # has no groups
        return
    text = message(lambda: loss(LOGITS, LABELS, images_per_group=count))
    assert text.startswith("images_per_group")
    assert "a whole number, 1 or more" in text


def test_whole_numbers_of_numpy_and_torch_count_images() -> None:
    expected = FocalLoss()(LOGITS, LABELS, images_per_group=1)
    for count in (np.int64(1), torch.tensor(1)):
        assert torch.equal(FocalLoss()(LOGITS, LABELS, images_per_group=count), expected)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize("module", MODULES)
def test_what_is_no_hyperparameter_is_refused_by_name_when_a_loss_is_built(module: type, value: Any) -> None:
    for name in inspect.signature(module).parameters:
        if name == "fused" and value is True:
            continue
        text = message(lambda name=name: module(**{name: value}))  # type: ignore[misc]
        assert name in text
        assert any(word in text for word in WORDS)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_no_argument_is_refused_by_name_by_the_functions(function: Callable[..., Any], value: Any) -> None:
    optional = ("hard_negative_ratio", "images_per_group")
    for name in list(inspect.signature(function).parameters)[2:]:
        if (name == "fused" and value is True) or (name in optional and value is None):
            continue
        if name == "images_per_group" and type(value) is int:  # more than there are: one group
            continue
        if name == "margin" and isinstance(value, torch.Tensor):  # one margin per image
            continue
        text = message(lambda name=name: function(LOGITS, LABELS, **{name: value}))  # type: ignore[misc]
        assert name.replace("_", " ") in text.replace("_", " ")
        assert any(word in text for word in WORDS)


def test_numbers_of_numpy_and_of_torch_are_taken() -> None:
    for number in (np.float32(0.5), torch.tensor(0.5)):
        assert torch.equal(DRLoss(margin=number)(LOGITS, LABELS), DRLoss(margin=0.5)(LOGITS, LABELS))
        assert focal_loss(LOGITS, LABELS, alpha=number).item() == pytest.approx(
            focal_loss(LOGITS, LABELS, alpha=0.5).item()
        )


@pytest.mark.parametrize(
    "value", [None, [1.0], np.zeros(2), 1.0, torch.zeros(2).long()], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("surrogate", [hinge, quadratic, logistic])
def test_a_surrogate_takes_tensors_of_floats(surrogate: Callable[..., Any], value: Any) -> None:
    assert message(lambda: surrogate(value)).startswith("z is ")
