"""What a finished training shows beside its AP: its health, its scores, its curves, its errors. Free of torch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from detector.runs.job import LARGEST

HealthName = Literal["no learning", "no detections", "dead gradients", "dead level", "diverging boxes", "collapsed"]
MOST_POINTS = 200  # of a curve in a record


class Health(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that is wrong with a training although it ended. message: with the numbers that show it."""

    name: HealthName
    message: str


class Scores(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the sigmoid scores of the test set's entries are spread (Fig. 4): counts in bins of equal width over 0..1.

    positives, negatives: counts, the first bin from 0. The sums and sums of squares are of the scores themselves.
    """

    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    positive_sums: tuple[float, float]
    negative_sums: tuple[float, float]


class Curves(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Curves of ``metrics.jsonl`` at ``MOST_POINTS`` iterations or fewer, the first and the last included."""

    iterations: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]


class LostAP(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AP (percent, at IoU 0.5) that would be won if all errors of one kind were mended (TIDE, Bolya et al., 2020).

    classification: right box, wrong class. localisation: right class, IoU too low. both: both wrong. duplicate: another
    detection of a box. background: on no object. missed: no detection at all.
    """

    classification: float
    localisation: float
    both: float
    duplicate: float
    background: float
    missed: float


def logged(line: bytes) -> dict[str, float] | None:
    """One line of ``metrics.jsonl``: its numbers, with ``iteration`` as a whole number; None where it is damaged."""
    try:
        import json  # not above: ``harness --help`` reads this file

        found = json.loads(line.decode())
        whole = int(found["iteration"])
        point = {str(name): float(value) for name, value in found.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None
    return point | {"iteration": whole} if 0 <= whole <= LARGEST else None
