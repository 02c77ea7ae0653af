"""The record of a finished evaluation: one small, self-contained JSON file. Free of torch."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from detector.runs.code import Code
from detector.runs.findings import Curves, Health, LostAP, Scores
from detector.runs.job import EvalJob
from detector.runs.provenance import Inputs, Start, unlike, unlike_images, unlike_weights
from detector.runs.timing import StepTiming

RECORD_FORMAT = 2
FORMATS = (1, 2)  # that can be read


class SplitFingerprint(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a split really held when it was used."""

    images: int
    boxes: int
    sha256: str  # of the annotation file


class Record(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Everything needed to use and to judge one result.

    ``metrics``: COCO's in percent, unrounded, None where the test set has no object of that size; and
    ``positive_score`` / ``negative_score``, the mean sigmoid score of the positive and negative entries (Fig. 4).
    ``notes``: what departs from the paper or from bit-for-bit repeatability, in words. ``timing``: where the training's
    time went; None (and not written) where it was not noted.

    Format 2 adds what follows ``timing``; in format 1 it is unknown, and neither there nor written. ``environment`` and
    ``code`` are those of the training's last start; in format 1, those of the evaluation. ``starts``: of the training,
    the first first. ``evaluation``: what scored it. ``health``: empty where nothing was found. ``sha256``: of all other
    fields (``content_hash``).
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
    starts: tuple[Start, ...] = ()
    evaluation: Start | None = None
    inputs: Inputs | None = None
    health: tuple[Health, ...] | None = None
    scores: Scores | None = None
    curves: Curves | None = None
    lost_ap: LostAP | None = None
    sha256: str | None = None


def content_hash(record: Record) -> str:
    """sha256 of the record's fields in a canonical form, all but ``sha256`` itself."""
    blank = msgspec.structs.replace(record, sha256=None)
    return hashlib.sha256(msgspec.json.encode(blank, order="sorted")).hexdigest()


def differences(a: Record, b: Record) -> tuple[str, ...]:
    """In words, what two records that should share their inputs and components do not share; () if nothing.

    Only what both jobs name alike is compared: another backbone, split or data set is a setting, and the jobs say so.
    What one of the records does not know (format 1 has no weights and no images) is no difference.
    """
    one, other = a.job.train, b.job.train
    mine, others = (a.inputs or Inputs(), b.inputs or Inputs())
    found = []
    if (a.eval_id == a.job.id) != (b.eval_id == b.job.id):
        found.append("semantics: one was made before a component's results were changed")
    if (one.model.backbone, one.model.weights) == (other.model.backbone, other.model.weights):
        found += unlike_weights(mine, others)
    if one.data == other.data:
        found += unlike("training annotations", a.train_split.sha256, b.train_split.sha256)
        found += unlike_images("training images", mine.train_images, others.train_images)
        if a.job.split == b.job.split:
            found += unlike("test annotations", a.test_split.sha256, b.test_split.sha256)
            found += unlike_images("test images", mine.test_images, others.test_images)
    return tuple(found)
