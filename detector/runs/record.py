"""The record of a finished evaluation: one small, self-contained JSON file, and what it must be to be believed.

Free of torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from detector.errors import HarnessError, MissingLossError, RecordError
from detector.runs.code import Code
from detector.runs.findings import Curves, Health, LostAP, LostParts, Scores, impossible_parts
from detector.runs.job import LARGEST, EvalJob
from detector.runs.origin.loss_package import missing_loss
from detector.runs.provenance import Inputs, Start, unlike, unlike_images, unlike_weights
from detector.runs.timing import StepTiming
from detector.storage.outputs import path_part
from detector.storage.reading import decode_json, read_bytes

RECORD_FORMAT = 2
FORMATS = (1, 2)  # that can be read
# In the order of pycocotools' stats; in percent, AR for average recall.
COCO_METRICS: Final = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")
OF_A_SIZE: Final = ("APS", "APM", "APL", "ARS", "ARM", "ARL")  # None where the test set has no such object
SCORE_METRICS: Final = ("positive_score", "negative_score")
MOST_SECONDS: Final = 10 * 365 * 86400.0  # ten years
MOST_BYTES: Final = 2**20  # a record has 4 kB, with its curves some 30
ROUNDING: Final = 1e-6  # percent: two means of the same numbers may differ in their last bits
# Of format 2; format 1 has none of them.
_LATER: Final = ("starts", "evaluation", "inputs", "health", "scores", "curves", "lost_ap", "lost_parts", "sha256")


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
    fields (``content_hash``). ``lost_parts`` came later: without it a record is what it was, its hash included.
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
    lost_parts: LostParts | None = None
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


def read_record(path: Path) -> Record:
    """One record from its file. Raises RecordError as ``decode_record``, naming the file and what to do with it."""
    try:
        return decode_record(read_bytes(path, most=MOST_BYTES), where=str(path))
    except MissingLossError:
        raise
    except RecordError as error:
        raise RecordError(f"{error} Move it away.") from error


def decode_record(content: bytes, *, where: str) -> Record:
    """One record from its bytes. where: its file, or its place in an archive.

    Raises RecordError for one that is damaged, was edited, is not of the job that it names, or has numbers that cannot
    be; MissingLossError where its loss comes from a package that is not here.
    """
    try:
        record = decode_json(content, Record, where=where, unique=False)
        if record.format == 1:  # a later one has a hash, which shows what was read
            decode_json(content, Record, where=where)
    except RecordError as error:
        plain = _plain(content)
        with suppress(LookupError, TypeError, AttributeError):
            if missing := missing_loss(plain["job"]["train"]):
                raise MissingLossError(f"{where} cannot be read: {missing}") from error
        found = plain.get("format")
        if isinstance(found, int) and found > max(FORMATS):
            raise RecordError(f"{where}: {_newer(found)}.") from error
        raise
    if wrong := contradiction(record):
        raise RecordError(f"{where}: {wrong}.")
    return record


def _plain(content: bytes) -> dict[str, Any]:
    with suppress(HarnessError):
        return decode_json(content, dict[str, Any], where="")
    return {}


def _newer(found: int) -> str:
    return f"it was written by a newer version: it has format {found}; this one reads {' and '.join(map(str, FORMATS))}"


def contradiction(record: Record) -> str:
    """In which respect a record is not what it says it is, or cannot be, in a sentence without its end; empty: in none.

    Records of format 1 have no hash: only their ids and the ranges of their numbers can be checked.
    """
    if record.format > max(FORMATS):
        return _newer(record.format)
    if record.format not in FORMATS:
        return f"it has format {record.format}; this version reads {' and '.join(map(str, FORMATS))}"
    try:
        ids = record.job.ids
        path_part(record.profile, "its profile", raises=RecordError)
    except HarnessError as error:
        return str(error).rstrip(".")
    if ids != (record.eval_id, record.train_id):
        return (
            f"its job has the ids {ids[0]} and {ids[1]}, not {record.eval_id} and {record.train_id}: it was edited, or "
            "written by code whose results have changed since"
        )
    if record.format == 1 and (later := [name for name in _LATER if getattr(record, name) not in (None, ())]):
        return f"it says that it has format 1, which has no {', '.join(later)}: it was edited"
    if record.sha256 is None and record.format > 1:
        return "it has no hash of its content, which every record of format 2 is written with: it was edited"
    if record.sha256 is not None and record.sha256 != content_hash(record):
        return "its content does not have the hash that it names: it was edited after it was written"
    return next(_impossible(record), "")


def misplaced(record: Record, path: Path) -> str:
    """In which respect a file's place is not that of its record, in a sentence without its end; empty: in none.

    path: as ``RunDir.record`` has it, or ``PROFILE/EVALUATION.json``. A run's folder may have a name of the user's.
    """
    whole = path.absolute()
    if path.name != "record.json":
        here, there = f"{whole.parent.name}/{whole.stem}", f"{record.profile}/{record.eval_id}"
        return "" if here == there else f"it is the record of {there}, not of {here}, as its name says"
    if whole.parent.name != record.eval_id:
        return f"it is the record of the evaluation {record.eval_id}, not of {whole.parent.name}, as its folder says"
    run = whole.parents[2].name
    is_id = len(run) == len(record.train_id) and all(digit in "0123456789abcdef" for digit in run)
    if is_id and run != record.train_id:
        return f"it is a record of the training {record.train_id}, not of {run}, as its folder says"
    return ""


def _impossible(record: Record) -> Iterator[str]:
    """What cannot be of a record's numbers, in sentences without their end."""
    yield from _impossible_metrics(record.metrics)
    for what, value, least, most in _ranges(record):
        if value is not None and not least <= value <= most:
            yield f"its {what} is {value:g}, which is not in {least:g} .. {most:g}"
    try:
        datetime.fromisoformat(record.finished)
    except ValueError:
        yield f"its time of finishing is {record.finished[:40]!r}, which is no time"
    if record.scores is not None and len(record.scores.positives) != len(record.scores.negatives):
        yield "its scores have other bins for positives than for negatives"
    if record.lost_parts is not None:
        if record.lost_ap is None:
            yield "it has lost AP in parts of its test set and none in all"
        yield from impossible_parts(record.lost_parts, boxes=record.test_split.boxes)
    if record.curves is not None:
        points = len(record.curves.iterations)
        yield from (
            f"its curve of {name} has {len(values)} points, not {points}"
            for name, values in record.curves.values.items()
            if len(values) != points
        )


def _impossible_metrics(metrics: dict[str, float | None]) -> Iterator[str]:
    if metrics.get("AP") is None:
        yield "it has no AP"
    for name, value in metrics.items():
        if name not in COCO_METRICS + SCORE_METRICS:
            known = ", ".join(COCO_METRICS + SCORE_METRICS)
            yield f"it has a metric {name[:40]!r}. Known: {known}"
        elif value is None:
            if name not in OF_A_SIZE + SCORE_METRICS:
                yield f"its {name} is null"
        elif not 0 <= value <= (1 if name in SCORE_METRICS else 100):
            yield f"its {name} is {value:g}, which is not in 0 .. {1 if name in SCORE_METRICS else 100}"
    top = metrics.get("AP50")
    for name in ("AP", "AP75"):
        if (value := metrics.get(name)) is not None and top is not None and value > top + ROUNDING:
            yield f"its {name} of {value:g} is above its AP50 of {top:g}, which cannot be"


def _ranges(record: Record) -> Iterator[tuple[str, float | None, float, float]]:
    """(what, value, least, most) of every number that is no metric."""
    yield "train_seconds", record.train_seconds, 0, MOST_SECONDS
    yield "eval_seconds", record.eval_seconds, 0, MOST_SECONDS
    for name, split in (("training split", record.train_split), ("test split", record.test_split)):
        yield f"number of images in the {name}", split.images, 0, LARGEST
        yield f"number of boxes in the {name}", split.boxes, 0, LARGEST
    evaluations = (record.evaluation,) if record.evaluation is not None else ()
    for start in (*record.starts, *evaluations):
        yield "number of processes", start.processes, 1, LARGEST
        yield "number of threads", start.threads, 0, LARGEST
        yield "number of groups per forward", start.groups_per_forward, 0, LARGEST
        yield "iteration of a start", start.iteration, 0, record.job.train.schedule.iterations
    inputs = record.inputs or Inputs()
    for images in (inputs.train_images, inputs.test_images):
        if images is not None:
            yield "number of image files", images.images, 0, LARGEST
            yield "size of the images", images.bytes, 0, 2**63
    if (timing := record.timing) is not None:
        yield "number of timed iterations", timing.iterations, 1, LARGEST
        yield "time of the iterations", timing.seconds, 0, MOST_SECONDS
        yield "time waiting for data", timing.data_seconds, 0, MOST_SECONDS
        yield "time of the loop", timing.host_seconds, 0, MOST_SECONDS
        yield "images per second", timing.images_per_second, 0, 1e9
        yield "share of a busy GPU", timing.device_busy, 0, 1
        yield "peak memory in GiB", timing.peak_memory_gib, 0, 1e6
    yield from _ranges_of_findings(record)


def _ranges_of_findings(record: Record) -> Iterator[tuple[str, float | None, float, float]]:
    if record.scores is not None:
        for counts in (record.scores.positives, record.scores.negatives):
            yield "smallest number of scores in a bin", min(counts, default=0), 0, LARGEST
            yield "largest number of scores in a bin", max(counts, default=0), 0, LARGEST
    if record.curves is not None:
        yield "first logged iteration", min(record.curves.iterations, default=0), 0, LARGEST
        yield "last logged iteration", max(record.curves.iterations, default=0), 0, record.job.train.schedule.iterations
    if record.lost_ap is not None:
        yield from (
            (f"lost AP ({name})", value, -100, 100) for name, value in msgspec.structs.asdict(record.lost_ap).items()
        )
