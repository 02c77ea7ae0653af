"""All pairs straight from logits against the same sets made by hand; the arithmetic itself is tested in test_mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from drloss.labels import BACKGROUND, IGNORED
from drloss.pairs import grid, passes_cpu
from drloss.pairs.from_logits import pair_means
from drloss.surrogates import Surrogate, hinge, logistic, quadratic

SURROGATES = [hinge, quadratic, logistic]


@pytest.fixture(autouse=True)
def however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The linear way for few pairs too, in many chunks and pieces."""
    monkeypatch.setattr(grid, "FEW_PAIRS", 0)
    monkeypatch.setattr(grid, "CELLS_PER_SCALE", 8)
    monkeypatch.setattr(passes_cpu, "CHUNK", 50)
    monkeypatch.setattr(passes_cpu, "PIECE", 20)


def batch(num_classes: int, dtype: torch.dtype = torch.float32, num_images: int = 3) -> tuple[list[Tensor], Tensor]:
    """Two levels of 70 and 30 anchors; image 1 has no positive, the others have 6 each in both levels."""
    generator = torch.Generator().manual_seed(num_classes)
    levels = [torch.randn(num_images, rows, num_classes, generator=generator).to(dtype) for rows in (70, 30)]
    labels = torch.full((num_images, 100), BACKGROUND)
    labels[:, ::9] = IGNORED
    for image in range(0, num_images, 2):
        anchors = [1, 20, 69, 70, 80, 98]
        labels[image, anchors] = torch.randint(num_classes, (6,), generator=generator)
    return levels, labels


def by_hand(
    levels: Sequence[Tensor], labels: Tensor, margin: float, surrogate: Surrogate, images_per_set: int
) -> Tensor:
    """[S], in float64, from the matrix of pairs."""
    logits = torch.cat(list(levels), dim=1).double()
    means = []
    for x, y in zip(logits.split(images_per_set), labels.split(images_per_set), strict=True):  # type: ignore[no-untyped-call]
        x, y = x.flatten(0, 1), y.flatten()
        classes = torch.arange(x.shape[1])
        is_neg = (classes != y.unsqueeze(1)) & (y != IGNORED).unsqueeze(1)
        negatives, positives = x[is_neg].sigmoid(), x[classes == y.unsqueeze(1)].sigmoid()
        positives = positives if len(positives) else torch.ones(1).double()
        means.append(surrogate(negatives.unsqueeze(1) - positives + margin).mean())
    return torch.stack(means)


def computed(
    levels: Sequence[Tensor], labels: Tensor, margin: float, surrogate: Surrogate, images_per_set: int = 1
) -> Tensor | None:
    return pair_means(levels, labels, margin=margin, surrogate=surrogate, images_per_set=images_per_set)


def gradients(means: Tensor, levels: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a sum in which each set has another weight."""
    return list(torch.autograd.grad((means * torch.arange(1.0, len(means) + 1)).sum(), levels))


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("num_classes", [1, 7, 40])
@pytest.mark.parametrize("images_per_set", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_pair_means_equal_those_by_hand(
    surrogate: Surrogate, num_classes: int, images_per_set: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    levels, labels = batch(num_classes)
    levels = [level.requires_grad_() for level in levels]
    surrogate = partial(logistic, L=0.5) if surrogate is logistic else surrogate  # few negatives suffice
    expected = by_hand(levels, labels, 0.3, surrogate, images_per_set)
    means = computed(levels, labels, 0.3, surrogate, images_per_set)
    assert means is not None
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=0)
    for found, wanted in zip(gradients(means, levels), gradients(expected, levels), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-9)
        assert torch.equal(found == 0, wanted == 0) or surrogate is not hinge


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pair_means_of_lower_precision_are_float64_with_gradients_in_their_own(dtype: torch.dtype) -> None:
    levels, labels = batch(7, dtype)
    levels = [level.requires_grad_() for level in levels]
    expected = by_hand(levels, labels, 0.5, hinge, 1)
    means = computed(levels, labels, 0.5, hinge)
    assert means is not None
    assert means.dtype == torch.float64
    torch.testing.assert_close(means, expected, rtol=1e-6, atol=0)
    tolerance = 2 * torch.finfo(dtype).eps
    for found, wanted in zip(gradients(means, levels), gradients(expected, levels), strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=1e-6)


def test_pair_means_take_levels_as_a_network_lays_them_out() -> None:
    levels, labels = batch(7)
    turned = [level.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for level in levels]
    levels = [level.requires_grad_() for level in levels]
    means, same = (computed(each, labels, 0.5, quadratic) for each in (levels, turned))
    assert means is not None
    assert same is not None
    assert torch.equal(means, same)
    for found, wanted in zip(gradients(same, turned), gradients(means, levels), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_pair_means_are_nan_where_a_negative_or_a_positive_is(surrogate: Surrogate) -> None:
    surrogate = partial(logistic, L=0.5) if surrogate is logistic else surrogate
    levels, labels = batch(7)
    levels[0][0, 2, 3] = torch.nan
    levels[1][2, 0, labels[2, 70]] = torch.nan
    levels[0][:, 0] = torch.nan  # ignored
    means = computed(levels, labels, 0.5, surrogate)
    assert means is not None
    assert means.isnan().tolist() == [True, False, True]


def test_pair_means_take_infinite_logits_as_scores_0_and_1() -> None:
    levels, labels = batch(7)
    levels[0][0, 2, 3], levels[0][0, 2, 4] = torch.inf, -torch.inf
    levels = [level.requires_grad_() for level in levels]
    means = computed(levels, labels, 0.5, hinge)
    assert means is not None
    torch.testing.assert_close(means, by_hand(levels, labels, 0.5, hinge, 1), rtol=1e-6, atol=0)
    assert gradients(means, levels)[0][0, 2, 3:5].tolist() == [0.0, 0.0]


def test_pair_means_leave_to_others_what_they_cannot_do_better(monkeypatch: pytest.MonkeyPatch) -> None:
    levels, labels = batch(7)
    assert computed(levels, labels, 0.5, torch.exp) is None
    assert computed(levels, labels, 0.5, partial(logistic, L=1e3)) is None
    assert computed([level.to("meta") for level in levels], labels, 0.5, hinge) is None
    assert computed([level.double() for level in levels], labels, 0.5, hinge) is None
    assert computed(levels, labels.clamp(max=IGNORED), 0.5, hinge) is None  # no negatives
    monkeypatch.setattr(grid, "FEW_PAIRS", 10_000)
    assert computed(levels, labels, 0.5, hinge) is None
