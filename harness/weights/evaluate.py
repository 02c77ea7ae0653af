"""``harness eval --recipe R --weights FILE``: evaluates a weights file of any known format on any COCO root."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.errors import DataError, WeightsError
from detector.runs.job import TrainJob
from detector.runs.record import SplitFingerprint
from detector.storage.files import write_json
from detector.storage.outputs import claim_file
from harness.code.version import current_code
from harness.registry.load import Registry
from harness.registry.resolve import jobs, resolve_recipe
from harness.weights.describe import fitting_recipes

if TYPE_CHECKING:
    from detector.data.coco.index import CocoIndex
    from detector.evaluation.scoring import Backend
    from detector.weights.read import Weights


EVALUATION_FILE = "evaluation.json"
DETECTIONS_FILE = "detections.json.gz"


@dataclass(frozen=True)
class FileEvaluation:
    """The result of evaluating a file. It is not a record, so no table shows it."""

    metrics: dict[str, float | None]
    split: str
    images: int
    notes: tuple[str, ...]
    written: tuple[Path, ...]


def evaluate_file(
    registry: Registry,
    name: str,
    file: Path,
    *,
    profile: str,
    overrides: Mapping[str, Any],
    root: Path,
    split: str,
    device: str,
    backend: Backend,
    out: Path | None,
    force: bool = False,
    report: Callable[[float], None],
) -> FileEvaluation:
    """Evaluate a weights file on a split of any COCO root, with a recipe's model and test settings.

    backend: the library that computes the metrics. report: told the share of images that are done, 0..1. out: a folder
    for the detections and ``evaluation.json``. force: replace those that are there. Raises UsageError where they are
    and it is not given, WeightsError before the data is opened, and DataError before the first image.
    """
    from detector.build import build_model
    from detector.data.coco.files import annotations_sha256
    from detector.data.coco.index import load_index
    from detector.device.environment import describe_environment
    from detector.device.precision import precision_context
    from detector.device.world import join_world
    from detector.evaluation.detections import write_detections
    from detector.evaluation.inference import detect_split
    from detector.evaluation.scoring import coco_metrics
    from detector.weights.load import check_class_names, load_detector
    from detector.weights.read import read_weights

    settings = resolve_recipe(registry, name, registry.profile(profile), overrides=overrides)
    job, test = jobs(settings, seed=0)
    if out is not None:
        for part in (DETECTIONS_FILE, EVALUATION_FILE):
            claim_file(out / part, force=force)
    weights = read_weights(file)
    _check_fits(registry, name, weights, job)
    started = time.perf_counter()
    index = load_index(root, split)
    notes = [*_data_notes(index), *_file_notes(weights)]
    category_ids = index.category_ids.tolist()
    check_class_names(weights, category_ids, index.category_names, f"{root}/{split}")
    model = build_model(job, num_classes=len(category_ids), test=test, pretrained=False)
    load_detector(model, weights, job, category_ids=category_ids)
    with join_world(device) as world:
        model.to(world.device)
        with precision_context(job.precision, world.device):
            detections, _ = detect_split(model, index, world, report)
        environment = describe_environment(world)
    metrics = coco_metrics(index, detections, backend)
    written: tuple[Path, ...] = ()
    if out is not None:
        written = (out / DETECTIONS_FILE, out / EVALUATION_FILE)
        write_detections(written[0], detections)
        fingerprint = SplitFingerprint(
            images=index.num_images, boxes=len(index.boxes), sha256=annotations_sha256(root, split)
        )
        evaluation = {
            "metrics": metrics,
            "scored_by": backend,
            "recipe": name,
            "profile": profile,
            "set": dict(overrides),
            "weights": {"name": file.name, "sha256": weights.sha256, "format": weights.format},
            # Without the recipe's seed and training data, which say nothing of a file that was trained elsewhere.
            "settings": {"model": job.model, "box_convention": job.box_convention, "test": test},
            "split": split,
            "split_fingerprint": fingerprint,
            "environment": environment,
            "code": current_code(),
            "seconds": round(time.perf_counter() - started, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "notes": notes,
        }
        write_json(written[1], evaluation)
    return FileEvaluation(metrics, split, index.num_images, tuple(notes), written)


def _check_fits(registry: Registry, name: str, weights: Weights, job: TrainJob) -> None:
    """Raise WeightsError where the file's network is not the recipe's, naming the recipes that have it."""
    from detector.weights.load import differences

    if weights.kind == "backbone":
        raise WeightsError(
            f"{weights.file} is a backbone ({weights.format}), without a pyramid and a head: nothing to evaluate. "
            "Train from it: harness run TARGET --weights FILE."
        )
    found = differences(weights, job)
    if found:
        fitting = fitting_recipes(registry, weights)
        raise WeightsError(
            f"{weights.file} ({weights.format}) has another network than recipe {name}: "
            f"{'; '.join(map(str, found))}. Shipped recipes with its network: {', '.join(fitting) or 'none'}."
        )


def _data_notes(index: CocoIndex) -> list[str]:
    """Which images they are. Raises DataError where they have no labels or some are missing."""
    from detector.data.coco.files import is_labelled
    from detector.data.coco.verify import check_release, missing_images

    if not is_labelled(index.root, index.split):
        raise DataError(f"{index.root}: {index.split} has no public labels, so nothing can be scored. Give --split.")
    missing = missing_images(index)
    if missing:
        raise DataError(
            f"{index.root}/{index.split} lacks {len(missing):,} image files, first {missing[0]}. "
            f"Run 'harness data verify {index.root}'."
        )
    try:
        check_release(index, "2017")
    except DataError:
        return [
            f"{index.num_images:,} images that are not the whole of a COCO 2017 split: not comparable with "
            "published numbers"
        ]
    return [f"{index.num_images:,} images: the whole of COCO's {index.split}"]


def _file_notes(weights: Weights) -> list[str]:
    return [] if weights.network is not None else ["the file does not give its network; the recipe's was used"]
