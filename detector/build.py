"""From a job to the model that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from detector.errors import RecordError, WeightsError
from detector.model.retinanet import RetinaNet
from detector.runs.folder import RunDir, read_train_job
from detector.runs.job import TestSettings, TrainJob
from detector.weights import checkpoint
from detector.weights.find import BY_CONTENT, ensure_weights
from detector.weights.load import check_pretrained, load_pretrained
from detector.weights.read import Weights, read_weights
from drloss.registry import build_loss


def build_model(
    job: TrainJob,
    *,
    num_classes: int,
    test: TestSettings,
    weights_file: Path | None = None,
    pretrained: bool = True,
    category_ids: Sequence[int] | None = None,
) -> RetinaNet:
    """The job's RetinaNet, freshly initialised (torch's random state decides), with its pretrained weights.

    pretrained: False leaves the weights to a checkpoint that will be loaded. category_ids: the data's, ascending, by
    which the classes of a pretrained detector are chosen. Raises WeightsError where weights are asked for and cannot be
    had, or are of another network.
    """
    model = RetinaNet(
        job.model,
        num_classes=num_classes,
        classification_loss=build_loss(job.loss),
        matching=job.matching,
        regression=job.regression,
        test=test,
        images_per_group=job.batch.images_per_group,
        box_convention=job.box_convention,
    )
    if pretrained and job.model.weights != "none":
        load_pretrained(model, read_pretrained(job, weights_file), job, category_ids)
    return model


def read_pretrained(job: TrainJob, file: Path | None) -> Weights:
    """The weights that the job starts from: of ``file`` if given, else found or downloaded.

    Raises WeightsError where they cannot be had, or are another project's or of another network than the job's.
    """
    wanted = job.model.weights
    weights = read_weights(ensure_weights(wanted, job.model.backbone, file=file))
    if not wanted.startswith(BY_CONTENT) and weights.format != wanted:
        raise WeightsError(
            f"{weights.file} is a {weights.format} file; the recipe starts from {wanted}'s. To start from this "
            f"one: --set model.weights=sha256:{weights.sha256}, with the settings that fit it."
        )
    check_pretrained(weights, job)
    return weights


@dataclass(frozen=True)
class Trained:
    """A run's final weights, ready to use."""

    model: RetinaNet
    names: tuple[str, ...]


def load_trained(run: RunDir, test: TestSettings, device: str) -> Trained:
    """The result of a run. Raises RecordError or WeightsError where the folder does not hold one."""
    job = read_train_job(run)
    final = checkpoint.load(run.final)
    model = build_model(job, num_classes=len(final["category_ids"]), test=test, pretrained=False)
    model.load_state_dict(final["model"])
    return Trained(model.eval().to(torch.device(device)), tuple(final["category_names"]))


def recorded_test(run: RunDir) -> TestSettings:
    """The test settings of a run folder's own record. Raises RecordError where it was never evaluated."""
    for path in sorted((run.root / "evals").glob("*/record.json")):
        record = run.read_record(path.parent.name)
        if record is not None:
            return record.job.test
    raise RecordError(f"{run.root} has no finished evaluation to take the test settings from.")
