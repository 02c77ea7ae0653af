"""The record of a finished evaluation: one small, self-contained JSON file. Free of torch."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from detector.runs.code import Code
from detector.runs.findings import Curves, Health, LostAP, Scores
from detector.runs.job import EvalJob
from detector.runs.provenance import ImagesDigest, Inputs, Start
from detector.runs.timing import StepTiming

RECORD_FORMAT = 1
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
    found = []
    if (a.eval_id == a.job.id) != (b.eval_id == b.job.id):
        found.append("semantics: one was made before a component's results were changed")
    if (one.model.backbone, one.model.weights) == (other.model.backbone, other.model.weights):
        found += _unlike(f"weights ({one.model.weights})", _weights(a), _weights(b))
    if one.data == other.data:
        found += _unlike("training annotations", a.train_split.sha256, b.train_split.sha256)
        found += _unlike_images("training images", _inputs(a).train_images, _inputs(b).train_images)
        if a.job.split == b.job.split:
            found += _unlike("test annotations", a.test_split.sha256, b.test_split.sha256)
            found += _unlike_images("test images", _inputs(a).test_images, _inputs(b).test_images)
    return tuple(found)


def _inputs(record: Record) -> Inputs:
    return record.inputs or Inputs()


def _weights(record: Record) -> str | None:
    weights = _inputs(record).weights
    return weights.sha256 if weights is not None else None


def _unlike(name: str, a: str | None, b: str | None) -> list[str]:
    return [f"{name}: sha256 {a[:8]} and {b[:8]}"] if a and b and a != b else []


def _unlike_images(name: str, a: ImagesDigest | None, b: ImagesDigest | None) -> list[str]:
    """By content where both know it: the same pixels written by another library are files of other sizes."""
    if a is None or b is None:
        return []
    if a.content and b.content:
        return _unlike(name, a.content, b.content)
    if (a.images, a.names_and_sizes) != (b.images, b.names_and_sizes):
        return [
            f"{name}: {a.images:,} files of {a.bytes:,} bytes and {b.images:,} of {b.bytes:,}, names and sizes differ"
        ]
    return []
