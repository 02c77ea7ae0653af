"""What is sent to COCO's evaluation server: detections within its limits, in the zip that it takes. Free of torch.

The server holds the labels that are not public (test-dev). What was sent is kept beside the run, so that its answer can
be recorded later, on a machine without the data.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from detector.errors import RecordError, UsageError
from detector.evaluation.detections import Detections
from detector.runs.code import Code
from detector.runs.findings import Health
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.provenance import Inputs, Start
from detector.runs.record import SplitFingerprint
from detector.runs.timing import StepTiming
from detector.storage.files import write_json
from detector.storage.reading import read_json

EXPORT_FILE = "export.json"
MAX_DETECTIONS = 100  # per image; COCO's metrics look at no more
BOX_DECIMALS = 2  # of a pixel
SCORE_DECIMALS = 6
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
# The earliest time that a zip can hold, for all members: the same detections are the same bytes.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class Sent(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The zip that was written last."""

    name: str
    detections: int
    sha256: str


class Export(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Detections of a run on a split, kept beside them: all that a record needs besides the server's numbers.

    ``format``: of the record to come. ``sent``: None as long as no zip was written. ``seconds``: of the detection.
    What follows ``timing``: as in the record; not known where ``format`` is 1.
    """

    format: int
    eval_id: str
    profile: str
    job: EvalJob
    train_split: SplitFingerprint
    test_split: SplitFingerprint
    environment: dict[str, str]
    code: Code
    train_seconds: float
    seconds: float
    finished: str  # UTC, ISO 8601
    notes: tuple[str, ...]
    sent: Sent | None
    timing: StepTiming | None = None
    starts: tuple[Start, ...] = ()
    evaluation: Start | None = None
    inputs: Inputs | None = None
    health: tuple[Health, ...] | None = None


class _Entry(Struct, frozen=True, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


def check_name(name: str) -> None:
    """Raise UsageError for a name that the server's file names cannot carry."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: a name is 1 to 100 letters, digits, dots, underscores and hyphens.")


def file_stem(split: str, name: str) -> str:
    """Name of the zip, and of the file in it, without ``.zip`` and ``.json``."""
    return f"detections_{split}_{name}_results"


def best_of_each_image(detections: Detections, limit: int) -> Detections:
    """At most ``limit`` detections per image, the best first; sorted by image, ties in their order."""
    order = np.lexsort((-detections.scores, detections.image_ids))
    image_ids = detections.image_ids[order]
    rank = np.arange(len(image_ids)) - np.searchsorted(image_ids, image_ids)
    kept = order[rank < limit]
    return Detections(
        image_ids=detections.image_ids[kept],
        category_ids=detections.category_ids[kept],
        boxes=detections.boxes[kept],
        scores=detections.scores[kept],
    )


def pack(detections: Detections, split: str, name: str) -> tuple[bytes, Sent]:
    """The server's zip and what is kept about it; the same bytes for the same detections.

    Boxes keep 0.01 pixels, scores six decimals, each image its best 100. The detections have been checked.
    """
    best = best_of_each_image(detections, MAX_DETECTIONS)
    columns = (
        best.image_ids.tolist(),
        best.category_ids.tolist(),
        (np.round(best.boxes, BOX_DECIMALS) + 0.0).tolist(),  # + 0.0: no -0.0
        np.round(best.scores, SCORE_DECIMALS).tolist(),
    )
    entries = [_Entry(i, c, tuple(box), score) for i, c, box, score in zip(*columns, strict=True)]
    member = zipfile.ZipInfo(f"{file_stem(split, name)}.json", ZIP_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3  # Unix, on every machine
    member.external_attr = 0o644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, msgspec.json.encode(entries), compresslevel=6)
    content = buffer.getvalue()
    return content, Sent(name=name, detections=len(entries), sha256=hashlib.sha256(content).hexdigest())


def write_export(run: RunDir, export: Export) -> None:
    """Keep ``export`` in the run folder, beside its detections."""
    write_json(run.evaluation(export.eval_id) / EXPORT_FILE, export)


def read_export(run: RunDir, eval_id: str) -> Export | None:
    """What was exported of one evaluation, or None. Raises RecordError as ``find_exports``."""
    path = run.evaluation(eval_id) / EXPORT_FILE
    return _read(path) if path.exists() else None


def find_exports(runs: Path) -> list[tuple[RunDir, Export]]:
    """Everything exported from the runs in a folder.

    Raises RecordError for a file that is damaged or not of its folder.
    """
    return [
        (RunDir(path.parents[2]), _read(path)) for path in sorted(runs.glob(f"{'[0-9a-f]' * 16}/evals/*/{EXPORT_FILE}"))
    ]


def _read(path: Path) -> Export:
    export = read_json(path, Export)
    if not path.parent.name == export.eval_id == export.job.id:
        raise RecordError(
            f"{path}: its job has the id {export.job.id}: it was edited, moved, or written by code whose results have "
            "changed since. Move it away and export again."
        )
    return export
