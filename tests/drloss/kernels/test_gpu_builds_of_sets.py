"""Hard negatives, worst case and all pairs without a GPU: right in Triton's interpreter, compiled, launches counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from drloss import functional as F
from drloss.fused import hardest_on_gpu
from drloss.pairs import from_logits_gpu
from tests.triton_kernels import compile_only, needs_triton, run_in_interpreter

TESTS = Path(__file__).parents[1]
FILES = ("fused/test_hardest_on_gpu.py", "pairs/test_from_logits_gpu.py")

FOUND = ("summarize", "list_tiles", *("count_digits",) * 4)
SUMMED = ("sum_chosen", "combine_chosen", "write_chosen_gradient")
SORTED = ("scores_of_positives", "prepare")
LOSSES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "dr": (lambda *case: F.dr_loss(*case, hard_negative_ratio=3.0), FOUND + SUMMED),
    "neg_only": (lambda *case: F.neg_only_loss(*case, hard_negative_ratio=3.0), FOUND + SUMMED),
    "cross_entropy": (lambda *case: F.cross_entropy_loss(*case, hard_negative_ratio=3.0), FOUND + SUMMED),
    "worst_case": (F.worst_case_loss, FOUND[:2] + SUMMED),
    "hinge": (F.all_pairs_loss, (*SORTED, "sum_pairs", "combine_pairs", "write_pairs_gradient")),
    "quadratic": (
        lambda *case: F.all_pairs_loss(*case, surrogate=F.quadratic),
        (*SORTED, "sum_pairs", "combine_pairs", "write_pairs_gradient"),
    ),
    "logistic": (
        lambda *case: F.all_pairs_loss(*case, surrogate=F.logistic),
        (*SORTED, "tabulate", "sum_moments", "combine_logistic", "write_logistic_gradient"),
    ),
}
# Loads and stores of all entries in one piece, as instructions of 16 bytes: of a tile's 5,120 float32, a thread has 40.
UNROLLED = {"summarize": (10, 0), "write_chosen_gradient": (10, 10), "write_logistic_gradient": (10, 10)}


@pytest.fixture(autouse=True)
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' way for tensors of the CPU."""
    monkeypatch.setattr(hardest_on_gpu, "_has_kernels", lambda batch: True)
    monkeypatch.setattr(from_logits_gpu, "_has_kernels", lambda levels: True)
    monkeypatch.setattr("drloss.pairs.from_logits.pair_means", from_logits_gpu.pair_means)
    monkeypatch.setattr("drloss.functional.distributional.pair_means", from_logits_gpu.pair_means)


def run(name: str, dtype: torch.dtype = torch.float32, sizes: Sequence[int] = (70, 16, 1)) -> None:
    """A forward and a backward pass of what stands where the kernels would have written."""
    levels: list[Tensor] = [torch.zeros(2, size, 80, dtype=dtype, requires_grad=True) for size in sizes]
    labels = torch.zeros(2, sum(sizes), dtype=torch.int64)
    torch.autograd.backward(LOSSES[name][0](levels, labels))


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("file", FILES)
def test_kernels_agree_with_the_clear_losses_in_the_interpreter(file: str) -> None:
    assert " passed" in run_in_interpreter(TESTS / file)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("name", LOSSES)
def test_kernels_compile_in_a_handful_of_launches(monkeypatch: pytest.MonkeyPatch, capability: int, name: str) -> None:
    compiled = compile_only(monkeypatch, capability)
    run(name)
    assert tuple(kernel.metadata.name for kernel in compiled) == LOSSES[name][1]
    for kernel in compiled:
        assert kernel.asm["cubin"]
        loads, stores = UNROLLED.get(kernel.metadata.name, (0, 0))
        assert kernel.asm["ptx"].count("ld.global.v4") >= loads
        assert kernel.asm["ptx"].count("st.global.v4") >= stores


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 2), (torch.float16, 3)])
def test_kernels_compile_for_half_precision_with_as_many_launches_as_it_has_digits(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, digits: int
) -> None:
    compiled = compile_only(monkeypatch, 90)
    run("dr", dtype)
    names = [kernel.metadata.name for kernel in compiled]
    assert names.count("count_digits") == digits
    for name in ("hinge", "quadratic", "logistic"):
        run(name, dtype)
    for kernel in compiled:
        if kernel.metadata.name in UNROLLED:
            assert kernel.asm["ptx"].count("ld.global.v4") >= 5


@pytest.mark.slow
def test_kernels_are_not_compiled_anew_for_another_size_of_image(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_only(monkeypatch, 90)
    for name in ("dr", "worst_case", "hinge", "logistic"):
        compiled.clear()
        for sizes in ((70, 16, 1), (64, 700, 32), (1, 1, 80)):
            run(name, sizes=sizes)
        assert len({id(kernel) for kernel in compiled}) == len(LOSSES[name][1])
