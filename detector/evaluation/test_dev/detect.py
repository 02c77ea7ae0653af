"""Detections of a trained run on a split without labels: checked beforehand, kept beside the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from detector.build import build_trained
from detector.data.coco.files import annotations_sha256
from detector.data.coco.index import CocoIndex, load_index
from detector.data.coco.problems import summary
from detector.data.coco.releases import how_to_get
from detector.data.coco.verify import check_images, check_release, missing_images
from detector.data.digest import images_digest
from detector.data.splits import check_categories
from detector.device.environment import start_here
from detector.device.precision import precision_context
from detector.device.world import World
from detector.errors import DataError, RecordError
from detector.evaluation.detections import check_detections, write_detections
from detector.evaluation.inference import detect_split
from detector.evaluation.test_dev.package import Export, read_export, write_export
from detector.evaluation.training_part import joined_health, training_part
from detector.runs.code import Code
from detector.runs.folder import RunDir, read_own_record
from detector.runs.job import CocoRelease, EvalJob
from detector.runs.record import RECORD_FORMAT, Record, SplitFingerprint
from detector.runs.timing import recorded
from detector.sanity.health import evaluation_health
from detector.weights.final import read_final


@dataclass(frozen=True)
class Origin:
    """What the record needs and the run's folder lacks: profile, code that detects, notes on deviations."""

    profile: str
    code: Code
    notes: tuple[str, ...]


def open_export_split(job: EvalJob, root: Path) -> CocoIndex:
    """The images of the job's split. Raises DataError where they are not those of the release that it names."""
    assert job.split is not None
    index = load_index(root, job.split)
    if isinstance(job.train.data, CocoRelease):
        check_release(index, job.train.data.release)
    return index


def stored_export(run: RunDir, job: EvalJob, index: CocoIndex) -> Export | None:
    """What is kept of the same job on the same images, or None.

    Raises RecordError where the split had other images then: what was sent is never overwritten.
    """
    export = read_export(run, job.id)
    if export is None or not run.detections(job.id).exists():
        return None
    if export.test_split != _fingerprint(index):
        raise RecordError(
            f"{run.evaluation(job.id)} holds detections on {export.test_split.images:,} images of {index.split}, by "
            f"another annotation file than that of {index.root} ({index.num_images:,} images). Give the root that they "
            "are of with --data, or move that folder away to export again."
        )
    return export


def detect_and_store(
    origin: Origin,
    job: EvalJob,
    run: RunDir,
    index: CocoIndex,
    *,
    world: World,
    report: Callable[[float], None],
) -> Export:
    """Detect on every image of ``index`` and keep the detections and, last, what they are. One process.

    report: told the share that is done, 0..1. Raises DataError for other categories than the training's and for
    missing or broken images, RecordError for a run without any finished evaluation.
    """
    started = time.perf_counter()
    train_split = _any_record(run).train_split
    final = read_final(run, job.train)
    trained = training_part(final, job.train.precision)
    check_categories(index, final["category_ids"], final.get("category_names"))
    _check_files(index)
    model = build_trained(job.train, final, test=job.test, device=world.device)
    with precision_context(job.train.precision, world.device):
        detections, _ = detect_split(model, index, world, report)
    check_detections(index, detections)
    export = Export(
        format=RECORD_FORMAT,
        eval_id=job.id,
        profile=origin.profile,
        job=job,
        train_split=trained.split or train_split,
        test_split=_fingerprint(index),
        environment=trained.environment,
        code=trained.code,
        train_seconds=round(final["seconds"], 3),
        seconds=round(time.perf_counter() - started, 3),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=(*origin.notes, *trained.notes),
        sent=None,
        timing=recorded(final.get("timing")),
        starts=trained.starts,
        evaluation=start_here(world, origin.code, job.train.precision),
        inputs=replace(trained.inputs, test_images=images_digest(index)),
        health=joined_health(trained.health, evaluation_health(len(detections), {})),
    )
    write_detections(run.detections(job.id), detections)
    write_export(run, export)
    return export


def _fingerprint(index: CocoIndex) -> SplitFingerprint:
    sha256 = annotations_sha256(index.root, index.split)
    return SplitFingerprint(images=index.num_images, boxes=len(index.boxes), sha256=sha256)


def _any_record(run: RunDir) -> Record:
    """A finished evaluation, which knows what the run was trained on."""
    broken: RecordError | None = None
    for path in sorted(run.root.glob("evals/*/record.json")):
        try:
            return read_own_record(path)
        except RecordError as error:
            broken = error
    if broken is not None:
        raise broken
    raise RecordError(f"{run.root} is trained, but not evaluated. Finish it first, with 'harness run'.")


def _check_files(index: CocoIndex) -> None:
    """Raise DataError for images that would stop the detection half-way; their pixels are not decoded yet."""
    verify = f"Run 'harness data verify {index.root} --split {index.split}'."
    missing = missing_images(index)
    if missing:
        raise DataError(
            f"{index.root / index.image_folder} lacks {len(missing):,} of the {index.num_images:,} image files of "
            f"{index.split}, first {missing[0]}{how_to_get(index.split)}. {verify}"
        )
    problems = check_images(index, decode=False)
    if problems:
        raise DataError(f"{index.root}: {summary(problems)}. {verify}")
