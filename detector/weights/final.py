"""The final weights of a run: read only where they are the run's own, whole, and of its job's network."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from detector.errors import RecordError, WeightsError
from detector.model.criterion import without_loss_state
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.weights import checkpoint
from detector.weights.network import Architecture, Network, Pyramid, expected_shapes, network_of
from detector.weights.read import check_tensors

logger = logging.getLogger(__name__)

_NAMED_BY_ID: Final = re.compile(r"([0-9a-f]{16})(\.replaced-.*)?")
AGAIN: Final = "To train it again: harness run TARGET --fresh."


class _Header(Struct, frozen=True):
    """What stands beside the tensors, as far as it decides whose they are. train_id, network: None in older files."""

    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    seconds: float
    train_id: str | None = None
    network: Network | None = None


def read_final(run: RunDir, job: TrainJob) -> dict[str, Any]:
    """What ``run.final`` holds, read as by ``read_weights_of``.

    Raises as that, and RecordError where ``job`` is not that of the folder's name.
    """
    check_job(run, job)
    return read_weights_of(run.final, job)


def read_weights_of(file: Path, job: TrainJob) -> dict[str, Any]:
    """The final weights of ``job`` and what stands beside them, their checksums verified.

    Files written before they named their training are taken for the job's, with a warning in the log. Raises
    WeightsError, in one sentence, where the file is damaged, of another training, lacks a tensor, has one too many, of
    another shape or kind, or with a NaN in it.
    """
    final = checkpoint.load(file)
    try:
        header = msgspec.convert({key: final[key] for key in _Header.__struct_fields__ if key in final}, _Header)
    except msgspec.ValidationError as error:
        raise WeightsError(f"{file} is not a training's final weights: {error}. {AGAIN}") from error
    _check_owner(file, job, header)
    _check_model(file, job, header, final.get("model"))
    return final


def check_job(run: RunDir, job: TrainJob) -> None:
    """Raise RecordError where the folder is named by another id than ``job``'s."""
    named = _NAMED_BY_ID.fullmatch(run.root.resolve().name)
    if named and named[1] != job.id:
        raise RecordError(
            f"{run.job} is not the job of its folder: its id is {job.id}. It was edited, or copied from another run. "
            f"Put the run's own file back. {AGAIN}"
        )


def _check_owner(file: Path, job: TrainJob, header: _Header) -> None:
    if header.train_id is None:
        logger.warning("%s does not say of which training it is (an earlier version wrote it)", file)
    elif header.train_id != job.id:
        raise WeightsError(
            f"{file} holds the weights of another training: {header.train_id}, not {job.id}. Put the run's own "
            f"file back. {AGAIN}"
        )
    if header.network is not None and header.network != network_of(job):
        raise WeightsError(f"{file} is of another network than its job.json says. Put the run's own file back.")


def _check_model(file: Path, job: TrainJob, header: _Header, model: Any) -> None:
    ids = header.category_ids
    if len(set(ids)) < len(ids) or len(header.category_names) != len(ids):
        raise WeightsError(f"{file} has {len(header.category_names)} names for {len(set(ids))} categories.")
    if not isinstance(model, dict):
        raise WeightsError(f"{file} is not a training's final weights: it has no 'model'. {AGAIN}")
    wanted = expected_shapes(architecture_of(job, num_classes=len(ids)))
    check_tensors(without_loss_state(model), wanted, f"{file}, for its job.json,")


def architecture_of(job: TrainJob, *, num_classes: int) -> Architecture:
    """The architecture of the job's model."""
    model = job.model
    pyramid = Pyramid(
        fpn_channels=model.fpn_channels,
        fpn_levels=model.fpn_levels,
        p6_from=model.p6_from,
        head_convs=model.head_convs,
        head_norm=model.head_norm,
        num_anchors=model.scales_per_octave * len(model.aspect_ratios),
        num_classes=num_classes,
    )
    return Architecture(model.backbone, model.norm, pyramid)
