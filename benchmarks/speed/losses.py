"""The losses, forward and backward, against how they are usually written, and against what the memory can do.

On the CPU one thread; on a GPU where there is one. Legend: N images, R anchors, K classes.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import Curve, Report, Row, compare, keep_freed_memory
from benchmarks.speed.loss_peers import Loss, torchvision_focal, usual_cross_entropy, usual_dr
from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.functional import hinge, quadratic
from drloss.labels import BACKGROUND

# 800 x 1,344 pixels, padded: strides 8 to 128, nine anchors per place.
COCO_MAPS = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
ANCHORS_A_PLACE, NUM_CLASSES = 9, 80
NEW_MEMORY = (
    "Memory comes from the system for each tensor, and goes back, which is the C library's way unless it is told "
    "otherwise: on a virtual machine most of the time, and it varies by several times. In all other rows it is kept."
)
USUAL, TORCHVISION = "the usual formulation", "torchvision's sigmoid_focal_loss"


class Subject(NamedTuple):
    """A loss of ours and a peer that computes the same."""

    ours: Loss
    peer: str
    theirs: Loss
    goal: str = ""


class Input(NamedTuple):
    """Logits as a head writes them, [N, A * K, H, W] in channels last; labels [N, R]."""

    maps: list[Tensor]
    labels: Tensor

    @property
    def text(self) -> str:
        return f"{len(self.labels)} x {self.labels.shape[1]:,} x {NUM_CLASSES}"


def report(*, quick: bool) -> Report:
    """Rows on every device that is there, curves, and facts on memory and accuracy. Minutes; quick: seconds."""
    rows: list[Row] = []
    facts: dict[str, float | str] = {}
    with _one_thread():
        large = _inputs("cpu", quick)[0]
        facts |= _memory(large)
        chosen = {name: subject._replace(goal="") for name, subject in subjects().items() if subject.goal}
        new = list(_rows(large, chosen, rounds=1 if quick else 7, new_memory=True))
        keep_freed_memory()
        for device in ("cpu", "cuda")[: 2 if torch.cuda.is_available() else 1]:
            for given in _inputs(device, quick):
                rows += _rows(given, subjects(), rounds=1 if quick else 7)
            rows += [] if quick else _compiled_row(_inputs(device, quick)[0], facts)
        facts |= _accuracy(1_000 if quick else 190_323)
        rows += new
        curves = _curves(quick)
    return Report(rows=tuple(rows), curves=curves, facts=facts)


def subjects() -> dict[str, Subject]:
    """All losses that have a peer; the peers of DR rank all images as one set, so ours does too."""
    batch = partial(DRLoss, scope="batch")
    return {
        "DR loss": Subject(batch(), USUAL, usual_dr, ">= 10x"),
        "DR loss, quadratic": Subject(batch(surrogate="quadratic"), USUAL, partial(usual_dr, surrogate=quadratic)),
        "DR loss, hinge": Subject(batch(surrogate="hinge"), USUAL, partial(usual_dr, surrogate=hinge)),
        "NegOnly": Subject(batch(pairing="neg_only"), USUAL, partial(usual_dr, each_positive=True)),
        "DR loss, hard negatives": Subject(
            batch(prior="hard_negative"), f"{USUAL}, topk", partial(usual_dr, negatives_a_positive=3.0)
        ),
        "focal loss": Subject(
            partial(FocalLoss(normalizer="positives"), images_per_group=1), TORCHVISION, torchvision_focal, ">= 5x"
        ),
        "cross entropy": Subject(CrossEntropyLoss(), "torch's binary_cross_entropy_with_logits", usual_cross_entropy),
    }


def make_input(
    maps: Sequence[tuple[int, int]], num_images: int = 1, *, every: int = 4000, device: str = "cpu"
) -> Input:
    """Random logits of a trained detector's spread; one anchor in ``every`` is positive, of class 11."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for height, width in maps:
        logits = torch.randn(num_images, height, width, ANCHORS_A_PLACE * NUM_CLASSES, generator=generator) * 2 - 3
        made.append(logits.to(device).permute(0, 3, 1, 2).requires_grad_())
    num_anchors = sum(height * width for height, width in maps) * ANCHORS_A_PLACE
    labels = torch.full((num_images, num_anchors), BACKGROUND, device=device)
    labels[:, ::every] = 11
    return Input(made, labels)


def step(loss: Loss, given: Input) -> tuple[Tensor, ...]:
    """Forward and backward: the value and the gradients by the head's maps."""
    levels = [part.permute(0, 2, 3, 1).reshape(len(part), -1, NUM_CLASSES) for part in given.maps]
    value = loss(levels, given.labels)
    return value.detach(), *torch.autograd.grad(value, given.maps)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _inputs(device: str, quick: bool) -> list[Input]:
    if quick:
        return [make_input([(8, 8), (4, 4)], 2, every=50, device=device)]
    return [make_input(COCO_MAPS, 2, device=device), make_input([(100, 111)], device=device)]


def _wait(given: Input) -> Callable[[], object]:
    return torch.cuda.synchronize if given.labels.is_cuda else lambda: None


def _where(given: Input) -> str:
    return torch.cuda.get_device_name() if given.labels.is_cuda else "one thread"


def _rows(given: Input, chosen: dict[str, Subject], *, rounds: int, new_memory: bool = False) -> Iterator[Row]:
    source = torch.zeros(sum(part.numel() for part in given.maps), device=given.labels.device)
    target = torch.zeros_like(source)
    for name, subject in chosen.items():
        candidates: dict[str, Callable[[], object]] = {
            "ours": partial(step, subject.ours, given),
            "theirs": partial(step, subject.theirs, given),
            "copy": partial(target.copy_, source),
        }
        seconds = compare(candidates, rounds=rounds, warmup=min(rounds, 2), wait=_wait(given))
        where = _where(given) + (", new memory" if new_memory else "")
        yield Row(
            work=f"{name}, forward and backward, {given.text}, float32, {where}",
            peer=subject.peer,
            peer_seconds=seconds["theirs"],
            seconds=seconds["ours"],
            limit="reading the logits twice and writing the gradient, at the speed of a copy",
            limit_seconds=1.5 * seconds["copy"],  # a copy reads once and writes once
            goal=subject.goal,
            note=NEW_MEMORY if new_memory else "",
        )


def _compiled_row(given: Input, facts: dict[str, float | str]) -> list[Row]:
    """torch.compile of our own formulas in plain torch. Where it has no compiler, a fact says so."""
    name = f"torch.compile of plain torch, {given.text}, {_where(given)}"
    if not given.labels.is_cuda and shutil.which("g++") is None:
        facts[name] = "not measured: g++ is not there"
        return []
    torch._logging.set_logs(dynamo=logging.ERROR)  # of the checks of labels, which it runs uncompiled, it warns
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # of a CUDA compiler, which is not asked for
    compiled = torch.compile(DRLoss(fused=False))
    seconds = compare(
        {"ours": partial(step, DRLoss(), given), "theirs": partial(step, compiled, given)}, rounds=3, wait=_wait(given)
    )
    work = f"DR loss, forward and backward, {given.text}, float32, {_where(given)}"
    peer = "torch.compile of plain torch"
    return [Row(work=work, peer=peer, peer_seconds=seconds["theirs"], seconds=seconds["ours"])]


def _curves(quick: bool) -> tuple[Curve, ...]:
    """How a step's time grows on one thread of the CPU, and with the number of threads."""
    dr: dict[str, Loss] = {"ours": DRLoss(scope="batch"), USUAL: usual_dr}
    sides = (6, 12) if quick else (34, 67, 105, 149, 211)  # 10,000 to 400,000 anchors
    anchors = [make_input([(side, side)]) for side in sides]
    steps = (100, 10) if quick else (90_000, 900, 90, 9)
    positives = [make_input([(sides[0] * 2, sides[0] * 2)], every=every) for every in steps]
    images = [make_input([(sides[0], sides[0])], number) for number in ((1, 2) if quick else (1, 2, 4, 8, 16))]
    counts = sorted({1, 2, os.cpu_count() or 1}) if quick else sorted({1, 2, 4, 8, os.cpu_count() or 1})
    threads = [number for number in counts if number <= (os.cpu_count() or 1)]
    ours: dict[str, Loss] = {"DR loss": DRLoss(), "focal loss": FocalLoss(), "cross entropy": CrossEntropyLoss()}
    return (
        _curve("Loss over anchors", "anchors", [float(i.labels.shape[1]) for i in anchors], dr, anchors),
        _curve("Loss over positives", "positives", [float((i.labels >= 0).sum()) for i in positives], dr, positives),
        _curve("Loss over images", "images", [float(len(i.labels)) for i in images], dr, images),
        _curve("Loss over threads", "threads", [float(n) for n in threads], ours, [anchors[-1]] * len(threads)),
    )


def _curve(title: str, x: str, xs: list[float], losses: dict[str, Loss], inputs: list[Input]) -> Curve:
    # Small inputs are a test's, that only looks whether all of it runs.
    found: dict[str, list[float]] = {name: [] for name in losses}
    rounds = 3 if max(given.labels.numel() for given in inputs) > 10_000 else 1
    for value, given in zip(xs, inputs, strict=True):
        torch.set_num_threads(int(value) if x == "threads" else 1)
        seconds = compare({name: partial(step, loss, given) for name, loss in losses.items()}, rounds=rounds)
        for name in found:
            found[name].append(seconds[name])
    torch.set_num_threads(1)
    note = f"Forward and backward, K = {NUM_CLASSES}, float32" + (", one thread" if x != "threads" else "")
    return Curve(title=title, x=x, xs=tuple(xs), series={name: tuple(ys) for name, ys in found.items()}, note=note)


def _memory(given: Input) -> dict[str, float | str]:
    """Peak memory of a step beyond what was held before, in gradients. Read from Linux' /proc, else left out."""
    reset, size = Path("/proc/self/clear_refs"), sum(part.nbytes for part in given.maps)
    if not reset.exists():
        return {}
    found: dict[str, float | str] = {}
    for name, subject in subjects().items():
        for who, loss in (("ours", subject.ours), (subject.peer, subject.theirs)):
            step(loss, given)
            ctypes.CDLL(None).malloc_trim(0)  # kept memory would be used again, and the peak not be seen
            before = _status("VmRSS")
            reset.write_text("5")
            step(loss, given)
            found[f"{name}, {who}: peak memory of a step / gradient"] = round((_status("VmHWM") - before) / size, 2)
    return found


def _status(name: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _accuracy(num_anchors: int) -> dict[str, float | str]:
    """Relative error of values against float64, and of gradients against the largest of each, at one image's size."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, num_anchors, NUM_CLASSES, generator=generator) * 2 - 3
    labels = torch.full((1, num_anchors), BACKGROUND)
    labels[0, :: num_anchors // 4] = 11
    entries = f"{logits.numel():,} logits"
    losses: dict[str, tuple[nn.Module, Loss]] = {
        "DR loss": (DRLoss(fused=False), usual_dr),
        "focal loss": (FocalLoss(normalizer="positives", fused=False), torchvision_focal),
    }
    found: dict[str, float | str] = {}
    for name, (exact, usual) in losses.items():
        fast = DRLoss() if name == "DR loss" else FocalLoss(normalizer="positives")
        value, grad = _value_and_gradient(exact, logits.double(), labels)
        for who, loss in (("ours", fast), (subjects()[name].peer, usual)):
            close, slope = _value_and_gradient(loss, logits, labels)
            found[f"{name}, {who}: error at {entries}"] = float(f"{abs(close / value - 1).item():.1e}")
            error = (slope - grad).abs().max() / grad.abs().max()
            found[f"{name}, {who}: error of the gradient at {entries}"] = float(f"{error.item():.1e}")
    return found


def _value_and_gradient(loss: Callable[..., Tensor], logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss([leaf], labels)
    return value.detach().double(), torch.autograd.grad(value, leaf)[0].double()
