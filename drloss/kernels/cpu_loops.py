"""The inner loops on a CPU: compiled when first used, then kept on disk. Each pass reads each logit once.

The loops are written so that the compiler turns them into vector instructions: no branch, no call, no NaN-aware
minimum; exp and log are polynomials. They stand in one file, because numba's cache looks only at the file of a kernel
to see whether it changed.

A block is ``logits`` [n, r * K] float32: consecutive anchors of one image, or all anchors of one level of some images.
Its part of ``labels`` [N, R] starts at ``corner`` (image, anchor). All arrays are contiguous. A NaN logit of an anchor
that counts makes the result NaN, as everywhere in torch.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from drloss.numba_cache import cached_njit

Array: TypeAlias = NDArray[Any]
Corner: TypeAlias = tuple[int, int]
Weights: TypeAlias = tuple[float, float]

# This many entries are summed in float32, in some 64 partial sums; the sums of such runs are added in float64.
RUN = 8192
# exp(p / lambda) is used as it is up to exp(40). Above, it is taken relative to the largest, so it cannot overflow.
LARGEST_EXPONENT = 40.0

_BACKGROUND = -1
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
# Between these exp neither overflows nor becomes subnormal; a sigmoid beyond them is 0 or 1 in float32.
_LOW, _HIGH = np.float32(-87), np.float32(87)
_LOG2E = np.float32(1.44269504)
_LOG2_HIGH, _LOG2_LOW = np.float32(0.693359375), np.float32(2.12194440e-4)  # their difference is log 2
_ROUND, _ROUND_BITS = np.float32(12582912.0), np.int32(0x4B400000)  # 1.5 * 2^23: adding it rounds to an integer
_EXP = tuple(np.float32(c) for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 0.5))
_E0, _E1, _E2, _E3, _E4, _E5 = _EXP
# log(1 + e) / e on [0, 1], interpolated at Chebyshev's nodes: 1.3e-7 at most, relative.
_LOG = (1.0, -0.499998927, 0.333297104, -0.249516159, 0.196632743, -0.152696669, 0.105436236, -0.0563736148)
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (np.float32(c) for c in _LOG)
_L8, _L9 = np.float32(0.0195425283), np.float32(-0.00317605701)

# Sums may be reordered, but not inside exp, where one step undoes another's rounding on purpose.
# Functions are inlined, because a loop with a call in it is not turned into vector instructions.
_function = njit(fastmath={"contract"}, error_model="numpy", forceinline=True)
_SUMS = {"contract", "reassoc", "arcp", "nsz"}
_kernel = cached_njit(fastmath=_SUMS, error_model="numpy", nogil=True)
# Loops over floats are inlined into each kernel. Were they called, a process that compiles would run the loop compiled
# by itself, and one that reads the cache the loop compiled with its caller: their sums are rounded differently.
_loop = njit(fastmath=_SUMS, error_model="numpy", forceinline=True)


def _bitcast(old: Any, new: Any) -> Any:
    """Signature and code of an intrinsic that reads the bits of one type as another."""
    return new(old), lambda context, builder, _, values: builder.bitcast(values[0], context.get_value_type(new))


@intrinsic
def _bits(context: Any, value: Any) -> Any:
    """The bits of a float32 as an int32."""
    return _bitcast(types.float32, types.int32)


@intrinsic
def _from_bits(context: Any, value: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return _bitcast(types.int32, types.float32)


@_function
def _exp(x: Any) -> Any:
    """exp(x) for x up to 87, with x raised to -87 at least: 2^n times a polynomial of the rest (Cephes' expf)."""
    x = _LOW if x < _LOW else x
    n = np.int32(_bits(x * _LOG2E + _ROUND) - _ROUND_BITS)  # type: ignore[call-arg]
    r = x - np.float32(n) * _LOG2_HIGH + np.float32(n) * _LOG2_LOW
    polynomial = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    two_to_n = _from_bits(np.int32(np.int32(n + np.int32(127)) << np.int32(23)))
    return (polynomial * r * r + r + _ONE) * two_to_n


@_function
def _exp_minus(x: Any) -> Any:
    """exp(-x), with x limited to -87 .. 87."""
    return _exp(_HIGH if -x > _HIGH else -x)


@_function
def _log1p(e: Any) -> Any:
    """log(1 + e) for e in [0, 1]."""
    high = (((_L9 * e + _L8) * e + _L7) * e + _L6) * e + _L5
    return (((((high * e + _L4) * e + _L3) * e + _L2) * e + _L1) * e + _L0) * e


@_kernel
def negative_runs(labels: Array, num_classes: int) -> Array:
    """[M, 2] first and end of each run of negatives among the entries of ``labels`` [r], ``RUN`` long at most."""
    others = 0
    for label in labels:
        others += label != _BACKGROUND
    runs = np.empty((others + 1 + labels.size * num_classes // RUN, 2), np.int64)
    count, first = 0, 0
    for row in range(labels.size + 1):
        label = labels[row] if row < labels.size else 0
        if label == _BACKGROUND:
            continue
        end = row * num_classes + max(label, 0)
        if row == labels.size:
            end = row * num_classes
        while first < end:
            runs[count, 0], runs[count, 1] = first, min(first + RUN, end)
            first = runs[count, 1]
            count += 1
        first = end + 1 if label >= 0 else end + num_classes
    return runs[:count]


@_loop
def _largest(logits: Array) -> Any:
    largest = np.float32(-np.inf)
    for j in range(logits.size):
        largest = logits[j] if logits[j] > largest else largest
    return largest


@_loop
def _weigh(logits: Array, inverse_lambda: Any, shift: Any) -> tuple[float, float]:
    """Sum of w and sum of w p over one run, with w = exp(p / lambda - shift)."""
    weights, products = _ZERO, _ZERO
    for j in range(logits.size):
        p = _ONE / (_ONE + _exp_minus(logits[j]))
        weight = _exp(p * inverse_lambda - shift)
        weights += weight
        products += weight * p
    return np.float64(weights), np.float64(products)


@_kernel
def reduce_block(
    logits: Array, labels: Array, corner: Corner, num_classes: int, inverse_lambda: Any, sums: Array, pos: Array
) -> None:
    """Writes shift, sum of w, sum of w p per image to ``sums`` [n, 3] float64; positives' logits to ``pos`` [N, R]."""
    anchors = slice(corner[1], corner[1] + logits.shape[1] // num_classes)
    for image in range(logits.shape[0]):
        row, classes, own = logits[image], labels[corner[0] + image, anchors], pos[corner[0] + image, anchors]
        runs = negative_runs(classes, num_classes)
        shift = _ZERO
        if inverse_lambda > LARGEST_EXPONENT:
            for k in range(runs.shape[0]):
                largest = _largest(row[runs[k, 0] : runs[k, 1]])
                shift = max(shift, inverse_lambda / (_ONE + _exp_minus(largest)))
        weights, products = 0.0, 0.0
        for k in range(runs.shape[0]):
            found = _weigh(row[runs[k, 0] : runs[k, 1]], inverse_lambda, shift)
            weights += found[0]
            products += found[1]
        sums[image, 0], sums[image, 1], sums[image, 2] = shift, weights, products
        for j in range(classes.size):
            own[j] = row[j * num_classes + classes[j]] if classes[j] >= 0 else _ZERO


@_loop
def _weigh_gradient(logits: Array, grad: Array, inverse_lambda: Any, expected: Any, shift: Any, scale: Any) -> None:
    """scale * w (1 + (p - expected) / lambda) p (1 - p) of one run."""
    for j in range(logits.size):
        e = _exp_minus(logits[j])
        p = _ONE / (_ONE + e)
        weight = scale * _exp(p * inverse_lambda - shift)
        # e p is 1 - p, without the loss of digits where p is almost 1.
        grad[j] = weight * (_ONE + (p - expected) * inverse_lambda) * (e * p * p)


@_kernel
def gradient_block(
    logits: Array,
    labels: Array,
    corner: Corner,
    num_classes: int,
    inverse_lambda: Any,
    scalars: Array,
    pos: Array,
    grad: Array,
) -> None:
    """Writes ``grad`` [n, r * K].

    scalars: [N, 3] P-, log of the normaliser, gradient by P-; pos: [N, R], gradient by the own class's logit.
    """
    anchors = slice(corner[1], corner[1] + logits.shape[1] // num_classes)
    for image in range(logits.shape[0]):
        row, classes, out = logits[image], labels[corner[0] + image, anchors], grad[image]
        expected, log_normalizer, scale = scalars[corner[0] + image]
        # Where the exponent may be large, its float32 part is subtracted there, and the rest goes into the scale.
        shift = np.float32(log_normalizer) if inverse_lambda > LARGEST_EXPONENT else _ZERO
        constants = np.float32(expected), shift, np.float32(scale * np.exp(shift - log_normalizer))
        runs = negative_runs(classes, num_classes)
        for k in range(runs.shape[0]):
            first, end = runs[k, 0], runs[k, 1]
            _weigh_gradient(row[first:end], out[first:end], inverse_lambda, *constants)
        _fill_others(classes, num_classes, pos[corner[0] + image, anchors], out)


@_loop
def _fill_others(labels: Array, num_classes: int, pos: Array, grad: Array) -> None:
    """Writes the entries of the anchors' own classes, and zeros for ignored anchors."""
    for j in range(labels.size):
        if labels[j] >= 0:
            grad[j * num_classes + labels[j]] = pos[j]
        elif labels[j] != _BACKGROUND:
            grad[j * num_classes : (j + 1) * num_classes] = _ZERO


@_function
def _parts(x: Any) -> tuple[Any, Any, Any]:
    """p, 1 - p and t = log(1 + exp(-|x|)): softplus(x) is max(x, 0) + t, softplus(-x) is max(-x, 0) + t."""
    e = _exp(-abs(x))
    larger = _ONE / (_ONE + e)
    smaller = e * larger
    return (larger if x > _ZERO else smaller), (smaller if x > _ZERO else larger), _log1p(e)


@_function
def _power(x: Any, p: Any, tail: Any, gamma: Any, is_any: bool) -> Any:
    """p^gamma, by the logarithm, which is exact where p is tiny. is_any: gamma may be other than 0 or 2."""
    if gamma == _TWO and not is_any:
        return p * p
    return _ONE if gamma == _ZERO and not is_any else _exp(-gamma * (max(-x, _ZERO) + tail))


@_function
def _loss(x: Any, gamma: Any, is_any: bool) -> Any:
    """p^gamma softplus(x): without alpha, the focal loss of a negative with logit x or of a positive with logit -x."""
    p, _, tail = _parts(x)
    return _power(x, p, tail, gamma, is_any) * (max(x, _ZERO) + tail)


@_function
def _slope(x: Any, gamma: Any, is_any: bool) -> Any:
    """p^gamma (p + gamma (1 - p) softplus(x)): the derivative of ``_loss`` by x."""
    p, rest, tail = _parts(x)
    return _power(x, p, tail, gamma, is_any) * (p + gamma * rest * (max(x, _ZERO) + tail))


@_loop
def _add_losses(logits: Array, gamma: Any) -> float:
    total = _ZERO
    # Three loops: with a constant gamma the power costs next to nothing.
    if gamma == _TWO:
        for j in range(logits.size):
            total += _loss(logits[j], _TWO, False)
    elif gamma == _ZERO:
        for j in range(logits.size):
            total += _loss(logits[j], _ZERO, False)
    else:
        for j in range(logits.size):
            total += _loss(logits[j], gamma, True)
    return np.float64(total)


@_loop
def _write_slopes(logits: Array, gamma: Any, scale: Any, grad: Array) -> None:
    if gamma == _TWO:
        for j in range(logits.size):
            grad[j] = scale * _slope(logits[j], _TWO, False)
    elif gamma == _ZERO:
        for j in range(logits.size):
            grad[j] = scale * _slope(logits[j], _ZERO, False)
    else:
        for j in range(logits.size):
            grad[j] = scale * _slope(logits[j], gamma, True)


@_kernel
def loss_block(
    logits: Array, labels: Array, corner: Corner, num_classes: int, gamma: Any, weights: Weights, sums: Array
) -> None:
    """Writes the sum of the losses of each image to ``sums`` [n] float64. weights: of negatives and of positives."""
    anchors = slice(corner[1], corner[1] + logits.shape[1] // num_classes)
    for image in range(logits.shape[0]):
        row, classes = logits[image], labels[corner[0] + image, anchors]
        runs = negative_runs(classes, num_classes)
        negatives, positives = 0.0, 0.0
        for k in range(runs.shape[0]):
            negatives += _add_losses(row[runs[k, 0] : runs[k, 1]], gamma)
        for j in range(classes.size):
            if classes[j] >= 0:
                positives += _loss(-row[j * num_classes + classes[j]], gamma, True)
        sums[image] = weights[0] * negatives + weights[1] * positives


@_kernel
def slope_block(
    logits: Array, labels: Array, corner: Corner, num_classes: int, gamma: Any, scales: Array, grad: Array
) -> None:
    """Writes ``grad`` [n, r * K]. scales: [N, 2] float32, factors of an image's negative and positive slopes."""
    anchors = slice(corner[1], corner[1] + logits.shape[1] // num_classes)
    for image in range(logits.shape[0]):
        row, classes, out = logits[image], labels[corner[0] + image, anchors], grad[image]
        neg_scale, pos_scale = scales[corner[0] + image]
        runs = negative_runs(classes, num_classes)
        for k in range(runs.shape[0]):
            first, end = runs[k, 0], runs[k, 1]
            _write_slopes(row[first:end], gamma, neg_scale, out[first:end])
        own = np.zeros(classes.size, np.float32)
        for j in range(classes.size):
            if classes[j] >= 0:
                own[j] = -pos_scale * _slope(-row[j * num_classes + classes[j]], gamma, True)
        _fill_others(classes, num_classes, own, out)
