"""What the package exports, what it imports, what it builds from data, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from math import log
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

import drloss
from drloss import CrossEntropyLoss, DRLoss, FocalLoss, build_loss
from drloss.config import LossConfig
from drloss.labels import BACKGROUND, IGNORED

LOSSES: list[nn.Module] = [DRLoss(), DRLoss(pairing="all"), DRLoss(scope="batch"), FocalLoss(), CrossEntropyLoss()]


def test_exported_names_are_pinned() -> None:
    assert drloss.__all__ == ["BACKGROUND", "IGNORED", "CrossEntropyLoss", "DRLoss", "FocalLoss", "build_loss"]
    assert all(hasattr(drloss, name) for name in drloss.__all__)
    assert set(drloss.__all__) <= set(dir(drloss))
    assert (BACKGROUND, IGNORED) == (-1, -2)


def test_functional_names_are_pinned() -> None:
    from drloss import functional

    assert functional.__all__ == [
        "all_pairs_loss",
        "cross_entropy_loss",
        "dr_loss",
        "expected_scores",
        "expected_value",
        "focal_loss",
        "hinge",
        "logistic",
        "make_surrogate",
        "neg_only_loss",
        "quadratic",
        "worst_case_loss",
    ]
    assert all(callable(getattr(functional, name)) for name in functional.__all__)


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'drloss' has no attribute 'DrLoss'"):
        _ = drloss.DrLoss


def test_import_does_not_import_torch() -> None:
    code = (
        "import sys, drloss, drloss.config; "
        "assert drloss.BACKGROUND == -1; assert 'torch' not in sys.modules; "
        "drloss.DRLoss; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def from_data(**fields: Any) -> nn.Module:
    return build_loss(msgspec.convert(fields, LossConfig))


def test_build_loss_of_defaults_equals_defaults_of_modules() -> None:
    logits, labels = torch.randn(2, 30, 4), torch.randint(IGNORED, 4, (2, 30))
    for tag, module in (("dr", DRLoss()), ("focal", FocalLoss()), ("cross_entropy", CrossEntropyLoss())):
        built = from_data(name=tag)
        assert type(built) is type(module)
        assert repr(built) == repr(module)
        assert torch.equal(built(logits, labels), module(logits, labels))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"name": "dr", "h_pos": 5.5, "h_neg": 20, "margin": 0.4, "tau": 2},
            DRLoss(lambda_pos=1 / log(5.5), lambda_neg=0.1 / log(20), margin=0.4, tau=2.0),
        ),
        ({"name": "dr", "h_neg": "e"}, DRLoss(lambda_neg=0.1)),
        ({"name": "dr", "surrogate": {"name": "logistic", "L": 8}}, DRLoss(L=8.0)),
        ({"name": "dr", "surrogate": {"name": "quadratic", "rho": 0.2}}, DRLoss(surrogate="quadratic", rho=0.2)),
        ({"name": "dr", "surrogate": {"name": "hinge"}, "pairing": "all"}, DRLoss(surrogate="hinge", pairing="all")),
        ({"name": "dr", "pairing": "neg_only", "scope": "batch"}, DRLoss(pairing="neg_only", scope="batch")),
        ({"name": "dr", "prior": {"name": "hard_negative", "ratio": 2}}, DRLoss(prior="hard_negative", ratio=2.0)),
        ({"name": "focal", "alpha": 0.5, "gamma": 1}, FocalLoss(alpha=0.5, gamma=1.0)),
        ({"name": "cross_entropy", "mining": "hard_negative"}, CrossEntropyLoss(mining="hard_negative")),
    ],
)
def test_build_loss_takes_every_field(fields: dict[str, Any], expected: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 30, 4, generator=generator)
    labels = torch.randint(IGNORED, 4, (2, 30), generator=generator)
    value = from_data(**fields)(logits, labels)
    assert torch.equal(value, expected(logits, labels))
    assert not torch.equal(value, from_data(name=fields["name"])(logits, labels))


def refuses(message: str) -> Any:
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize("name", ["lambda_pos", "lambda_neg", "tau", "L", "rho", "ratio"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_dr_loss_refuses_what_must_be_positive(name: str, value: float) -> None:
    with refuses(f"{name} = {value!r} is not valid. Valid: a number > 0"):
        DRLoss(**{name: value})  # type: ignore[arg-type]


def test_dr_loss_takes_infinite_lambda_only() -> None:
    assert DRLoss(lambda_pos=float("inf"), lambda_neg=float("inf"))(torch.zeros(4, 2), torch.zeros(4).long()).isfinite()
    for name in ("tau", "L", "rho", "ratio", "margin"):
        with refuses(f"{name} = inf is not valid"):
            DRLoss(**{name: float("inf")})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"surrogate": "log"}, "Unknown surrogate 'log'. Known: logistic, quadratic, hinge."),
        ({"pairing": "any"}, "Unknown pairing 'any'. Known: dr, neg_only, all, worst_case."),
        ({"scope": "gpu"}, "Unknown scope 'gpu'. Known: image, batch."),
        ({"prior": "ohem"}, "Unknown prior 'ohem'. Known: uniform, hard_negative."),
    ],
)
def test_dr_loss_refuses_unknown_names(arguments: dict[str, Any], message: str) -> None:
    with refuses(message):
        DRLoss(**arguments)


def test_baselines_refuse_values_out_of_range() -> None:
    with refuses("alpha = 1.5 is not valid. Valid: a finite number from 0 to 1."):
        FocalLoss(alpha=1.5)
    with refuses("gamma = -1 is not valid. Valid: a finite number from 0 to inf."):
        FocalLoss(gamma=-1)
    with refuses("Unknown mining 'ohem'. Known: none, hard_negative."):
        CrossEntropyLoss(mining="ohem")  # type: ignore[arg-type]
    with refuses("ratio = 0 is not valid. Valid: a number > 0 and finite."):
        CrossEntropyLoss(mining="hard_negative", ratio=0)


def test_functions_refuse_lambda_and_ratio_out_of_range() -> None:
    logits, labels = torch.zeros(3, 2), torch.tensor([0, BACKGROUND, IGNORED])
    with refuses("lambda_neg = 0.0 is not valid. Valid: a number > 0, or inf."):
        drloss.functional.dr_loss(logits, labels, lambda_neg=0.0)
    with refuses("hard negative ratio = -1 is not valid"):
        drloss.functional.cross_entropy_loss(logits, labels, hard_negative_ratio=-1)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(3, 2).long(), "labels of shape (3, 2), torch.int64 do not fit"),
        (torch.zeros(2, 3, 4), torch.zeros(6).long(), "Valid: (2, 3), torch.int64."),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3), "labels of shape (2, 3), torch.float32 do not fit"),
        (torch.zeros(3), torch.zeros(3).long(), "logits of shape (3,), torch.float32 do not fit"),
        (torch.zeros(2, 0, 4), torch.zeros(2, 0).long(), "logits of shape (2, 0, 4)"),
        (torch.zeros(2, 3, 4).long(), torch.zeros(2, 3).long(), "torch.int64 do not fit. Valid: floating point"),
        ([], torch.zeros(2, 3).long(), "Levels of shapes [] do not fit"),
        ([torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)], torch.zeros(2, 6).long(), "[(2, 3, 4), (2, 3, 5)] do not fit"),
        ([torch.zeros(3, 4)], torch.zeros(3).long(), "Levels of shapes [(3, 4)] do not fit"),
        (
            torch.zeros(1, 2, 4),
            torch.tensor([[0, 4]]),
            "Label 4 is not valid. Valid: 0 to 3 (classes), -1 (background)",
        ),
        (torch.zeros(1, 2, 4), torch.tensor([[0, -3]]), "Label -3 is not valid."),
    ],
)
def test_losses_refuse_inputs_that_do_not_fit(loss: nn.Module, logits: Any, labels: Tensor, message: str) -> None:
    with refuses(message):
        loss(logits, labels)
