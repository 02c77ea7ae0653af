"""Which algorithms a GPU's libraries may choose for a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def training_algorithms(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """On a GPU: with ``deterministic`` only algorithms that give the same bits from run to run.

    torch raises RuntimeError for an operation that has none. cuDNN chooses its algorithms by rule, never by timing
    them: on an H100 that took 8 to 10 seconds for each shape of a pass, and a training meets some hundred shapes.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    cudnn.benchmark, cudnn.deterministic = False, deterministic
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        torch.use_deterministic_algorithms(before[2])
