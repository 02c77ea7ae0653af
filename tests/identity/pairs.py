"""The table of docs/identity.md: each pair of conditions that one id can cover, and what a trial of it must show.

``python -m tests.identity.pairs`` writes the page. ``test_identity.py`` tries each pair that can be tried on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from tests.identity.trials import (
    Bench,
    Weights,
    inverted_pixels,
    lower_precision_flag,
    other_labels,
    weights_of_one_role,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "identity.md"
TEMPLATE = Path(__file__).with_name("page.md")
Bits = Literal["same bits", "up to rounding", "lower precision", "another result", "untested here"]
# Of the largest difference of a weight after four steps, relative to the largest weight.
BOUNDS: tuple[tuple[Bits, float], ...] = (("same bits", 0.0), ("up to rounding", 1e-3), ("lower precision", 1e-2))
Trial = Callable[[Bench], tuple[Weights, Weights]]


@dataclass(frozen=True)
class Pair:
    """Two trainings of one job. trial: None where it takes a GPU, other libraries, or minutes."""

    what: str
    bits: tuple[Bits, ...]  # one of these; which of them depends on the machine where there are two
    recorded: str
    trial: Trial | None = None


def _against_reference(trained: Callable[[Bench], Weights]) -> Trial:
    return lambda bench: (bench.reference, trained(bench))


def _processes(count: int, **variables: str) -> Trial:
    return lambda bench: (bench.processes(1), bench.processes(count, **variables))


ROUNDING: tuple[Bits, ...] = ("up to rounding",)
MAY_ROUND: tuple[Bits, ...] = ("same bits", "up to rounding")
UNTESTED: tuple[Bits, ...] = ("untested here",)
SAME: tuple[Bits, ...] = ("same bits",)
OTHER: tuple[Bits, ...] = ("another result",)
PAIRS = (
    Pair("nothing: the same command twice", SAME, "-", _against_reference(Bench.train)),
    Pair("1 or 2 threads", MAY_ROUND, "`starts`: threads", _against_reference(lambda b: b.train(threads=2))),
    Pair("1 or 2 processes, a group at a time", SAME, "`starts`: processes", _processes(2)),
    Pair(
        "1 or 2 groups per forward pass",
        MAY_ROUND,
        "`starts`: groups_per_forward",
        _against_reference(lambda b: b.train(groups_per_forward=1)),
    ),
    Pair("0 or 2 workers that load", SAME, "nowhere", _against_reference(lambda b: b.train(loader_workers=2))),
    Pair("other steps between checkpoints", SAME, "nowhere", _against_reference(lambda b: b.train(checkpoint_every=1))),
    Pair("stopped and resumed", SAME, "`starts`: a line for each", _against_reference(lambda b: b.train(stop=2))),
    Pair(
        "stopped and resumed with other threads",
        MAY_ROUND,
        "`starts`: a line for each; a note",
        _against_reference(lambda b: b.train(stop=2, threads=2)),
    ),
    Pair(
        "CPU capability (instructions that torch may use)",
        MAY_ROUND,
        "`environment`",
        _processes(1, ATEN_CPU_CAPABILITY="default"),
    ),
    Pair(
        "a program's flag for matrix products of lower precision",
        ("same bits", "up to rounding", "lower precision"),
        "`environment`: matmul_precision",
        _against_reference(lower_precision_flag),
    ),
    Pair(
        "`deterministic`, on a CPU",
        SAME,
        "`starts`: deterministic",
        _against_reference(lambda b: b.train(deterministic=True)),
    ),
    Pair("`cuda_graphs`, on a CPU", SAME, "nowhere", _against_reference(lambda b: b.train(cuda_graphs=False))),
    Pair(
        "the same files in another folder",
        SAME,
        "nowhere",
        _against_reference(lambda b: b.train(data=b.copy_of_data())),
    ),
    Pair(
        "other pixels under the old names",
        OTHER,
        "`inputs`: train_images, test_images",
        _against_reference(inverted_pixels),
    ),
    Pair(
        "other labels of generated shapes",
        OTHER,
        "`train_split`, `test_split`: sha256",
        _against_reference(other_labels),
    ),
    Pair("another file as the `caffe2` weights", OTHER, "`inputs`: weights", weights_of_one_role),
    Pair("`compile`", UNTESTED, "`starts`: compiled; a note"),
    Pair("CPU or GPU, or another GPU", UNTESTED, "`environment`: device"),
    Pair("`cuda_graphs` or `deterministic` on a GPU", UNTESTED, "`starts`: deterministic"),
    Pair("other versions of torch, numpy, Pillow, CUDA, cuDNN", UNTESTED, "`environment`"),
    Pair("another commit, or changes to it", UNTESTED, "`code`"),
    Pair("another source of a plug-in loss under one version", UNTESTED, "`code`: loss_sha256"),
)


def kind_of(difference: float) -> Bits:
    """The word for a measured difference."""
    return next((name for name, bound in BOUNDS if difference <= bound), "another result")


def page() -> str:
    """The page's whole text."""
    rows = [[pair.what, " or ".join(pair.bits), pair.recorded] for pair in PAIRS]
    table = tabulate(rows, ["what differs", "the weights", "where it is recorded"], tablefmt="github")
    return TEMPLATE.read_text(encoding="utf-8").replace("<!-- table -->", table)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
