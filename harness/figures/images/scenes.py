"""An evaluation's detections beside the boxes of its data set: what every picture of a run begins with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import DataError, UsageError
from detector.runs.job import Shapes
from detector.runs.record import Record
from harness.planning.data import data_root

if TYPE_CHECKING:
    from detector.data.coco.index import CocoIndex
    from detector.evaluation.pictures.outcome import Outcome

DETECTIONS = "detections.json.gz"


@dataclass(frozen=True, eq=False)
class Scene:
    """One evaluation with the images that it is of.

    name: what a person calls it. outcomes: one per image of the index. least: boxes of at least this score are drawn.
    chosen: whether a person gave it; else it is the score at which the run's F1 is largest.
    """

    name: str
    record: Record
    index: CocoIndex
    outcomes: list[Outcome]
    least: float
    chosen: bool = False

    @property
    def threshold(self) -> str:
        """Which boxes are drawn, in words."""
        why = "as asked for" if self.chosen else "where F1 over all images is largest"
        return f"boxes with a score of at least {self.least:.2f} ({why})"


def open_scene(
    name: str,
    record: Record,
    detections: Path,
    root: Path,
    *,
    least: float | None = None,
    index: CocoIndex | None = None,
) -> Scene:
    """Read both and match them. index: of the record's data, where it is open already.

    Raises DataError with what is missing and how to get it.
    """
    from detector.evaluation.detections import check_detections, read_detections
    from detector.evaluation.pictures.outcome import best_threshold, outcomes

    if not detections.is_file():
        raise DataError(
            f"{name}: its detections are not here ({detections}). They lie in a run's folder only, not in its record. "
            f"Set HARNESS_RUNS to the folder with the run {record.train_id}, or make it again with: harness run"
        )
    index = open_data(record, root) if index is None else index
    found = read_detections(detections)
    check_detections(index, found)
    every = outcomes(index, found)
    return Scene(name, record, index, every, best_threshold(every) if least is None else least, least is not None)


def scene_data(record: Record, given: Path | None, runs: Path) -> Path:
    """Where the record's data lies. Raises DataError where it does not, with the command that gets it."""
    source = record.job.train.data
    try:
        root = data_root(source, given, runs)
    except UsageError as error:
        raise DataError(f"The images are of {_split(record)} of a COCO root. {error}") from error
    if not (root / "annotations").is_dir():
        how = (
            f"Make it again: {synth_command(source, shlex.quote(str(root)))}"
            if isinstance(source, Shapes)
            else "Name it with --data."
        )
        raise DataError(f"The data set that the images are of is not at {root}. {how}")
    return root


def synth_command(source: Shapes, folder: str) -> str:
    """The command that draws a generated set again. folder: as a shell reads it."""
    return (
        f"harness data synth --out {folder} --size {source.size} --train {source.num_train} "
        f"--test {source.num_test} --classes {source.num_classes} --seed {source.seed}"
    )


def open_data(record: Record, root: Path) -> CocoIndex:
    """The images that the record was evaluated on. Raises DataError where the folder does not hold them."""
    from detector.data.coco.files import annotations_sha256, is_labelled
    from detector.data.coco.index import load_index
    from detector.data.splits import open_split

    split = _split(record)
    if not is_labelled(root, split):
        raise DataError(f"{root}: {split} has no labels, so that nothing can be told right or wrong on its images.")
    if (found := annotations_sha256(root, split)) != record.test_split.sha256:
        raise DataError(
            f"{root}: the annotations of {split} are not those of the evaluation {record.eval_id} (sha256 "
            f"{found[:12]}, in the record {record.test_split.sha256[:12]}). Name the right folder with --data."
        )
    own = record.job.split is None
    return open_split(record.job.train.data, root, "test") if own else load_index(root, split)


def _split(record: Record) -> str:
    from detector.data.splits import split_name

    return record.job.split or split_name(record.job.train.data, "test")
