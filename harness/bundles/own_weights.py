"""Whether the weights in a bundle are those of the trainings that its records are of: looked at before any is written.

Loads torch, which nothing else of bundles needs unless weights are compared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from detector.errors import WeightsError
from detector.runs.job import TrainJob
from harness.bundles.merge import Merge
from harness.bundles.pack import Contents


def check_packed(contents: Contents) -> None:
    """Raise WeightsError where weights that will be packed are damaged or of another training than their record."""
    trainings = {item.record.train_id: item.record.job.train for item in contents.records}
    for train_id, path in contents.weights.items():
        _check(path, trainings[train_id])


def check_imported(merge: Merge) -> None:
    """Raise WeightsError where weights that will be imported are damaged or of another training than their record."""
    for bundle, train_id in merge.new_weights:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "final.pt"
            with open(copy, "wb") as file:
                bundle.copy_weights(train_id, file)
            try:
                _check(copy, bundle.records_of(train_id)[0].record.job.train)
            except WeightsError as error:
                reason = str(error).replace(str(copy), bundle.weights[train_id].member)
                raise WeightsError(f"{bundle.file} is refused, nothing was written: {reason}") from error


def _check(path: Path, job: TrainJob) -> None:
    from detector.weights.final import read_weights_of

    read_weights_of(path, job)
