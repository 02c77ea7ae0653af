"""The weights at the end of a training, compared to the last bit."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.runs.folder import RunDir
from detector.weights import checkpoint


def final_weights(run: RunDir) -> dict[str, Tensor]:
    model: dict[str, Tensor] = checkpoint.load(run.final)["model"]
    return model


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
