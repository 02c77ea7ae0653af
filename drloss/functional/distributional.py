"""The ranking losses as pure functions, one formula each (section 3 of the DR loss paper, CVPR 2020).

Legend: N images, R anchors, K classes. Every loss takes ``logits`` and ``labels`` in any form of ``inputs.prepared``
and returns the mean over images (with groups: over groups), a scalar of the logits' dtype (float32 for half precision).
It is not multiplied by tau.

**Values.** All sums are over values v: p for a negative, -p for a positive. In both sets the harder entry is then the
larger one, Propositions 1 and 2 are one formula, and z = P- - P+ + margin is a sum.

**Empty sets.** An empty set scores perfectly. Without positives that is the paper's rule, P+ = 1 (below Eq. 9): for
every pairing, one constant positive with p = 1. Without negatives there is one constant negative with p = 0. So an
image with neither adds the constant l(margin - 1), the least that an image can add, with gradient 0.

**Accuracy.** One image can have 15 million entries. Sums over entries are therefore taken in float64, without a float64
copy of the logits (all pairs excepted).

**Two ways.** The code below is written as the formulas are, and autograd can differentiate it any number of times. With
``fused``, the default, the work on tensors of the logits' size is done by the rooms ``fused`` and ``pairs`` instead,
where ``kernels.dispatch`` finds a backend: the same values and first derivatives, several times as fast, in no more
memory than the gradient takes. On a GPU that is the whole loss (``fused.on_gpu``), the surrogate included.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from drloss.checks import require_flag, require_function, require_number, require_positive
from drloss.fused import on_gpu
from drloss.fused import two_passes as fused_passes
from drloss.fused.hardest_entries import hardest_entries
from drloss.fused.hardest_on_gpu import expected_negative, expected_values, extremes
from drloss.inputs import Batch, Entries, Logits, Scope, joined, prepared, split_entries
from drloss.kernels.dispatch import backend_for
from drloss.pairs.from_logits import pair_means
from drloss.pairs.mean import pair_mean
from drloss.surrogates import Surrogate, hinge, logistic

LAMBDA_POS = 1.0  # 1 / log(h+) with h+ = e, Table 1
LAMBDA_NEG = 0.1 / math.log(3.5)  # 0.1 / log(h-) with h- = 3.5, Table 1
MARGIN = 0.5


def dr_loss(
    logits: Logits,
    labels: Tensor,
    *,
    lambda_pos: float = LAMBDA_POS,
    lambda_neg: float = LAMBDA_NEG,
    margin: float = MARGIN,
    surrogate: Surrogate = logistic,
    hard_negative_ratio: float | None = None,
    scope: Scope = "image",
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """Distributional ranking, Eq. 9: l(P- - P+ + margin), with P-, P+ of Eq. 6; the gradient flows through the weights.

    lambda_pos, lambda_neg: > 0, inf for the plain mean. hard_negative_ratio: see ``inputs.mined_negatives``.
    scope, images_per_group: see ``inputs.prepared``. fused: see the module's docstring.
    Raises ValueError for a lambda out of range, and as ``inputs.prepared``.
    """
    _check(margin, surrogate, hard_negative_ratio, fused, lambda_pos=lambda_pos, lambda_neg=lambda_neg)
    with prepared(logits, labels, scope=scope, images_per_group=images_per_group) as batch:
        if fused and hard_negative_ratio is None:
            lambdas = {"lambda_pos": lambda_pos, "lambda_neg": lambda_neg}
            loss = on_gpu.dr(batch, **lambdas, margin=margin, surrogate=surrogate)
            if loss is not None:
                return loss
        if fused and hard_negative_ratio is not None:
            values = expected_values(batch, lambda_pos=lambda_pos, lambda_neg=lambda_neg, ratio=hard_negative_ratio)
            if values is not None:
                return batch.mean(surrogate(values[0] + values[1] + margin))
        p_neg, pos_values, is_pos = _ranked(batch, lambda_neg, hard_negative_ratio, fused)
        return batch.mean(surrogate(p_neg + expected_value(pos_values, is_pos, lambda_pos) + margin))


def neg_only_loss(
    logits: Logits,
    labels: Tensor,
    *,
    lambda_neg: float = LAMBDA_NEG,
    margin: float = MARGIN,
    surrogate: Surrogate = logistic,
    hard_negative_ratio: float | None = None,
    scope: Scope = "image",
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """The NegOnly row of Table 3: mean over positives j of l(P- - p_j + margin). Arguments as ``dr_loss``."""
    _check(margin, surrogate, hard_negative_ratio, fused, lambda_neg=lambda_neg)
    with prepared(logits, labels, scope=scope, images_per_group=images_per_group) as batch:
        if fused and hard_negative_ratio is None:
            loss = on_gpu.neg_only(batch, lambda_neg=lambda_neg, margin=margin, surrogate=surrogate)
            if loss is not None:
                return loss
        p_neg, pos_values, is_pos = _ranked(batch, lambda_neg, hard_negative_ratio, fused)
        losses = surrogate(p_neg.unsqueeze(1) + pos_values.double() + margin)
        # Without positives all slots hold the constant positive's value: their mean is its loss.
        counted = is_pos | ~is_pos.any(dim=1, keepdim=True)
        return batch.mean(losses.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1))


def all_pairs_loss(
    logits: Logits,
    labels: Tensor,
    *,
    margin: float = MARGIN,
    surrogate: Surrogate = hinge,
    hard_negative_ratio: float | None = None,
    scope: Scope = "image",
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """The All row of Table 3, Eqs. 3 and 4: mean over all n+ n- pairs of l(p_neg - p_pos + margin).

    Linear in n+ + n- for the surrogates of this package. Another one visits every pair: the amount of work depends on
    their number, so a GPU waits for the host a few times per image. Arguments and errors as ``dr_loss``.
    """
    _check(margin, surrogate, hard_negative_ratio, fused)
    with prepared(logits, labels, scope=scope, images_per_group=images_per_group) as batch:
        if fused and hard_negative_ratio is None and backend_for(batch.levels) is not None:
            sets = batch.images_per_set
            means = pair_means(batch.levels, batch.labels, margin=margin, surrogate=surrogate, images_per_set=sets)
            if means is not None:
                return batch.mean(means)
        entries = _entries(batch, hard_negative_ratio, fused)
        losses = []
        for neg_logits, is_neg, pos_logits, is_pos in zip(*entries, strict=True):
            negatives = neg_logits.masked_select(is_neg).sigmoid()
            positives = -pos_logits.masked_select(is_pos).sigmoid()
            pair = _or_constant(negatives, 0.0), _or_constant(positives, -1.0)
            losses.append(pair_mean(*pair, margin=margin, surrogate=surrogate))
        return batch.mean(torch.stack(losses))


def worst_case_loss(
    logits: Logits,
    labels: Tensor,
    *,
    margin: float = MARGIN,
    surrogate: Surrogate = logistic,
    hard_negative_ratio: float | None = None,
    scope: Scope = "image",
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """Eq. 5: l(max p_neg - min p_pos + margin), the limit of ``dr_loss`` for both lambdas -> 0.

    Entries that share the extreme share its gradient evenly, as in the limit. Arguments and errors as ``dr_loss``.
    """
    _check(margin, surrogate, hard_negative_ratio, fused)
    with prepared(logits, labels, scope=scope, images_per_group=images_per_group) as batch:
        values = extremes(batch) if fused else None
        if values is not None:
            return batch.mean(surrogate(values[0] + values[1] + margin))
        entries = _entries(batch, hard_negative_ratio, fused, extremes_only=True)
        hardest = _neg_values(entries).amax(dim=1).double() + _pos_values(entries).amax(dim=1).double()
        return batch.mean(surrogate(hardest + margin))


def expected_scores(
    logits: Logits,
    labels: Tensor,
    *,
    lambda_pos: float = LAMBDA_POS,
    lambda_neg: float = LAMBDA_NEG,
    hard_negative_ratio: float | None = None,
    fused: bool = True,
) -> tuple[Tensor, Tensor]:
    """P- and P+ of Eq. 6, each [N] float64; P- = 0 and P+ = 1 for an empty set. Arguments and errors as ``dr_loss``."""
    _check(MARGIN, logistic, hard_negative_ratio, fused, lambda_pos=lambda_pos, lambda_neg=lambda_neg)
    with prepared(logits, labels) as batch:
        if fused and hard_negative_ratio is None:
            scores = on_gpu.expected_scores(batch, lambda_pos=lambda_pos, lambda_neg=lambda_neg)
            if scores is not None:
                return scores
        p_neg, pos_values, is_pos = _ranked(batch, lambda_neg, hard_negative_ratio, fused)
        return p_neg, -expected_value(pos_values, is_pos, lambda_pos)


def expected_value(values: Tensor, candidates: Tensor, lambda_: float) -> Tensor:
    """Expectation of each row under its hardest distribution, Eq. 6 with Propositions 1 and 2. [N] float64.

    sum_j q_j v_j with q_j proportional to exp(v_j / lambda) over the candidates: the q that maximises
    sum_j q_j v_j - lambda KL(q || uniform). With v = p it is P-, with v = -p it is -P+. Its gradient by v_j is
    q_j (1 + (v_j - P) / lambda), and exactly 0 outside the candidates.

    values: [N, M] float32 or float64, outside the candidates the smallest value there can be, which is also the result
    for a row without candidates; candidates: [N, M] bool; lambda_: > 0, inf for the mean.
    """
    require_positive("lambda", lambda_, or_inf=True)
    # Relative to the largest value: exp cannot overflow, the largest weight is 1, no digits cancel for small lambda.
    largest = values.detach().amax(dim=1, keepdim=True)
    below = values - largest
    weights = hardest_weights(below, candidates, lambda_)
    # At least 1 (the largest weight) unless the row is empty; then 0 / 1.
    normalizer = weights.sum(dim=1, dtype=torch.float64).clamp(min=1.0)
    return (weights * below).sum(dim=1, dtype=torch.float64) / normalizer + largest.squeeze(1)


def hardest_weights(below: Tensor, candidates: Tensor, lambda_: float) -> Tensor:
    """q_j of Propositions 1 and 2 up to its normaliser: exp(below_j / lambda), 0 outside the candidates. [N, M].

    below: each value less the largest one of its row. Divided by their sum over a row, the weights are q.
    """
    return (below / lambda_).masked_fill_(~candidates, -torch.inf).exp_()


def _check(
    margin: float, surrogate: Surrogate, hard_negative_ratio: float | None, fused: bool, **lambdas: float
) -> None:
    """Raises TypeError or ValueError, with the argument's name, for a value that no ranking loss can take."""
    if not isinstance(margin, Tensor):
        require_number("margin", margin)
    require_function("surrogate", surrogate)
    require_flag("fused", fused)
    if hard_negative_ratio is not None:
        require_positive("hard negative ratio", hard_negative_ratio)
    for name, value in lambdas.items():
        require_positive(name, value, or_inf=True)


def _ranked(
    batch: Batch, lambda_neg: float, hard_negative_ratio: float | None, fused: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """P- [S] float64, and the values of the positives [S, P] with their mask."""
    found = None
    if fused and hard_negative_ratio is None:
        found = fused_passes.expected_negative(batch, lambda_neg) or on_gpu.expected_negative(batch, lambda_neg)
    if found is not None:
        p_neg, pos_logits, is_pos = found
        return p_neg, _scores_of_positives(pos_logits, is_pos), is_pos
    if fused and hard_negative_ratio is not None:
        found = expected_negative(batch, lambda_neg, hard_negative_ratio)
        if found is not None:
            return found[0], _scores_of_positives(found[1], found[2]), found[2]
    entries = _entries(batch, hard_negative_ratio, fused)
    return expected_value(_neg_values(entries), entries.is_neg, lambda_neg), _pos_values(entries), entries.is_pos


def _entries(batch: Batch, hard_negative_ratio: float | None, fused: bool, *, extremes_only: bool = False) -> Entries:
    """Both sets. With ``fused``, only the negatives that count, where these are few."""
    if fused and (extremes_only or hard_negative_ratio is not None):
        entries = hardest_entries(batch, None if extremes_only else hard_negative_ratio)
        if entries is not None:
            return entries
    return split_entries(*joined(batch), hard_negative_ratio=hard_negative_ratio)


def _neg_values(entries: Entries) -> Tensor:
    """p of each negative, elsewhere exactly 0 with gradient 0, whatever the logit. [N, R * K]."""
    return entries.neg_logits.masked_fill(~entries.is_neg, -torch.inf).sigmoid()


def _pos_values(entries: Entries) -> Tensor:
    """-p of each positive, elsewhere exactly -1. [N, R]."""
    return _scores_of_positives(entries.pos_logits, entries.is_pos)


def _scores_of_positives(pos_logits: Tensor, is_pos: Tensor) -> Tensor:
    """-p of each positive, elsewhere exactly -1 with gradient 0, whatever the logit. [N, R]."""
    return -pos_logits.masked_fill(~is_pos, torch.inf).sigmoid()


def _or_constant(values: Tensor, constant: float) -> Tensor:
    """``values``, or one constant where there are none: part of the graph, with gradient 0. [M] -> [max(M, 1)]."""
    return values if len(values) else torch.cat([values, values.new_full((1,), constant)])
