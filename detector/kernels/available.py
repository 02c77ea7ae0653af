"""Where the Triton kernels can stand in for plain torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def usable(*tensors: Tensor) -> bool:
    """Whether kernels take these tensors: all on a GPU, in float32 or half precision, and triton is installed.

    Not in code that torch traces or transforms: ``torch.compile`` fuses by itself, from torch's own functions.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return all(tensor.device.type == "cuda" and tensor.dtype in _DTYPES for tensor in tensors) and _has_triton()


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
