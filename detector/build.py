"""From a job to the model that it trains, and from final weights to the model that detects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detector.errors import WeightsError
from detector.model.retinanet import RetinaNet
from detector.runs.job import TestSettings, TrainJob
from detector.weights.find import BY_CONTENT, check_published, ensure_weights
from detector.weights.load import check_pretrained, load_pretrained
from detector.weights.read import Weights, read_weights
from drloss.registry import build_loss


def build_model(
    job: TrainJob,
    *,
    num_classes: int,
    test: TestSettings,
    weights_file: Path | None = None,
    pretrained: bool | Weights = True,
    category_ids: Sequence[int] | None = None,
) -> RetinaNet:
    """The job's RetinaNet, freshly initialised (torch's random state decides), with its pretrained weights.

    pretrained: False leaves the weights to a checkpoint that will be loaded; or what ``read_pretrained`` gave.
    category_ids: the data's, ascending, by
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
        weights = read_pretrained(job, weights_file) if isinstance(pretrained, bool) else pretrained
        load_pretrained(model, weights, job, category_ids)
    return model


def read_pretrained(job: TrainJob, file: Path | None) -> Weights:
    """The weights that the job starts from: of ``file`` if given, else found or downloaded.

    Raises WeightsError where they cannot be had, or are another file, another project's or of another network than the
    job's.
    """
    wanted = job.model.weights
    weights = read_weights(ensure_weights(wanted, job.model.backbone, file=file))
    if not wanted.startswith(BY_CONTENT) and weights.format != wanted:
        raise WeightsError(
            f"{weights.file} is a {weights.format} file; the recipe starts from {wanted}'s. To start from this "
            f"one: --set model.weights=sha256:{weights.sha256}, with the settings that fit it."
        )
    check_published(wanted, job.model.backbone, file=weights.file, sha256=weights.sha256)
    check_pretrained(weights, job)
    return weights


def build_trained(
    job: TrainJob, final: Mapping[str, Any], *, test: TestSettings, device: torch.device | str
) -> RetinaNet:
    """The model of ``job`` with its final weights, in eval mode on ``device``.

    final: what ``RunDir.final`` holds, as ``checkpoint.load`` reads it. What the loss kept for itself is left out.
    Raises WeightsError where the weights are not of the job's network.
    """
    model = build_model(job, num_classes=len(final["category_ids"]), test=test, pretrained=False)
    try:
        model.load_for_detection(final["model"])
    except RuntimeError as error:
        raise WeightsError(f"The final weights are not those of the run's job.json: {error}") from error
    return model.eval().to(torch.device(device))
