"""The network with fused passes equals torch's modules one by one, in values and gradients, on the same device.

Here in Triton's interpreter, where a CPU is treated as a GPU (tests/detector/kernels/test_builds.py starts it); and on
a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from detector.kernels import available
from detector.model import assign, convolve, regression_loss
from detector.model.backbone import FoldedBottleneck
from detector.model.convolve import FrozenNorm
from tests.small_retinanet import SLIM, build, image_of, target_of
from tests.triton_kernels import DEVICES


@contextmanager
def kernels(allowed: bool) -> Iterator[None]:
    """Whether the model's passes are those of the kernels, on whatever device."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (convolve, assign, regression_loss):
            patch.setattr(module, "usable", lambda *_: allowed)
        yield


def same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.detach().abs().max()) + 1e-7)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Convolutions in float32, not TF32."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False):
        yield


def norms_of_training(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, FrozenNorm):
            for buffer in norm.buffers():
                buffer.uniform_(0.5, 1.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stride", [1, 2])
def test_bottleneck_in_fused_passes_has_the_values_and_gradients_of_its_modules(device: str, stride: int) -> None:
    torch.manual_seed(0)
    shortcut = None
    if stride == 2:
        shortcut = nn.Sequential(nn.Conv2d(16, 16, 1, 2, bias=False), FrozenNorm(16))
    block = FoldedBottleneck(16, 4, stride, shortcut, norm_layer=partial(FrozenNorm, eps=1e-3))
    norms_of_training(block)
    block.to(device, memory_format=torch.channels_last)
    x = torch.randn(2, 16, 6, 10).to(device, memory_format=torch.channels_last).requires_grad_()
    results = []
    for allowed in (True, False):
        with kernels(allowed):
            y = block(x)
            pull = torch.sin(torch.arange(y.numel(), device=device)).view_as(y)
            results.append([y, *torch.autograd.grad(y, [x, *block.parameters()], pull)])
    same(*results)
    assert not torch.equal(results[0][0], results[1][0])  # that they were two ways


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("norm", "head_norm"), [("frozen_batch", "none"), ("group", "group")])
def test_losses_and_gradients_of_fused_passes_are_those_of_torchs(device: str, norm: str, head_norm: str) -> None:
    changes = {"norm": norm, "head_norm": head_norm, "fpn_levels": (3, 7), "fpn_channels": 16}
    model = build(SLIM | changes)
    norms_of_training(model)
    model.to(device)
    images = [image_of(64, 96, seed).to(device) for seed in range(3)]
    targets = [target_of((4, 4, 40, 50), (8, 30, 60, 62), labels=[1, 4]), target_of(), target_of((50, 3, 90, 60))]
    targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = []
    for allowed in (True, False):
        with kernels(allowed):
            losses = model(images, targets)
            gradients = torch.autograd.grad(sum(losses.values()), parameters)
            results.append([*losses.values(), *gradients])
    same(*results)


def test_kernels_are_not_for_a_cpu_for_float64_or_for_traced_code_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "_has_triton", lambda: True)
    with FakeTensorMode():
        single, double = (torch.empty(1, dtype=dtype, device="cuda") for dtype in (torch.float32, torch.float64))
    assert available.usable(single)
    assert not available.usable(double)
    assert not available.usable(single, torch.zeros(1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not available.usable(single)
