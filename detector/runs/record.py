"""The record of a finished evaluation: one small, self-contained JSON file. Free of torch."""

from __future__ import annotations

from msgspec import Struct

from detector.runs.job import EvalJob
from detector.runs.timing import StepTiming

RECORD_FORMAT = 1


class SplitFingerprint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a split really held when it was used."""

    images: int
    boxes: int
    sha256: str  # of the annotation file


class Code(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The code that ran: the commit, and whether the checkout differed from it. None outside a checkout.

    ``diff_sha256``: of the packages' difference from the commit where there is one; the run's folder has its text.
    ``loss_sha256``: of the source of the package that the loss comes from; None for a built-in loss.
    """

    version: str
    commit: str | None
    modified: bool | None
    diff_sha256: str | None = None
    loss_sha256: str | None = None


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Everything needed to use and to judge one result.

    ``metrics``: COCO's in percent, unrounded, None where the test set has no object of that size; and
    ``positive_score`` / ``negative_score``, the mean sigmoid score of the positive and negative entries (Fig. 4).
    ``notes``: what departs from the paper or from bit-for-bit repeatability, in words. ``timing``: where the training's
    time went; None (and not written) where it was not noted.
    """

    format: int
    eval_id: str
    train_id: str
    profile: str
    job: EvalJob
    metrics: dict[str, float | None]
    train_split: SplitFingerprint
    test_split: SplitFingerprint
    environment: dict[str, str]
    code: Code
    train_seconds: float
    eval_seconds: float
    finished: str  # UTC, ISO 8601
    notes: tuple[str, ...]
    timing: StepTiming | None = None
