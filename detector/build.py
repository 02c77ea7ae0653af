"""From a job to the model that it trains."""

from __future__ import annotations

from pathlib import Path

from detector.job import TestSettings, TrainJob
from detector.retinanet import RetinaNet
from detector.weights import ensure_imagenet, load_imagenet
from drloss import build_loss


def build_model(
    job: TrainJob, *, num_classes: int, test: TestSettings, weights_file: Path | None = None, pretrained: bool = True
) -> RetinaNet:
    """The job's RetinaNet, freshly initialised (torch's random state decides), with its pretrained body.

    pretrained: False leaves the body's weights to a checkpoint that will be loaded. Raises WeightsError where
    ImageNet weights are asked for and cannot be had.
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
    if pretrained and job.model.weights == "imagenet":
        load_imagenet(model.backbone.body, ensure_imagenet(job.model.backbone, file=weights_file))
    return model
