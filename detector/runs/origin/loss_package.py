"""The package that a job's loss comes from, where it is not a built-in one: is it the job's, and which source ran."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from detector.errors import TrainingError
from detector.runs.job import TrainJob
from drloss.plugins import package_of, plugins, source_sha256, why_unknown


def check_loss_package(job: TrainJob) -> None:
    """Raises TrainingError where another version of the loss's package is installed than the job names."""
    here = package_of(job.loss)
    if here != job.loss_package:
        raise TrainingError(
            f"This run cannot begin: its loss is that of {job.loss_package or 'drloss itself'}, and "
            f"{here or 'drloss itself'} is installed here. Install the version that the run names, or start a new run."
        )


def missing_loss(train: Any) -> str:
    """Which loss a training as plain data needs and this machine lacks, in a sentence; empty where it lacks none."""
    try:
        name, package = train["loss"]["name"], train.get("loss_package")
    except (KeyError, TypeError, AttributeError):
        return ""
    if package is None or any(plugin.name == name and plugin.spec for plugin in plugins()):
        return ""
    return f"its loss {name!r} is that of {package}. {why_unknown(name) or 'That package is not installed here.'}"


def loss_source(job: TrainJob) -> str | None:
    """The sha256 of the source of the loss's package as it is installed here; None for a built-in loss."""
    return source_sha256(job.loss)


def recorded_source(sources: Sequence[str]) -> str | None:
    """What a record says of the sources that its training used. Of several it is a sha256 that no single one has."""
    if len(sources) > 1:
        return hashlib.sha256(" ".join(sources).encode()).hexdigest()
    return sources[0] if sources else None


def source_notes(sources: Sequence[str]) -> tuple[str, ...]:
    """What a record says of a training whose loss changed under way."""
    if len(sources) < 2:
        return ()
    return ("the source of the loss's package changed between two starts of the training",)
