"""COCO's six AP of a split whose images have weights, from matches that are known: nothing is scored anew.

A weight of 2 stands for an image that is there twice. Precision and recall are pycocotools': at weight 1 the results
are its own. Free of torch. Legend: R sets of weights, N images, M detections, C categories, E events.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matches import AREA_RANGES, IOUS, Matches
from drloss.numba_cache import cached_njit

AP_METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL")
_RECALLS = np.linspace(0.0, 1.0, 101)
_RIGHT, _PARTLY = 1, 2  # of an event: a detection is right; it counts at some IoUs only
_CHUNK = 16  # sets of weights per task of a thread

_kernel = cached_njit(error_model="numpy", nogil=True)


def reweighted_ap(
    matches: Matches, weights: NDArray[np.integer[Any]], *, threads: int | None = None
) -> NDArray[np.float64]:
    """[R, 6] ``AP_METRICS`` in percent; NaN where the weighted images hold no object of that size.

    weights: [R, N], how often each image is there. Detections of equal score in one image count one after the other.
    """
    if weights.ndim != 2 or weights.shape[1] != len(matches.image_ids):
        raise ValueError(f"weights must be [R, {len(matches.image_ids)}], got {list(weights.shape)}")
    num_classes = len(matches.starts) - 1
    shape = (len(weights), num_classes, len(AREA_RANGES), IOUS, len(_RECALLS))
    positions, kinds, bounds = _events(matches.images, matches.starts, matches.matched, matches.ignored)

    def work(first: int) -> NDArray[np.float64]:
        part = np.ascontiguousarray(weights[first : first + _CHUNK], dtype=np.int64)
        precision = np.empty((len(part), *shape[1:]))
        _precision(
            part,
            matches.images,
            matches.starts,
            matches.ignored,
            positions,
            kinds,
            bounds,
            matches.object_images,
            matches.object_categories,
            matches.objects,
            _RECALLS,
            precision,
        )
        return np.array([_means(one) for one in precision])

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        parts = list(pool.map(work, range(0, len(weights), _CHUNK)))
    return 100 * np.concatenate(parts) if parts else np.zeros((0, len(AP_METRICS)))


def _means(precision: NDArray[np.float64]) -> list[float]:
    """[C, 4, IOUS, 101] -> the six means. Summed in pycocotools' order (IoU, recall, category), to the same bits."""
    ordered = np.ascontiguousarray(precision.transpose(1, 2, 3, 0))

    def mean(part: NDArray[np.float64]) -> float:
        known = part[part > -1]
        return float(np.mean(known)) if len(known) else float("nan")

    everything, small, medium, large = ordered
    return [mean(part) for part in (everything, everything[0], everything[5], small, medium, large)]


@_kernel
def _events(images: Any, starts: Any, matched: Any, ignored: Any) -> Any:
    """The detections that matter at one IoU: right ones, and those that do not count at every IoU.

    Returns positions [E], kinds [E], and where those of (category, area range, IoU) begin [C * 4 * IOUS + 1].
    """
    num_classes, num_areas = len(starts) - 1, len(matched)
    bounds = np.zeros(num_classes * num_areas * IOUS + 1, np.int64)
    positions, kinds = np.empty(0, np.int32), np.empty(0, np.uint8)
    for filling in (False, True):
        n = 0
        for c in range(num_classes):
            for a in range(num_areas):
                for t in range(IOUS):
                    for m in range(starts[c], starts[c + 1]):
                        if (ignored[a, m] >> t) & 1:
                            continue
                        kind = ((matched[a, m] >> t) & 1) * _RIGHT + (ignored[a, m] != 0) * _PARTLY
                        if kind:
                            if filling:
                                positions[n], kinds[n] = m, kind
                            n += 1
                    bounds[(c * num_areas + a) * IOUS + t + 1] = n
        if not filling:
            positions, kinds = np.empty(n, np.int32), np.empty(n, np.uint8)
    return positions, kinds, bounds


@_kernel
def _precision(
    weights: Any,
    images: Any,
    starts: Any,
    ignored: Any,
    positions: Any,
    kinds: Any,
    bounds: Any,
    object_images: Any,
    object_categories: Any,
    objects: Any,
    recalls: Any,
    out: Any,
) -> None:
    """Fill ``out`` [R, C, 4, IOUS, 101] with the precision at each recall; -1 where the images hold no object."""
    num_classes, num_areas = len(starts) - 1, objects.shape[1]
    counted = np.empty(max(1, len(images)), np.int64)
    right, total = np.empty(max(1, len(images)), np.int64), np.empty(max(1, len(images)), np.int64)
    for r in range(len(weights)):
        weight = weights[r]
        truth = np.zeros((num_classes, num_areas), np.int64)
        for g in range(len(object_images)):
            for a in range(num_areas):
                truth[object_categories[g], a] += weight[object_images[g]] * objects[g, a]
        for c in range(num_classes):
            for a in range(num_areas):
                if truth[c, a] == 0:
                    out[r, c, a] = -1.0
                    continue
                so_far = 0
                for m in range(starts[c], starts[c + 1]):
                    if ignored[a, m] == 0:
                        so_far += weight[images[m]]
                    counted[m] = so_far
                for t in range(IOUS):
                    cell = (c * num_areas + a) * IOUS + t
                    n = hits = partly = 0
                    for e in range(bounds[cell], bounds[cell + 1]):
                        w = weight[images[positions[e]]]
                        if kinds[e] & _PARTLY:
                            partly += w
                        if w and kinds[e] & _RIGHT:
                            hits += w
                            right[n], total[n] = hits, counted[positions[e]] + partly
                            n += 1
                    _interpolate(right, total, n, truth[c, a], recalls, out[r, c, a, t])


@_kernel
def _interpolate(right: Any, total: Any, n: int, truth: int, recalls: Any, out: Any) -> None:
    """The best precision at each recall or above: from the last right detection to the first."""
    out[:] = 0.0
    best, last = 0.0, len(recalls) - 1
    while n and last >= 0 and right[n - 1] / truth < recalls[last]:
        last -= 1
    for i in range(n - 1, -1, -1):
        best = max(best, right[i] / (total[i] + np.spacing(1.0)))
        before = right[i - 1] / truth if i else -1.0
        while last >= 0 and recalls[last] > before:
            out[last] = best
            last -= 1
