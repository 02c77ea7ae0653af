"""The least time of a network's step with the same kernels: its convolutions alone, replayed one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTIONS = (
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv2d.default,  # what inference mode calls
    torch.ops.aten.convolution_backward.default,
)


class Recorder(TorchDispatchMode):
    """While entered, notes every convolution, forward and backward, with shapes, formats and precision.

    Tensors are replaced by random ones, one for each size, format and type, so that the record takes little memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._likes: dict[Any, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONVOLUTIONS:
            self.calls.append((func, tuple(self._like(x) if isinstance(x, Tensor) else x for x in args)))
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        """Run all of them in their order."""
        with torch.no_grad():
            for func, args in self.calls:
                func(*args)

    def _like(self, tensor: Tensor) -> Tensor:
        key = (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if key not in self._likes:
            self._likes[key] = torch.empty_strided(*key[:2], dtype=tensor.dtype, device=tensor.device).normal_()
        return self._likes[key]


def convolutions_of(work: Callable[[], object]) -> Callable[[], None]:
    """Run ``work`` once; returns what repeats its convolutions."""
    with Recorder() as recorder:
        work()
    return recorder.replay
