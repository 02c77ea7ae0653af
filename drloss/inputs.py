"""From logits and anchor labels to the two sets that are ranked: positive and negative entries of each image.

Legend: N images, R anchors of all levels together, K classes. An entry is an (anchor, class) pair. Positives are the
entries (j, k) with labels[j] == k; negatives are all other entries of anchors that are not ignored. So a matched anchor
has one positive entry and K - 1 negative ones (section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from drloss.checks import require_choice, require_count, require_positive
from drloss.labels import BACKGROUND, IGNORED

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Logits: TypeAlias = Tensor | Sequence[Tensor]
Scope: TypeAlias = Literal["image", "batch"]


class Entries(NamedTuple):
    """Both sets as logits with a mask. Row n is image n; only entries of the mask are in the set."""

    neg_logits: Tensor  # [N, R * K], anchor-major; or [N, M] with M of them at most
    is_neg: Tensor  # of that shape, bool
    pos_logits: Tensor  # [N, R]: an anchor has at most one positive entry; or [N, P]
    is_pos: Tensor  # of that shape, bool


@dataclass(frozen=True)
class Batch:
    """Checked input. Sets and groups are consecutive images; the last one may have fewer."""

    levels: list[Tensor]  # each [N, R_l, K]
    labels: Tensor  # [N, R]
    images_per_group: int  # images with one normaliser
    images_per_set: int  # images whose entries are ranked as one set: 1, or a group

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which a loss is computed and returned: float64 for float64 logits, else float32."""
        dtype = torch.float32
        for level in self.levels:
            dtype = torch.promote_types(dtype, level.dtype)
        return dtype

    @property
    def num_positives(self) -> Tensor:
        """[N] int64."""
        if self.labels.device.type == "cpu" and not is_transformed():
            return torch.bincount(positives(self.labels)[0], minlength=len(self.labels))
        return (self.labels >= 0).sum(dim=1)

    @property
    def set_of_image(self) -> list[int]:
        return [image // self.images_per_set for image in range(len(self.labels))]

    def by_set(self, values: Tensor, fill: float) -> Tensor:
        """[N, R, ...] by image to [S, images_per_set * R, ...] by set; missing images are filled with ``fill``."""
        missing = -len(values) % self.images_per_set
        if missing:
            values = torch.cat([values, values.new_full((missing, *values.shape[1:]), fill)])
        return values.reshape(-1, values.shape[1] * self.images_per_set, *values.shape[2:])

    def mean(self, of_sets: Tensor) -> Tensor:
        """Mean over groups of the mean over a group's sets, in ``dtype``. [S] -> scalar."""
        size = self.images_per_group // self.images_per_set
        if len(of_sets) % size:
            of_sets = torch.stack([group.mean() for group in torch.split(of_sets, size)])
        return of_sets.mean().to(self.dtype)


@contextmanager
def prepared(
    logits: Logits, labels: Tensor, *, scope: Scope = "image", images_per_group: int | None = None
) -> Iterator[Batch]:
    """Check the input and give it as levels; autocast is off inside the context.

    Takes logits [N, R, K] with labels [N, R]; [R, K] with [R] (one image); or a list of per-level [N, R_l, K] with the
    labels of all levels, [N, R]. scope: "image" ranks within each image, "batch" within each group.
    images_per_group: None makes one group of all images.

    Raises:
        TypeError: logits or labels are not tensors.
        ValueError: a shape, dtype or label does not fit. The range of labels is checked on a CPU only, because a GPU
            would make the step wait; there the result of a label out of range is undefined.
    """
    _require_tensors(logits, labels)
    require_choice("scope", scope, ("image", "batch"))
    if images_per_group is not None:
        require_count("images_per_group", images_per_group)
    levels = _fit_levels(logits)
    labels = _fit_labels(levels, labels)
    group = min(int(images_per_group or len(labels)), len(labels))
    with torch.autocast(levels[0].device.type, enabled=False):
        yield Batch(levels, labels, group, group if scope == "batch" else 1)


def _require_tensors(logits: Any, labels: Any) -> None:
    """Raises TypeError for numbers, arrays or None in the place of tensors."""
    wrong = ""
    if isinstance(logits, (list, tuple)):
        wrong = next(
            (f"a {type(logits).__name__} of {type(level).__name__}" for level in logits if not _is_tensor(level)), ""
        )
    elif not _is_tensor(logits):
        wrong = type(logits).__name__
    if wrong:
        raise TypeError(
            f"logits are {wrong}. Expected: a torch tensor of floats, [N, R, K] or [R, K], or a list of one "
            "[N, R_l, K] per pyramid level (N images, R anchors, K classes)."
        )
    if not _is_tensor(labels):
        raise TypeError(
            f"labels are {type(labels).__name__}. Expected: a torch tensor of int64, [N, R] or [R]: 0 .. K-1 a class, "
            f"{BACKGROUND} background, {IGNORED} ignored. Convert with torch.as_tensor(labels)."
        )
    levels = logits if isinstance(logits, (list, tuple)) else [logits]
    tensors: list[tuple[str, Tensor]] = [("labels", labels), *(("logits", level) for level in levels)]
    for name, tensor in tensors:
        _require_dense(name, tensor)
        if tensor.device != labels.device:
            raise ValueError(f"logits are on {tensor.device}, labels on {labels.device}. Valid: one device for all.")


def _require_dense(name: str, tensor: Tensor) -> None:
    """Raises ValueError for tensors whose elements cannot be read one by one: sparse, nested, quantised, on "meta"."""
    kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else ""
    kind = kind or ("" if tensor.layout is torch.strided else str(tensor.layout).removeprefix("torch."))
    kind = kind or ("without data (on the device meta)" if tensor.is_meta else "")
    if kind:
        raise ValueError(f"{name} are {kind}. Valid: dense tensors, such as {name}.to_dense() gives.")


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def positives(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Image and anchor of each positive among ``labels`` [N, R] on the CPU, in order.

    Found by numpy: torch's threads, once woken, spin for milliseconds on the cores that the passes' own threads need.
    """
    places = np.flatnonzero(labels.numpy() >= 0)
    image, anchor = np.divmod(places, labels.shape[1])
    return torch.from_numpy(image), torch.from_numpy(anchor)


def joined(batch: Batch) -> tuple[Tensor, Tensor]:
    """All levels as one tensor, by set: logits [S, R, K] in the batch's ``dtype`` and labels [S, R]."""
    logits = batch.levels[0] if len(batch.levels) == 1 else torch.cat(batch.levels, dim=1)
    return batch.by_set(logits.to(batch.dtype), 0.0), batch.by_set(batch.labels, IGNORED)


def _fit_levels(logits: Logits) -> list[Tensor]:
    """Levels [N, R_l, K] from any form of logits that ``prepared`` takes. Raises ValueError where none fits."""
    if isinstance(logits, Tensor):
        shape = tuple(logits.shape)
        levels = [logits if logits.dim() == 3 else logits.unsqueeze(0)]
    else:
        levels = list(logits)
        sizes = [tuple(level.shape) for level in levels]
        if not sizes or any(len(size) != 3 or (size[0], size[2]) != (sizes[0][0], sizes[0][2]) for size in sizes):
            raise ValueError(f"Levels of shapes {sizes} do not fit. Valid: at least one, each [N, R_l, K], same N, K.")
        shape = (sizes[0][0], sum(size[1] for size in sizes), sizes[0][2])
    other = next((level.dtype for level in levels if level.dtype not in FLOATS), None)
    if len(shape) not in (2, 3) or 0 in shape or other is not None:
        raise ValueError(
            f"logits of shape {shape}, {other or levels[0].dtype} do not fit. "
            "Valid: floating point of 16, 32 or 64 bits, [N, R, K] or [R, K], no dimension 0."
        )
    return levels


def _fit_labels(levels: Sequence[Tensor], labels: Tensor) -> Tensor:
    """``labels`` as [N, R], checked against ``levels`` [N, R_l, K]."""
    num_images, num_classes = levels[0].shape[0], levels[0].shape[2]
    num_anchors = sum(level.shape[1] for level in levels)
    if labels.dim() == 1 and num_images == 1:
        labels = labels.unsqueeze(0)
    if labels.shape != (num_images, num_anchors) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}, {labels.dtype} do not fit logits "
            f"{(num_images, num_anchors, num_classes)}. Valid: ({num_images}, {num_anchors}), torch.int64."
        )
    if labels.device.type == "cpu":
        values = labels if is_transformed() else labels.numpy()  # numpy, as in ``positives``
        low, high = int(values.min()), int(values.max())
        if low < IGNORED or high >= num_classes:
            raise ValueError(
                f"Label {low if low < IGNORED else high} is not valid. Valid: 0 to {num_classes - 1} (classes), "
                f"{BACKGROUND} (background), {IGNORED} (ignored)."
            )
    return labels


def split_entries(logits: Tensor, labels: Tensor, *, hard_negative_ratio: float | None = None) -> Entries:
    """Positive and negative entries of ``joined`` logits [N, R, K] and labels [N, R].

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


def is_transformed() -> bool:
    """Whether torch traces or transforms the running code, so that only its own functions will do."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
