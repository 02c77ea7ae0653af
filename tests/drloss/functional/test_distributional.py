"""The formulas against the paper's statements: propositions, theorem, limits, closed-form gradient, first loss."""

from __future__ import annotations

from functools import partial
from math import exp, inf, log

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, minimize
from torch import Tensor

from drloss import DRLoss
from drloss import functional as F
from drloss.inputs import mined_negatives
from drloss.labels import BACKGROUND, IGNORED

NUM_NEG, NUM_POS = 5, 4


def scores_case(negatives: list[float], positives: list[float]) -> tuple[Tensor, Tensor]:
    """One class and one anchor per score: float64 logits [R, 1] and labels [R]."""
    scores = torch.tensor(negatives + positives, dtype=torch.float64)
    labels = torch.tensor([BACKGROUND] * len(negatives) + [0] * len(positives))
    return scores.logit().unsqueeze(1), labels


def hardest_by_solver(values: np.ndarray, lambda_: float) -> float:
    """sum q v for the q on the simplex that maximises sum q v - lambda KL(q || uniform), by a generic convex solver."""
    num = len(values)

    def objective(q: np.ndarray) -> float:
        return float(-q @ values + lambda_ * np.sum(q * np.log(q * num)))

    solution = minimize(  # type: ignore[call-overload]
        objective,
        np.full(num, 1 / num),
        jac=lambda q: -values + lambda_ * (np.log(q * num) + 1),
        hess=lambda q: np.diag(lambda_ / q),
        method="trust-constr",
        bounds=Bounds(1e-9, 1.0),
        constraints=LinearConstraint(np.ones((1, num)), 1, 1),
        options={"gtol": 1e-11, "xtol": 1e-13, "barrier_tol": 1e-11, "maxiter": 2000},
    )
    return float(solution.x @ values)


@pytest.mark.filterwarnings("ignore:delta_grad == 0.0")  # scipy's remark on the linear constraint
@pytest.mark.parametrize("lambda_", [0.08, 0.5, 3.0])
def test_expected_scores_solve_the_regularised_problems_of_both_propositions(lambda_: float) -> None:
    random = np.random.default_rng(3)
    negatives, positives = random.uniform(0.05, 0.95, NUM_NEG), random.uniform(0.05, 0.95, NUM_POS)
    case = scores_case(negatives.tolist(), positives.tolist())
    p_neg, p_pos = F.expected_scores(*case, lambda_neg=lambda_, lambda_pos=lambda_)
    assert p_neg.item() == pytest.approx(hardest_by_solver(negatives, lambda_), abs=1e-5)
    assert p_pos.item() == pytest.approx(-hardest_by_solver(-positives, lambda_), abs=1e-5)
    # Between the mean and the extreme, strictly.
    assert negatives.mean() < p_neg.item() < negatives.max()
    assert positives.min() < p_pos.item() < positives.mean()


@pytest.mark.filterwarnings("ignore:delta_grad == 0.0")
def test_expected_scores_with_hard_negative_prior_solve_the_problem_on_its_support() -> None:
    negatives, positives = [0.1, 0.8, 0.3, 0.6, 0.7], [0.4]
    p_neg, _ = F.expected_scores(*scores_case(negatives, positives), lambda_neg=0.2, hard_negative_ratio=3)
    assert p_neg.item() == pytest.approx(hardest_by_solver(np.array([0.8, 0.6, 0.7]), 0.2), abs=1e-5)


@settings(max_examples=200, deadline=None)
@given(
    negatives=st.lists(st.floats(0.01, 0.6), min_size=1, max_size=6),
    positives=st.lists(st.floats(0.4, 0.99), min_size=1, max_size=6),
    margin=st.floats(0.0, 0.9),
)
def test_all_pairs_hinge_is_zero_exactly_if_every_pair_is_ranked_and_then_margin_separates(
    negatives: list[float], positives: list[float], margin: float
) -> None:
    """Theorem 2 and Corollary 1: then every positive is above the margin and every negative at most 1 - margin."""
    logits, labels = scores_case(negatives, positives)
    scores = logits.sigmoid().flatten()
    p_neg, p_pos = scores[labels < 0], scores[labels >= 0]
    slack = (p_pos.min() - p_neg.max()).item() - margin
    assume(abs(slack) > 1e-9)
    loss = F.all_pairs_loss(logits, labels, margin=margin).item()
    worst = F.worst_case_loss(logits, labels, margin=margin, surrogate=F.hinge).item()
    if slack > 0:  # every pair leads by margin
        assert loss == 0
        assert worst == 0
        assert (p_pos > margin).all()
        assert (p_neg <= 1 - margin).all()
    else:
        assert loss > 0
        assert worst == pytest.approx(-slack)
        # At least one pair misses the margin by -slack.
        assert loss >= -slack / (len(negatives) * len(positives)) * (1 - 1e-6)


def test_dr_loss_with_lambda_inf_ranks_means() -> None:
    case = scores_case([0.1, 0.3, 0.8], [0.9, 0.5])
    expected = 0.4 - 0.7 + 0.5
    assert F.dr_loss(*case, lambda_pos=inf, lambda_neg=inf, surrogate=F.hinge).item() == pytest.approx(expected)
    assert F.dr_loss(*case, lambda_pos=1e9, lambda_neg=1e9, surrogate=F.hinge).item() == pytest.approx(expected)


def test_dr_loss_with_lambda_to_zero_is_the_worst_case_with_its_gradient() -> None:
    logits, labels = scores_case([0.1, 0.8, 0.3, 0.8], [0.9, 0.5])  # a tie among the hardest
    logits.requires_grad_()
    (limit,) = torch.autograd.grad(F.dr_loss(logits, labels, lambda_pos=1e-4, lambda_neg=1e-4), logits)
    value = F.worst_case_loss(logits, labels)
    (grad,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(F.logistic(torch.tensor(0.8 - 0.5 + 0.5, dtype=torch.float64)).item())
    torch.testing.assert_close(grad, limit, rtol=1e-9, atol=1e-15)


def test_losses_approach_the_hinge_for_sharp_surrogates() -> None:
    case = scores_case([0.1, 0.3, 0.8], [0.9, 0.4])
    for loss in (F.dr_loss, F.neg_only_loss, F.all_pairs_loss, F.worst_case_loss):
        sharp = loss(*case, surrogate=F.hinge).item()
        assert sharp > 0
        for surrogate in (partial(F.logistic, L=1e6), partial(F.quadratic, rho=1e-6)):
            assert loss(*case, surrogate=surrogate).item() == pytest.approx(sharp, abs=1e-6)


@pytest.mark.parametrize("lambda_neg", [0.08, 1e-3])
def test_dr_loss_gradient_equals_the_closed_form(lambda_neg: float) -> None:
    lambda_pos, margin, L = 0.7, 0.4, 6.0
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(IGNORED, 3, (40,), generator=generator)
    loss = partial(F.dr_loss, labels=labels, lambda_pos=lambda_pos, lambda_neg=lambda_neg, margin=margin)
    grad = torch.func.grad(loss)(logits)

    p, expected = logits.sigmoid().numpy(), np.zeros((40, 3))
    positive = np.array([[labels[j] == k for k in range(3)] for j in range(40)])
    negative = ~positive & (labels.numpy()[:, None] != IGNORED)
    w_neg, w_pos = np.exp((p[negative] - 1) / lambda_neg), np.exp(-p[positive] / lambda_pos)
    q_neg, q_pos = w_neg / w_neg.sum(), w_pos / w_pos.sum()
    p_neg, p_pos = q_neg @ p[negative], q_pos @ p[positive]
    slope = 1 / (1 + exp(-L * (p_neg - p_pos + margin)))
    expected[negative] = slope * q_neg * (1 + (p[negative] - p_neg) / lambda_neg)
    expected[positive] = -slope * q_pos * (1 - (p[positive] - p_pos) / lambda_pos)
    np.testing.assert_allclose(grad.numpy(), expected * p * (1 - p), rtol=1e-9, atol=1e-14)
    single = torch.func.grad(loss)(logits.float()).double()
    assert (single - grad).abs().max() < 1e-5 * grad.abs().max() * max(1.0, 0.01 / lambda_neg)


def test_first_loss_of_a_fresh_detector_is_known() -> None:
    logits, labels = torch.zeros(1, 60, 80), torch.full((1, 60), BACKGROUND)
    assert DRLoss()(logits, labels).item() == pytest.approx(4 * log(2) / 6, rel=1e-6)  # 0.4621: l(gamma - 1/2)
    labels[0, :2] = 7
    assert DRLoss()(logits, labels).item() == pytest.approx(4 * log(1 + exp(3)) / 6, rel=1e-6)  # 2.0324


def test_surrogate_runs_without_autocast() -> None:
    seen = []

    def surrogate(z: Tensor) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), z.dtype))
        return F.hinge(z)

    logits, labels = scores_case([0.1, 0.3], [0.6])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in (F.dr_loss, F.neg_only_loss, F.worst_case_loss):
            loss(logits.half(), labels, surrogate=surrogate)
        F.all_pairs_loss(logits.half(), labels, surrogate=surrogate)
    assert seen == [(False, torch.float64)] * 4


def test_scope_batch_ranks_all_images_as_one_set() -> None:
    # One image has the only positive, the other the hardest negative.
    logits = torch.tensor([[0.6, 0.1], [0.2, 0.4]], dtype=torch.float64).logit().unsqueeze(2)
    labels = torch.tensor([[0, BACKGROUND], [BACKGROUND, BACKGROUND]])
    arguments = {"pairing": "worst_case", "surrogate": "hinge", "tau": 1.0}
    assert DRLoss(scope="batch", **arguments)(logits, labels).item() == pytest.approx(0.4 - 0.6 + 0.5)  # type: ignore[arg-type]
    # Image by image: 0.1 - 0.6 + 0.5 = 0 and 0.4 - 1 + 0.5 < 0.
    assert DRLoss(scope="image", **arguments)(logits, labels).item() == pytest.approx(0, abs=1e-15)  # type: ignore[arg-type]
    levels = [logits[:, :1], logits[:, 1:]]
    assert DRLoss(scope="batch", **arguments)(levels, labels).item() == pytest.approx(0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ratio", "num_positives", "kept"),
    [(3, 1, 3), (3, 2, 6), (0.5, 3, 2), (0.5, 5, 2), (0.7, 10, 7), (0.1, 1, 1), (3, 0, 1), (3, 50, 10), (1e9, 1, 10)],
    # 0.5 * 3 = 1.5 and 0.5 * 5 = 2.5 both round to 2; at least 1; at most the 10 negatives.
)
def test_mined_negatives_keep_ratio_times_positives(ratio: float, num_positives: int, kept: int) -> None:
    logits = torch.randn(1, 14, generator=torch.Generator().manual_seed(0))
    is_neg = torch.ones(1, 14, dtype=torch.bool)
    is_neg[0, [0, 5, 6, 13]] = False
    mask = mined_negatives(logits, is_neg, torch.tensor([num_positives]), ratio)[0]
    by_score = sorted((j for j in range(14) if is_neg[0, j]), key=lambda j: -logits[0, j].item())
    assert mask.nonzero().flatten().tolist() == sorted(by_score[:kept])


def test_mined_negatives_break_ties_by_lowest_index_image_by_image() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    is_neg = torch.tensor([[True, True, True, True], [False, True, True, True]])
    mask = mined_negatives(logits, is_neg, torch.tensor([1, 2]), 1.0)
    assert mask.tolist() == [[False, True, False, False], [False, True, True, False]]
    mask = mined_negatives(logits, is_neg, torch.tensor([3, 1]), 1.0)
    assert mask.tolist() == [[True, True, True, False], [False, True, False, False]]


def test_mined_negatives_break_ties_by_lowest_index_among_many() -> None:
    # Large enough that a sort that is not stable would show.
    logits = torch.zeros(1, 200_000)
    logits[0, ::3] = 1.0
    mask = mined_negatives(logits, torch.ones_like(logits, dtype=torch.bool), torch.tensor([100]), 3.0)
    assert mask.nonzero()[:, 1].tolist() == list(range(0, 900, 3))


def test_hard_negative_prior_sends_gradient_to_its_support_only() -> None:
    logits, labels = scores_case([0.1, 0.8, 0.3, 0.6, 0.7], [0.4, 0.2])
    for loss in (F.dr_loss, F.neg_only_loss, F.all_pairs_loss, F.cross_entropy_loss):
        x = logits.clone().requires_grad_()
        torch.autograd.backward(loss(x, labels, hard_negative_ratio=1.5))
        assert x.grad is not None
        assert (x.grad != 0).flatten().tolist() == [False, True, False, True, True, True, True]
