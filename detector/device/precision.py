"""Precision of the forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from detector.runs.job import Precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast for bf16 and fp16; for fp32 and tf32, sets whether the GPU may round to TF32."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, dtype=AUTOCAST[precision])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return nullcontext()
