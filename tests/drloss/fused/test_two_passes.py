"""The two passes against the formulas in plain torch: values, gradients, accepted input, promised limits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss import functional as F
from drloss.kernels import cpu
from drloss.kernels import dispatch as backends
from drloss.labels import BACKGROUND, IGNORED

LOSSES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "dr": (DRLoss, {}),
    "dr-hinge": (DRLoss, {"surrogate": "hinge"}),
    "dr-quadratic": (DRLoss, {"surrogate": "quadratic"}),
    "dr-lambda-inf": (DRLoss, {"lambda_pos": inf, "lambda_neg": inf}),
    "dr-lambda-small": (DRLoss, {"lambda_neg": 0.001}),
    "dr-lambda-smaller-than-kernels-take": (DRLoss, {"lambda_neg": 1e-9}),
    "dr-mined": (DRLoss, {"prior": "hard_negative"}),
    "dr-mined-few": (DRLoss, {"prior": "hard_negative", "ratio": 0.1}),
    "dr-mined-all": (DRLoss, {"prior": "hard_negative", "ratio": 1e9}),
    "dr-batch": (DRLoss, {"scope": "batch"}),
    "dr-batch-mined": (DRLoss, {"scope": "batch", "prior": "hard_negative"}),
    "neg_only": (DRLoss, {"pairing": "neg_only"}),
    "neg_only-batch": (DRLoss, {"pairing": "neg_only", "scope": "batch"}),
    "worst_case": (DRLoss, {"pairing": "worst_case"}),
    "worst_case-batch": (DRLoss, {"pairing": "worst_case", "scope": "batch"}),
    "all": (DRLoss, {"pairing": "all"}),
    "all-batch-hinge": (DRLoss, {"pairing": "all", "scope": "batch", "surrogate": "hinge"}),
    "all-mined": (DRLoss, {"pairing": "all", "prior": "hard_negative"}),
    "focal": (FocalLoss, {}),
    "focal-1.5": (FocalLoss, {"gamma": 1.5, "normalizer": "positives"}),
    "focal-0.5": (FocalLoss, {"gamma": 0.5}),
    "focal-0": (FocalLoss, {"gamma": 0.0, "alpha": 0.4}),
    "cross_entropy": (CrossEntropyLoss, {}),
    "cross_entropy-mined": (CrossEntropyLoss, {"mining": "hard_negative"}),
}
SHAPES = {
    "one entry": (1, [1], 1),
    "one class": (2, [37], 1),
    "odd": (3, [70, 19, 1], 7),
    "empty levels": (2, [0, 23, 0], 5),
    "coco": (2, [301, 40], 80),
}
Case = tuple[list[Tensor], Tensor]


@pytest.fixture(params=LOSSES)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """One loss twice: fused, and in plain torch."""
    kind, arguments = LOSSES[request.param]
    return kind(**arguments), kind(**arguments, fused=False)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCK_ENTRIES", 100)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def case(shape: str = "odd", *, share_positive: float = 0.1, seed: int = 0) -> Case:
    num_images, sizes, num_classes = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(num_images, size, num_classes, generator=generator) * 2 for size in sizes]
    labels = torch.full((num_images, sum(sizes)), BACKGROUND)
    draw = torch.rand(labels.shape, generator=generator)
    classes = torch.randint(num_classes, labels.shape, generator=generator)
    labels = torch.where(draw < share_positive, classes, labels).masked_fill(draw > 0.8, IGNORED)
    return levels, labels


def value_and_gradients(loss: nn.Module, levels: list[Tensor], labels: Tensor, **arguments: Any) -> Any:
    levels = [level.detach().clone(memory_format=torch.preserve_format).requires_grad_() for level in levels]
    value = loss(levels, labels, **arguments)
    torch.autograd.backward(value)
    return value.item(), [level.grad for level in levels]


def assert_same(pair: tuple[nn.Module, nn.Module], levels: list[Tensor], labels: Tensor, **arguments: Any) -> None:
    """Value and gradients of the fused loss are those of plain torch in float64."""
    value, grads = value_and_gradients(pair[0], levels, labels, **arguments)
    expected, expected_grads = value_and_gradients(pair[1], [x.double() for x in levels], labels, **arguments)
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-12)
    largest = torch.cat([grad.flatten() for grad in expected_grads]).abs().max().item()
    # Half a bit of p, 6e-8, is multiplied by 1 / lambda in the exponent.
    tolerance = 1e-5 * max(1.0, 0.01 / getattr(pair[0], "lambda_neg", 1.0))
    for grad, exact, level in zip(grads, expected_grads, levels, strict=True):
        assert grad.dtype == level.dtype
        rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(level.dtype, 0.0)
        smallest = {torch.float16: 1e-7}.get(level.dtype, 0.0)
        error = (grad.double() - exact).abs() - rounding * exact.abs() - smallest
        assert (error <= tolerance * largest).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_fused_equals_clear_for_every_loss_and_shape(pair: tuple[nn.Module, nn.Module], shape: str) -> None:
    assert_same(pair, *case(shape))


@pytest.mark.usefixtures("small_blocks", "two_threads")
def test_fused_equals_clear_over_many_blocks_and_threads(pair: tuple[nn.Module, nn.Module]) -> None:
    assert_same(pair, *case("coco"))


@pytest.mark.parametrize(
    "kind", ["no positives", "no negatives", "all ignored", "first image ignored", "many positives"]
)
def test_fused_equals_clear_for_sets_that_are_empty_or_full(pair: tuple[nn.Module, nn.Module], kind: str) -> None:
    levels, labels = case("one class" if kind == "no negatives" else "odd", share_positive=0.6)
    if kind == "no positives":
        labels = labels.clamp(max=BACKGROUND)
    elif kind == "no negatives":
        labels = torch.where(labels == BACKGROUND, 0, labels)
    elif kind == "all ignored":
        labels = torch.full_like(labels, IGNORED)
    elif kind == "first image ignored":
        labels[0] = IGNORED
    assert_same(pair, levels, labels)


def test_fused_takes_views_that_are_not_contiguous(pair: tuple[nn.Module, nn.Module]) -> None:
    levels, labels = case("odd")
    views = [torch.stack([level, level], dim=3)[..., 0] for level in levels]
    assert not views[0].is_contiguous()
    assert_same(pair, views, labels)
    # [N, A * K, H, W] in channels last, as a head writes it: [N, H * W * A, K] is a view of it.
    maps = torch.randn(2, 3 * 4, 5, 6, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    maps.requires_grad_()
    level = maps.permute(0, 2, 3, 1).reshape(2, 90, 4)
    assert level.data_ptr() == maps.data_ptr()
    labels = torch.randint(IGNORED, 4, (2, 90), generator=torch.Generator().manual_seed(2))
    grads = [torch.autograd.grad(loss([level], labels), maps, retain_graph=True)[0] for loss in pair]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5 * grads[1].abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_takes_half_precision(pair: tuple[nn.Module, nn.Module], dtype: torch.dtype) -> None:
    levels, labels = case("coco")
    assert_same(pair, [level.to(dtype) for level in levels], labels)


def test_fused_takes_levels_of_different_precision(pair: tuple[nn.Module, nn.Module]) -> None:
    levels, labels = case("odd")
    assert_same(pair, [levels[0], *(level.bfloat16() for level in levels[1:])], labels)


@pytest.mark.parametrize("images_per_group", [1, 2, 3, 5])
def test_groups_are_means_of_calls_each_way(pair: tuple[nn.Module, nn.Module], images_per_group: int) -> None:
    levels, labels = case("odd")
    groups = [[level[i : i + images_per_group] for level in levels] for i in range(0, 3, images_per_group)]
    chosen = torch.split(labels, images_per_group)
    for loss in pair:
        values = [loss(group, part).double() for group, part in zip(groups, chosen, strict=True)]
        together = loss(levels, labels, images_per_group=images_per_group)
        assert together.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-6)
    assert_same(pair, levels, labels, images_per_group=images_per_group)


def test_images_per_group_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="images_per_group = 0 is not valid"):
        DRLoss()(torch.zeros(2, 3, 4), torch.zeros(2, 3).long(), images_per_group=0)


@pytest.mark.parametrize("extreme", [30.0, 100.0, inf])
def test_fused_equals_clear_at_extreme_logits(extreme: float) -> None:
    levels, labels = case("odd")
    labels = labels.clamp(max=BACKGROUND)
    labels[0, 5] = 2
    for image, row in ((0, 0), (0, 30), (1, 7), (2, 12)):
        levels[0][image, row] = extreme if image == 0 else -extreme
        labels[image, row] = BACKGROUND
    for arguments in ({}, {"lambda_neg": 0.001}, {"pairing": "neg_only"}, {"pairing": "worst_case"}):
        assert_same((DRLoss(**arguments), DRLoss(**arguments, fused=False)), levels, labels)
    if extreme < inf:
        for kind in (FocalLoss, CrossEntropyLoss):
            assert_same((kind(), kind(fused=False)), levels, labels)


def test_fused_loss_is_nan_where_a_logit_that_counts_is(pair: tuple[nn.Module, nn.Module]) -> None:
    levels, labels = case("odd")
    labels[1, 4] = BACKGROUND
    levels[0][1, 4, 2] = nan
    assert pair[0](levels, labels).isnan()


def test_worst_case_shares_the_gradient_of_equal_negatives() -> None:
    level, labels = torch.zeros(1, 200, 3), torch.full((1, 200), BACKGROUND)
    level[0, [3, 150], 1] = 1.0
    _, (grad,) = value_and_gradients(DRLoss(pairing="worst_case"), [level], labels)
    assert grad.nonzero().tolist() == [[0, 3, 1], [0, 150, 1]]
    assert_same((DRLoss(pairing="worst_case"), DRLoss(pairing="worst_case", fused=False)), [level], labels)


@pytest.mark.parametrize("ratio", [1.0, 30.0, 2000.0])
def test_mining_keeps_the_first_of_equal_negatives_over_levels_and_images(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randint(4, (2, size, 5), generator=generator).float() for size in (3000, 40)]
    labels = torch.full((2, 3040), BACKGROUND)
    labels[:, ::700] = 1
    for arguments in ({"scope": "batch"}, {"scope": "image"}):
        losses = [DRLoss(prior="hard_negative", ratio=ratio, fused=fused, **arguments) for fused in (True, False)]  # type: ignore[arg-type]
        fast, clear = (value_and_gradients(loss, levels, labels) for loss in losses)
        assert fast[0] == pytest.approx(clear[0], rel=1e-6)
        for grad, expected in zip(fast[1], clear[1], strict=True):
            assert torch.equal(grad != 0, expected != 0)


def test_results_are_equal_from_run_to_run_and_for_any_number_of_threads(
    pair: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK_ENTRIES", 700)
    levels, labels = case("coco")
    before = torch.get_num_threads()
    results = []
    for num_threads in (1, 1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append(value_and_gradients(pair[0], levels, labels))
    torch.set_num_threads(before)
    for value, grads in results[1:]:
        assert value == results[0][0]
        assert all(map(torch.equal, grads, results[0][1]))


def test_clear_version_has_second_derivatives_and_the_fused_refuses_them() -> None:
    levels, labels = case("odd")
    x = levels[0].requires_grad_()
    labels = labels[:, : x.shape[1]]
    (grad,) = torch.autograd.grad(DRLoss(fused=False)(x, labels), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert second.abs().max() > 0
    (grad,) = torch.autograd.grad(DRLoss()(x, labels), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(grad.square().sum())


def test_kernels_are_for_float32_and_half_precision_outside_of_transforms() -> None:
    single = torch.zeros(1, 2, 3)
    assert backends.backend_for([single, single.half()]) is not None
    assert backends.backend_for([single, single.double()]) is None
    assert backends.backend_for([single.to("meta")]) is None
    levels, labels = case("odd")
    grad = torch.func.grad(lambda x: F.dr_loss(x, labels[:, :70]))(levels[0])
    torch.testing.assert_close(grad, value_and_gradients(DRLoss(tau=1.0), levels[:1], labels[:, :70])[1][0])


def test_kernels_of_other_devices_take_one_dtype_only(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = object()
    monkeypatch.setattr(backends, "_backend", lambda device: kernels)
    single = torch.zeros(1, 2, 3, device="meta")
    assert backends.backend_for([single, single]) is kernels
    assert backends.backend_for([single, single.half()]) is None


def test_numba_is_imported_by_the_first_call_only() -> None:
    code = """
        import sys, torch
        from drloss import DRLoss
        loss = DRLoss()
        assert "numba" not in sys.modules
        loss(torch.zeros(3, 2).double(), torch.zeros(3).long())
        assert "numba" not in sys.modules
        loss(torch.zeros(3, 2), torch.zeros(3).long())
        assert "numba" in sys.modules
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_takes_little_more_memory_than_the_gradient(dtype: str) -> None:
    code = f"""
        import torch
        from drloss import CrossEntropyLoss, DRLoss, FocalLoss
        torch.set_num_threads(1)
        def memory(name):
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
        labels = torch.full((1, 100_000), -1)
        labels[0, ::1000] = 3
        logits = torch.randn(1, 100_000, 80).to(torch.{dtype}).requires_grad_()
        for loss in (DRLoss(), DRLoss(prior="hard_negative"), FocalLoss(), CrossEntropyLoss()):
            loss(logits[:, :2000], labels[:, :2000]).backward()
            logits.grad = None
            before = memory("VmRSS")
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
            loss(logits, labels).backward()
            extra = memory("VmHWM") - before
            assert extra <= 1.1 * logits.nbytes + 2**22, (loss, extra / logits.nbytes)
            logits.grad = None
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True, timeout=300)
