"""The two halves of a run: train to the final weights; evaluate them and write the record, last."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins
from msgspec.structs import replace

from detector.build import build_model, build_trained, read_pretrained
from detector.data.coco.index import CocoIndex
from detector.data.digest import images_digest
from detector.data.loader import TrainingData
from detector.data.splits import Part, check_categories, fingerprint, open_split
from detector.data.workers.room import explained_deaths
from detector.device.environment import start_here
from detector.device.precision import precision_context
from detector.device.world import World
from detector.evaluation.detections import Detections, write_detections
from detector.evaluation.errors import errors_of
from detector.evaluation.inference import detect_split
from detector.evaluation.matches import write_matches
from detector.evaluation.score_sums import ScoreSums
from detector.evaluation.scoring import coco_metrics, coco_metrics_and_matches, fast_backend
from detector.evaluation.training_part import TrainingPart, joined_health, training_part
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import WORKER_LOG, Assignment
from detector.runs.folder import RunDir
from detector.runs.job import DataSource, EvalJob, ModelSettings
from detector.runs.log_lines import FINAL_AP, STARTED, evaluated_after
from detector.runs.provenance import FileDigest, Inputs
from detector.runs.record import RECORD_FORMAT, Record, SplitFingerprint, content_hash
from detector.runs.timing import recorded
from detector.sanity.health import evaluation_health
from detector.storage.files import write_json
from detector.storage.retry import retry
from detector.training.evidence import HealthWatch, curves_of, in_words, log_lines
from detector.training.pace import Pace
from detector.training.train import Begun, Progress, train
from detector.weights import checkpoint
from detector.weights.final import read_final
from detector.weights.find import published_name
from detector.weights.network import network_of
from detector.weights.read import Weights
from detector.worker.leaving import signals_at_once
from detector.worker.reports import Heartbeat

logger = logging.getLogger(WORKER_LOG)


def train_to_final(
    assignment: Assignment, run: RunDir, *, world: World, heartbeat: Heartbeat | None, stop: Any
) -> None:
    """Train and write ``final.pt``: weights, their network, categories, and how the training went.

    It is there when any process returns.
    """
    job = assignment.train
    model, data, weights = fresh_training(assignment, world)
    index = data.index
    begun = _begin(assignment, world, index, weights)
    if world.is_main and not any(run.checkpoints.glob("*.pt")):
        retry(lambda: write_json(run.inputs, begun.inputs), f"writing {run.inputs}")
    watch = HealthWatch(run, job, index)
    logger.info("%s%s: %d images, %d iterations", STARTED, job.id, len(data.positions), job.schedule.iterations)

    def report(progress: Progress) -> None:
        if heartbeat is not None:
            heartbeat.beat(
                "training",
                iteration=progress.iteration,
                loss=progress.loss,
                seconds_per_iteration=progress.timing.seconds_per_iteration,
                data_share=progress.timing.data_share,
                device_busy=progress.timing.device_busy,
                images_per_second=progress.timing.images_per_second,
                note=progress.note,
                health=watch.look(progress.iteration),
            )

    def evaluate(iteration: int) -> None:
        with stop.at_once(signals_at_once(world)):
            ap = evaluate_so_far(assignment, model, world=world, heartbeat=heartbeat)
        logger.info("%s", evaluated_after(iteration, ap))
        if heartbeat is not None:
            heartbeat.beat("training", force=True, ap=ap)

    with explained_deaths(assignment.loader_workers):
        result = train(
            job,
            model,
            data,
            run,
            world=world,
            pace=pace_of(assignment),
            anchor_ranges=assignment.anchor_ranges,
            report=report,
            evaluate=evaluate,
            stop=stop,
            begun=begun,
        )
    if world.is_main:
        watch.finish()
        if heartbeat is not None:
            heartbeat.beat("training", health=in_words(watch.found))
        state = {
            "train_id": job.id,
            "model": model.state_dict(),
            "network": to_builtins(network_of(job)),
            "category_ids": index.category_ids.tolist(),
            "category_names": list(index.category_names),
            "starts": to_builtins(result.starts),
            "inputs": to_builtins(result.inputs),
            "train_split": to_builtins(_fingerprint(job.data, Path(assignment.data_root), "train", index)),
            "health": to_builtins(watch.found),
            "seconds": result.seconds,
            "timing": to_builtins(result.timing),
        }
        if result.loss_sources:
            state["loss_sources"] = result.loss_sources
        retry(lambda: checkpoint.save(run.final, state), f"writing {run.final}")
        retry(lambda: checkpoint.drop_steps(run.checkpoints), "removing checkpoints")
    world.gather(None)


def fresh_training(assignment: Assignment, world: World) -> tuple[RetinaNet, TrainingData, Weights | None]:
    """The model as a training begins with it, the data of this process, and the file that the model began with."""
    job = assignment.train
    given = Path(assignment.weights_file) if assignment.weights_file else None
    weights = read_pretrained(job, given) if job.model.weights != "none" else None
    index = _open(job.data, Path(assignment.data_root), "train")
    data = TrainingData(job, index, rank=world.rank, world_size=world.size)
    torch.manual_seed(job.seed)
    model = build_model(
        job,
        num_classes=len(index.category_ids),
        test=assignment.evals[0].test,
        pretrained=weights or False,
        category_ids=index.category_ids.tolist(),
    )
    return model.to(world.device), data, weights


def _begin(assignment: Assignment, world: World, index: CocoIndex, weights: Weights | None) -> Begun:
    """This start, and what it reads; the same in all processes."""
    job, root = assignment.train, Path(assignment.data_root)
    start = start_here(
        world,
        assignment.code,
        job.precision,
        groups_per_forward=assignment.groups_per_forward,
        compiled=assignment.compile,
        deterministic=assignment.deterministic,
    )
    inputs = Inputs()
    if world.is_main:
        inputs = Inputs(
            weights=None if weights is None else _digest(job.model, weights),
            train_annotations=_fingerprint(job.data, root, "train", index).sha256,
            train_images=images_digest(index),
        )
    return Begun([start], world.from_main(inputs))


def _digest(model: ModelSettings, weights: Weights) -> FileDigest:
    name = published_name(model.weights, model.backbone, weights.file)
    return FileDigest(name=name, sha256=weights.sha256)


def pace_of(assignment: Assignment) -> Pace:
    """How the assignment's training is executed."""
    return Pace(
        assignment.checkpoint_every,
        assignment.groups_per_forward,
        assignment.loader_workers,
        assignment.evaluate_every,
        assignment.compile,
        assignment.cuda_graphs,
        assignment.deterministic,
    )


def evaluate_so_far(
    assignment: Assignment, model: RetinaNet, *, world: World, heartbeat: Heartbeat | None = None
) -> float | None:
    """AP (percent) of a model in training, which it leaves as it was; None in all processes but the main one.

    For people who watch: it decides nothing and is in no record. Scored by a fast library where there is one.
    """
    job = assignment.train
    index = _open(job.data, Path(assignment.data_root), "test")

    def report(share: float) -> None:
        if heartbeat is not None:
            heartbeat.beat("training", ahead=True)

    with _evaluating(heartbeat, index):
        with precision_context(job.precision, world.device):
            detections, _ = detect_split(model, index, world, report)
        model.train()
        return coco_metrics(index, detections, fast_backend() or "pycocotools")["AP"] if world.is_main else None


def _evaluating(heartbeat: Heartbeat | None, index: CocoIndex) -> AbstractContextManager[None]:
    return nullcontext() if heartbeat is None else heartbeat.evaluating(index.num_images)


def evaluate_and_record(
    assignment: Assignment, job: EvalJob, run: RunDir, *, world: World, heartbeat: Heartbeat | None
) -> None:
    """Detect, score, and write ``record.json`` when all else is on the disk.

    Raises DataError where the test split has other categories than the training had, and as ``read_final``.
    """
    started = time.perf_counter()
    root = Path(assignment.data_root)
    final = read_final(run, job.train)
    index = _open(job.train.data, root, "test")
    check_categories(index, final["category_ids"], final.get("category_names"))
    model = build_trained(job.train, final, test=job.test, device=world.device)
    with _evaluating(heartbeat, index):
        detections, sums = _detect(job, model, index, world=world, heartbeat=heartbeat)
        if not world.is_main:
            return
        metrics, matches = coco_metrics_and_matches(index, detections)
        metrics |= sums.means()
        retry(lambda: write_matches(run.matches(job.id), matches), f"writing {run.matches(job.id)}")
        retry(lambda: write_detections(run.detections(job.id), detections), f"writing {run.detections(job.id)}")
        trained = training_part(final, job.train.precision)
        found = evaluation_health(len(detections), metrics)
        lost, parts = errors_of(index, detections)
        for health in found:
            logger.warning("%s: %s", health.name, health.message)
        record = replace(
            _record(assignment, job, trained, index=index, world=world, metrics=metrics),
            timing=recorded(final.get("timing")),
            train_seconds=round(final["seconds"], 3),
            eval_seconds=round(time.perf_counter() - started, 3),
            health=joined_health(trained.health, found),
            scores=sums.recorded(),
            curves=curves_of(log_lines(run.metrics)),
            lost_ap=lost,
            lost_parts=parts,
        )
        record = replace(record, sha256=content_hash(record))
        retry(lambda: write_json(run.record(job.id), record), f"writing {run.record(job.id)}")
        logger.info("%s%s", FINAL_AP, metrics["AP"])


def _detect(
    job: EvalJob, model: RetinaNet, index: CocoIndex, *, world: World, heartbeat: Heartbeat | None
) -> tuple[Detections, ScoreSums]:
    def report(share: float) -> None:
        if heartbeat is not None:
            heartbeat.beat("evaluating", progress=share)

    report(0.0)
    with precision_context(job.train.precision, world.device):
        return detect_split(model, index, world, report)


def _record(
    assignment: Assignment,
    job: EvalJob,
    trained: TrainingPart,
    *,
    index: CocoIndex,
    world: World,
    metrics: dict[str, float | None],
) -> Record:
    """What this evaluation and its training were; without how long they took and what they show."""
    root, data = Path(assignment.data_root), job.train.data
    return Record(
        format=RECORD_FORMAT,
        eval_id=job.id,
        train_id=job.train.id,
        profile=assignment.profile,
        job=job,
        metrics=metrics,
        train_split=trained.split or _fingerprint(data, root, "train", _open(data, root, "train")),
        test_split=_fingerprint(data, root, "test", index),
        environment=trained.environment,
        code=trained.code,
        train_seconds=0.0,
        eval_seconds=0.0,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=(*assignment.notes, *trained.notes),
        starts=trained.starts,
        evaluation=start_here(world, assignment.code, job.train.precision),
        inputs=replace(trained.inputs, test_images=images_digest(index)),
    )


def _open(source: DataSource, root: Path, part: Part) -> CocoIndex:
    """As ``open_split``, once the file server answers."""
    return retry(lambda: open_split(source, root, part), f"opening {root}")


def _fingerprint(source: DataSource, root: Path, part: Part, index: CocoIndex) -> SplitFingerprint:
    return retry(lambda: fingerprint(source, root, part, index), f"reading {root}")
