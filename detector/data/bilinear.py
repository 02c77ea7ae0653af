"""PIL's bilinear resize to a larger size, to the last bit and in a third of the time. Compiled, hence slow to import.

As in PIL, weights are integers; rows come first, then columns, and the values in between are rounded to bytes.
(Where an image shrinks, some versions of PIL take another order.)
"""

from __future__ import annotations

import numpy as np
from numba import types
from numpy.typing import NDArray

from drloss.numba_cache import cached_njit

BITS = 22  # fraction bits of a weight
HALF = np.int32(1 << (BITS - 1))

_NEIGHBOURS = types.int64[:, ::1]
_WEIGHTS = types.int32[:, ::1]
_SIGNATURE = types.void(
    types.Array(types.uint8, 2, "C", readonly=True), _NEIGHBOURS, _WEIGHTS, _NEIGHBOURS, _WEIGHTS, types.uint8[:, ::1]
)


def enlarged(image: NDArray[np.uint8], width: int, height: int, *, flip: bool) -> NDArray[np.uint8]:
    """As PIL's ``resize((width, height), BILINEAR)``, then mirrored if ``flip``: uint8 [H, W, 3] -> [height, width, 3].

    Raises ValueError for a size that is smaller than the image in any direction.
    """
    if height < image.shape[0] or width < image.shape[1]:
        raise ValueError(f"{width} x {height} is not larger than {image.shape[1]} x {image.shape[0]}")
    columns, column_weights = _between(image.shape[1], width)
    if flip:
        columns, column_weights = columns[::-1].copy(), column_weights[::-1].copy()
    out = np.empty((height, 3 * width), np.uint8)
    _enlarge(image.reshape(len(image), -1), columns, column_weights, *_between(image.shape[0], height), out)
    return out.reshape(height, width, 3)


def _between(size: int, enlarged: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The two pixels that each new one lies between, and their weights in 1 / 2^BITS; [enlarged, 2] each.

    In PIL's order of operations, on which the last bit depends.
    """
    centre = (np.arange(enlarged) + 0.5) * (size / enlarged)
    left = (centre - 1.0 + 0.5).astype(np.int64)  # towards zero: at the border the first pixel
    pixels = np.stack([left, left + 1], axis=1)
    weights = np.maximum(1.0 - np.abs(pixels - centre[:, None] + 0.5), 0.0)
    weights[pixels >= size] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.minimum(pixels, size - 1), (0.5 + weights * (1 << BITS)).astype(np.int32)


# With a signature it is compiled on import, and loader processes that are forked later share the code.
@cached_njit(_SIGNATURE, nogil=True)
def _enlarge(image, columns, column_weights, rows, row_weights, out):  # type: ignore[no-untyped-def]
    wide = np.empty((len(image), out.shape[1]), np.uint8)
    for y in range(len(image)):
        source, target = image[y], wide[y]
        for x in range(len(columns)):
            a, b = column_weights[x]
            left, right = 3 * columns[x, 0], 3 * columns[x, 1]
            for c in range(3):
                value = HALF + a * np.int32(source[left + c]) + b * np.int32(source[right + c])
                target[3 * x + c] = value >> BITS
    for y in range(len(out)):
        target, upper, lower = out[y], wide[rows[y, 0]], wide[rows[y, 1]]
        a, b = row_weights[y]
        for x in range(len(target)):
            target[x] = (HALF + a * np.int32(upper[x]) + b * np.int32(lower[x])) >> BITS
