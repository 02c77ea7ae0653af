"""The surrogates of ``drloss.surrogates`` for Triton kernels: value and slope of one, chosen when a kernel is compiled.

Needs triton.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def surrogate_of(z: tl.tensor, parameter: tl.tensor, SURROGATE: tl.constexpr) -> Any:
    """l(z) and l'(z), of z's shape and dtype. parameter: rho of the quadratic (Eq. 7), L of the logistic (Eq. 8)."""
    if SURROGATE == "hinge":
        return tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL), tl.where(z > 0, 1.0, 0.0).to(z.dtype)
    if SURROGATE == "quadratic":
        x = tl.maximum(z + parameter, 0.0, propagate_nan=tl.PropagateNan.ALL)
        curved = x < 2 * parameter
        value = tl.where(curved, x * x / (4 * parameter), x - parameter)
        return value, tl.where(curved, x / (2 * parameter), 1.0)
    y = z * parameter
    tail = tl.exp(-tl.abs(y))
    # log(1 + tail) would lose the digits of a small tail.
    log1p = tl.where(tail < 1e-4, tail * (1.0 - tail * (0.5 - tail / 3.0)), tl.log(1.0 + tail))
    value = (tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL) + log1p) / parameter
    return value, tl.where(y > 0, 1.0, tail) / (1.0 + tail)
