"""The losses on a GPU, forward and backward, beside their peers and the speed of the memory.

2 images are a group of the paper, 16 its batch. N images, R anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.device import (
    bytes_per_second,
    captured,
    device_of,
    name_of,
    num_kernels,
    peak_bytes,
    steady,
)
from benchmarks.measure import Goal, Report, Row
from benchmarks.speed.loss_peers import TAU, Loss
from benchmarks.speed.losses import COCO_MAPS, Input, Subject, make_input, step, subjects
from drloss import DRLoss
from drloss.functional import hinge, logistic, quadratic
from drloss.functional.distributional import MARGIN
from drloss.labels import IGNORED
from drloss.surrogates import Surrogate

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
LIMIT = "reading the logits twice and writing the gradient, at the speed of a copy"
SURROGATES: dict[str, Surrogate] = {"logistic": logistic, "hinge": hinge, "quadratic": quadratic}
SHARES = {torch.float32: 80.0, torch.bfloat16: 70.0}  # goals at 16 images, percent of the limit
LEFT_OUT = ("DR loss, quadratic", "DR loss, hinge")  # the same kernels as the logistic one


def report(*, quick: bool) -> Report:
    """Rows for 2 and 16 images in two precisions, and all pairs of one image. A minute; quick: seconds."""
    device = device_of(quick=quick)
    speed = bytes_per_second(device, quick=quick)
    rows: list[Row] = []
    goals: list[Goal] = []
    facts: dict[str, float | str] = {f"copy on {name_of(device)}, TB/s": speed / 1e12}
    for num_images in (2, 3) if quick else (2, 16):
        for dtype in DTYPES:
            given = input_on(device, num_images, dtype, quick=quick)
            found = rows_of(given, speed, quick=quick, facts=facts)
            rows += found.values()
            goals += goals_of(found, given, dtype)
            del given
    rows += _captured_rows(device, speed, quick=quick, facts=facts)
    pairs, pair_goals = pair_rows(device, speed, quick=quick)
    return Report(rows=(*rows, *pairs), goals=(*goals, *pair_goals), facts=facts)


def input_on(device: torch.device, num_images: int, dtype: torch.dtype, *, quick: bool) -> Input:
    """Random logits of a trained detector's spread, one anchor in 4,000 positive."""
    maps = [(8, 8), (4, 4)] if quick else COCO_MAPS
    given = make_input(maps, num_images, every=50 if quick else 4000, device=str(device))
    return given._replace(maps=[part.detach().to(dtype).requires_grad_() for part in given.maps])


def rows_of(given: Input, speed: float, *, quick: bool, facts: dict[str, float | str]) -> dict[str, Row]:
    """A row for each loss, by its name; peak memory and the number of kernels become facts."""
    device, size = given.labels.device, sum(part.nbytes for part in given.maps)
    rows = {}
    for name, subject in subjects().items():
        if name in LEFT_OUT:
            continue
        work = {"ours": partial(step, subject.ours, given), "theirs": partial(step, subject.theirs, given)}
        seconds = steady({"ours": work["ours"]}, device, rounds=1 if quick else 7, repeats=1 if quick else 10)
        seconds |= steady({"theirs": work["theirs"]}, device, rounds=1 if quick else 3, repeats=1)
        rows[name] = _row(name, given, subject, seconds, 3 * size / speed)
        print(f"{rows[name].work}: {1e3 * rows[name].seconds:.2f} ms", flush=True)  # shown even if time runs out
        for who in work:
            if (peak := peak_bytes(work[who], device)) is not None:
                told = "ours" if who == "ours" else subject.peer
                facts[f"{_title(name, given)}, {told}: peak memory of a step / gradient"] = round(peak / size, 2)
        if (kernels := num_kernels(work["ours"], device)) is not None:
            facts[f"{_title(name, given)}: kernels of a step"] = kernels
    return rows


def _row(name: str, given: Input, subject: Subject, seconds: dict[str, float], limit: float) -> Row:
    return Row(
        work=f"{_title(name, given)}, {name_of(given.labels.device)}",
        peer=subject.peer,
        peer_seconds=seconds["theirs"],
        seconds=seconds["ours"],
        limit=LIMIT,
        limit_seconds=limit,
    )


def _title(name: str, given: Input) -> str:
    return f"{name}, forward and backward, {given.text}, {DTYPES[given.maps[0].dtype]}"


def goals_of(rows: dict[str, Row], given: Input, dtype: torch.dtype) -> list[Goal]:
    """At the paper's batch a share of the limit; at one group, where launches count, a multiple of it."""
    goals = []
    for name, row in rows.items():
        limit = row.limit_seconds or 0.0
        if name == "DR loss, hard negatives":
            ratio = row.seconds / rows["DR loss"].seconds
            goals.append(Goal(what=_title(name, given), value=ratio, unit="x DR's time", goal=2))
        elif len(given.labels) == 2:
            goals.append(Goal(what=_title(name, given), value=row.seconds / limit, unit="x the limit", goal=4))
        else:
            share, goal = 100 * limit / row.seconds, SHARES[dtype]
            goals.append(Goal(what=_title(name, given), value=share, unit="% of the limit", goal=goal, at_least=True))
    return goals


def _captured_rows(device: torch.device, speed: float, *, quick: bool, facts: dict[str, float | str]) -> list[Row]:
    """DR and focal at one group, eager and as a CUDA graph, which is how a training runs them."""
    if device.type != "cuda":
        return []
    rows = []
    given = input_on(device, 2, torch.float32, quick=quick)
    size = sum(part.nbytes for part in given.maps)
    for name in ("DR loss", "focal loss"):
        eager = partial(step, subjects()[name].ours, given)
        try:
            work = {"ours": captured(eager), "theirs": eager}
        except RuntimeError as error:
            facts[f"{name}: captured in a CUDA graph"] = f"no: {str(error).splitlines()[0]}"
            continue
        seconds = steady(work, device, rounds=7, repeats=10)
        subject = Subject(eager, "the same, launched one by one", eager)
        row = _row(f"{name} in a CUDA graph", given, subject, seconds, 3 * size / speed)
        rows.append(row)
    return rows


# All pairs


def usual_pairs(levels: Sequence[Tensor], labels: Tensor, *, surrogate: Surrogate) -> Tensor:
    """Every positive with every negative of one image, by broadcasting."""
    logits, labels = torch.cat(list(levels), dim=1).flatten(0, 1), labels.flatten().unsqueeze(1)
    classes = torch.arange(logits.shape[1], device=logits.device)
    positives = logits[labels == classes].sigmoid()
    negatives = logits[(labels != classes) & (labels != IGNORED)].sigmoid()
    return TAU * surrogate(negatives.unsqueeze(1) - positives + MARGIN).mean()


def pair_rows(device: torch.device, speed: float, *, quick: bool) -> tuple[list[Row], list[Goal]]:
    """All pairs of one image of 15 million logits."""
    maps = [(8, 8), (4, 4)] if quick else [(105, 201)]  # 189,945 anchors
    given = make_input(maps, every=50 if quick else 4000, device=str(device))
    size, rows, goals = sum(part.nbytes for part in given.maps), [], []
    for name, surrogate in SURROGATES.items():
        ours: Loss = DRLoss(pairing="all", surrogate=name)  # type: ignore[arg-type]
        peer = partial(usual_pairs, surrogate=surrogate)
        seconds = steady({"ours": partial(step, ours, given)}, device, rounds=3, repeats=1 if quick else 3)
        seconds |= steady({"theirs": partial(step, peer, given)}, device, rounds=1, repeats=1)
        subject = Subject(ours, "torch's broadcasting, all pairs at once", peer)
        row = _row(f"All pairs, {name}", given, subject, seconds, 3 * size / speed)
        rows.append(row)
        goals.append(Goal(what=_title(f"All pairs, {name}", given), value=1e3 * row.seconds, unit="ms", goal=2))
    return rows, goals
