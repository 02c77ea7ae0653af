"""All pairs, value and gradients, against visiting each pair: the tiled double sum, and torch's broadcasting.

On the CPU one thread; the score sets and the logits are those of a trained detector's spread. A double sum that would
take minutes is measured on fewer negatives and scaled, as it is proportional to them; the row's note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.measure import Curve, Report, Row, compare, keep_freed_memory
from drloss.functional import all_pairs_loss
from drloss.labels import BACKGROUND
from drloss.pairs.mean import pair_mean
from drloss.pairs.tiled import TiledMean
from drloss.surrogates import Surrogate, hinge, logistic, quadratic

SURROGATES: dict[str, Surrogate] = {"logistic": logistic, "hinge": hinge, "quadratic": quadratic}
MARGIN = 0.5
TILED, BROADCAST = "the double sum, tile by tile", "torch's broadcasting, all pairs at once"
NUM_CLASSES = 80


class Work(NamedTuple):
    """p of the negatives and -p of the positives, float32; the peers may take fewer negatives."""

    negatives: Tensor
    positives: Tensor
    num_for_peer: int

    @property
    def text(self) -> str:
        return f"{len(self.positives):,} positives x {len(self.negatives):,} negatives"


def report(*, quick: bool) -> Report:
    """Rows, curves over both sets, and the relative errors. A minute; quick: seconds."""
    sizes = [(10_000, 2_000)] if quick else [(1_000_000, 20_000), (15_000_000, 20_000)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        works = [make_work(num_neg, 150, num_for_peer) for num_neg, num_for_peer in sizes]
        rows = [_row(work, name, peer) for work in works for name in SURROGATES for peer in (TILED, BROADCAST)]
        rows.append(_logits_row(*((1, 3_000) if quick else (2, 190_323))))
        return Report(rows=tuple(rows), curves=tuple(_curves(quick)), facts=_errors(4_000 if quick else 200_000))
    finally:
        torch.set_num_threads(threads)


def make_work(num_neg: int, num_pos: int, num_for_peer: int) -> Work:
    generator = torch.Generator().manual_seed(0)
    negatives = (torch.randn(num_neg, generator=generator) * 2 - 3).sigmoid().requires_grad_()
    positives = (-torch.randn(num_pos, generator=generator).sigmoid()).requires_grad_()
    return Work(negatives, positives, min(num_neg, num_for_peer))


def ours(negatives: Tensor, positives: Tensor, surrogate: Surrogate) -> tuple[Tensor, ...]:
    """Value and both gradients."""
    mean = pair_mean(negatives, positives, margin=MARGIN, surrogate=surrogate)
    return mean.detach(), *torch.autograd.grad(mean, (negatives, positives))


def tiled(negatives: Tensor, positives: Tensor, surrogate: Surrogate) -> tuple[Tensor, ...]:
    """Every pair, in tiles."""
    mean = TiledMean.apply(negatives, positives + MARGIN, surrogate)
    return mean.detach(), *torch.autograd.grad(mean, (negatives, positives))


def broadcast(negatives: Tensor, positives: Tensor, surrogate: Surrogate) -> tuple[Tensor, ...]:
    """As it is usually written."""
    mean = surrogate(negatives.unsqueeze(1) + positives + MARGIN).mean()
    return mean.detach(), *torch.autograd.grad(mean, (negatives, positives))


def _row(work: Work, name: str, peer: str) -> Row:
    surrogate, few = SURROGATES[name], work.negatives[: work.num_for_peer].detach().requires_grad_()
    theirs = tiled if peer == TILED else broadcast
    seconds = compare(
        {
            "ours": partial(ours, work.negatives, work.positives, surrogate),
            "peer": partial(theirs, few, work.positives, surrogate),
            "copy": _copy(work.negatives),
        },
        rounds=_rounds(work),
    )
    factor = len(work.negatives) / len(few)
    return Row(
        work=f"all pairs, {name}, value and gradients, {work.text}, float32, one thread",
        peer=peer,
        peer_seconds=seconds["peer"] * factor,
        seconds=seconds["ours"],
        limit="reading the scores twice and writing the gradient once, at the speed of a copy",
        limit_seconds=seconds["copy"] * 1.5,
        note="" if factor == 1 else f"the peer was measured on {len(few):,} negatives and scaled",
    )


def _logits_row(num_images: int, num_anchors: int) -> Row:
    """From the logits, against the same linear sums through masked selections of the scores."""
    logits = torch.randn(num_images, num_anchors, NUM_CLASSES, generator=torch.Generator().manual_seed(0)) * 2 - 3
    labels = torch.full((num_images, num_anchors), BACKGROUND)
    labels[:, :: max(1, num_anchors // 150)] = 11
    logits.requires_grad_()

    def step(fused: bool) -> Tensor:
        loss = all_pairs_loss(logits, labels, surrogate=logistic, fused=fused)
        return torch.autograd.grad(loss, logits)[0]

    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(step, True),
        "peer": partial(step, False),
        "copy": _copy(logits),
    }
    seconds = compare(candidates, rounds=3 if num_images > 1 else 1)
    return Row(
        work=f"All, logistic, forward and backward, {num_images} x {num_anchors:,} x {NUM_CLASSES}, one thread",
        peer="the scores selected by masks, then the same linear sums",
        peer_seconds=seconds["peer"],
        seconds=seconds["ours"],
        limit="reading the logits twice and writing the gradient once, at the speed of a copy",
        limit_seconds=seconds["copy"] * 1.5,
    )


def _copy(values: Tensor) -> Callable[[], object]:
    """Reads once and writes once, into memory that is allocated already."""
    return partial(torch.zeros_like(values).detach().copy_, values.detach())


def _curves(quick: bool) -> Iterator[Curve]:
    """Over the negatives for 150 positives, over the positives for 1 million negatives, over L of the logistic."""
    num_negs = (5_000, 10_000) if quick else (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
    num_poss = (10, 100) if quick else (10, 100, 1_000, 10_000)
    fixed = 5_000 if quick else 1_000_000
    works = [make_work(num, 150, num) for num in num_negs]
    yield _curve("All pairs over the negatives, 150 positives", "negatives", num_negs, works)
    works = [make_work(fixed, num, num) for num in num_poss]
    yield _curve(f"All pairs over the positives, {fixed:,} negatives", "positives", num_poss, works)
    scales, work = (0.5, 6.0, 30.0, 200.0), make_work(fixed, 150, fixed)
    seconds = [_seconds(work, partial(logistic, L=scale)) for scale in scales]
    yield Curve(title=f"Logistic over L, {work.text}", x="L", xs=scales, series={"logistic": tuple(seconds)})


def _curve(title: str, x: str, xs: tuple[int, ...], works: list[Work]) -> Curve:
    series = {name: tuple(_seconds(work, surrogate) for work in works) for name, surrogate in SURROGATES.items()}
    return Curve(title=title, x=x, xs=tuple(map(float, xs)), series=series, note="value and gradients, one thread")


def _seconds(work: Work, surrogate: Surrogate) -> float:
    return compare({"ours": partial(ours, work.negatives, work.positives, surrogate)}, rounds=_rounds(work))["ours"]


def _rounds(work: Work) -> int:
    """Small sets are a test's, that only looks whether all of it runs."""
    return 1 if len(work.negatives) < 50_000 else 3


def _errors(num_neg: int) -> dict[str, float | str]:
    """Largest relative error of the value, and of a gradient beside the largest gradient, against float64 pairs."""
    work = make_work(num_neg, 20, num_neg)
    facts: dict[str, float | str] = {}
    for name, surrogate in SURROGATES.items():
        found = ours(work.negatives, work.positives, surrogate)
        double = (part.detach().double().requires_grad_() for part in (work.negatives, work.positives))
        exact = tiled(*double, surrogate)
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
        facts[f"all pairs, {name}: relative error of the value, float32 scores"] = errors[0]
        facts[f"all pairs, {name}: largest error of a gradient, of the largest one"] = max(errors[1:])
    return facts
