"""Which algorithms a GPU's libraries may choose for a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def training_algorithms(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """On a GPU: cuDNN times its algorithms once for each new shape and keeps the fastest.

    deterministic: only algorithms that give the same bits from run to run, by rule and not by time; torch raises
    RuntimeError for an operation that has none. Evaluations, which meet most shapes once, do without this.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        torch.use_deterministic_algorithms(before[2])
