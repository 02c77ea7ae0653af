"""From logits and anchor labels to the two sets that are ranked: positive and negative entries of each image.

Legend: N images, R anchors of all levels together, K classes; an entry is an (anchor, class) pair. Positives are the
entries (j, k) with labels[j] == k; negatives are all other entries of anchors that are not ignored, so that a matched
anchor contributes K - 1 negatives (section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from drloss import BACKGROUND, IGNORED
from drloss.checks import require_positive

Logits: TypeAlias = Tensor | Sequence[Tensor]


class Entries(NamedTuple):
    """Both sets as logits with a mask. Row n holds image n; what the mask excludes is not in the set."""

    neg_logits: Tensor  # [N, R * K], anchor-major
    is_neg: Tensor  # [N, R * K] bool
    pos_logits: Tensor  # [N, R]: an anchor has at most one positive entry
    is_pos: Tensor  # [N, R] bool


@contextmanager
def prepared(logits: Logits, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Checked logits [N, R, K] in float32 (float64 stays) and labels [N, R]; autocast is off inside.

    Takes logits [N, R, K] with labels [N, R]; [R, K] with [R] (one image); or a list of per-level [N, R_l, K] with the
    labels of all levels, [N, R].

    Raises:
        ValueError: a shape, dtype or label does not fit. The range of labels is checked on the CPU only: on a GPU it
            would make the step wait. There, a label >= K trips the device's index assertion, and one below
            ``IGNORED`` counts as background.
    """
    joined = join_levels(logits)
    labels = _fit_labels(joined, labels)
    dtype = torch.promote_types(joined.dtype, torch.float32)
    with torch.autocast(joined.device.type, enabled=False):
        yield joined.to(dtype), labels


def join_levels(logits: Logits) -> Tensor:
    """One tensor [N, R, K] from any form of logits that ``prepared`` takes. Raises ValueError where none fits."""
    if not isinstance(logits, Tensor):
        sizes = [tuple(level.shape) for level in logits]
        if not sizes or any(len(size) != 3 or (size[0], size[2]) != (sizes[0][0], sizes[0][2]) for size in sizes):
            raise ValueError(f"Levels of shapes {sizes} do not fit. Valid: at least one, each [N, R_l, K], same N, K.")
        logits = torch.cat(list(logits), dim=1)
    if logits.dim() not in (2, 3) or logits.numel() == 0 or not logits.is_floating_point():
        raise ValueError(
            f"logits of shape {tuple(logits.shape)}, {logits.dtype} do not fit. "
            "Valid: floating point [N, R, K] or [R, K], no dimension 0."
        )
    return logits if logits.dim() == 3 else logits.unsqueeze(0)


def as_one_set(logits: Logits, labels: Tensor) -> tuple[Tensor, Tensor]:
    """All images' anchors as one image's: logits [1, N * R, K] and labels [1, N * R]. Raises as ``prepared``."""
    joined = join_levels(logits)
    return joined.flatten(0, 1).unsqueeze(0), _fit_labels(joined, labels).reshape(1, -1)


def _fit_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """``labels`` as [N, R], checked against ``logits`` [N, R, K]."""
    num_images, num_anchors, num_classes = logits.shape
    if labels.dim() == 1 and num_images == 1:
        labels = labels.unsqueeze(0)
    if labels.shape != (num_images, num_anchors) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype} do not fit logits {tuple(logits.shape)}. "
            f"Valid: ({num_images}, {num_anchors}), torch.int64."
        )
    if labels.device.type == "cpu":
        low, high = (bound.item() for bound in torch.aminmax(labels))
        if low < IGNORED or high >= num_classes:
            raise ValueError(
                f"Label {low if low < IGNORED else high} is not valid. Valid: 0 to {num_classes - 1} (classes), "
                f"{BACKGROUND} (background), {IGNORED} (ignored)."
            )
    return labels


def split_entries(logits: Tensor, labels: Tensor, *, hard_negative_ratio: float | None = None) -> Entries:
    """Positive and negative entries of ``prepared`` logits [N, R, K] and labels [N, R].

    hard_negative_ratio: None keeps all negatives (uniform prior); else o_j in {0, 1 / n^}, "Hard negative mining" of
        section 3.2: see ``mined_negatives``.
    """
    num_classes = logits.shape[2]
    is_pos = labels >= 0
    is_neg = torch.arange(num_classes, device=labels.device) != labels.unsqueeze(2)
    is_neg &= (labels != IGNORED).unsqueeze(2)
    neg_logits, is_neg = logits.flatten(1), is_neg.flatten(1)
    if hard_negative_ratio is not None:
        is_neg = mined_negatives(neg_logits, is_neg, is_pos.sum(dim=1), hard_negative_ratio)
    pos_logits = logits.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
    return Entries(neg_logits, is_neg, pos_logits, is_pos)


def mined_negatives(neg_logits: Tensor, is_neg: Tensor, num_pos: Tensor, ratio: float) -> Tensor:
    """Mask of the highest-scoring negatives of each image: n^ = ``ratio`` * positives of them. [N, M] bool.

    n^ is rounded to the nearest integer (halves to even), then at least 1 and at most the number of negatives. The
    paper leaves the count open; 3 is SSD's (Liu et al., 2016, section 2.2). Among equal logits the lower index is
    kept. No gradient flows through the choice. neg_logits, is_neg: [N, M]; num_pos: [N].
    """
    require_positive("hard negative ratio", ratio)
    count = (num_pos * float(ratio)).round().clamp(min=1)
    # A stable sort, not topk: topk breaks ties arbitrarily and would need the count on the host.
    order = neg_logits.detach().masked_fill(~is_neg, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(neg_logits.shape[1], device=neg_logits.device)
    kept = torch.zeros_like(is_neg).scatter_(1, order, ranks < count.unsqueeze(1))
    return kept & is_neg
