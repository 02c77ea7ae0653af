"""An evaluation's detections beside the boxes of its data set: what every picture of a run begins with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import DataError, UsageError
from detector.runs.folder import RunDir
from detector.runs.job import DataSource, Shapes
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
    command: str | None = None,
) -> Scene:
    """Read both and match them. command: what trains the run, for the message.

    Raises DataError with what is missing and how to get it.
    """
    from detector.evaluation.detections import check_detections, read_detections
    from detector.evaluation.pictures.outcome import best_threshold, outcomes

    if not detections.is_file():
        raise DataError(_no_detections(name, record, detections, command or _some_row(record)))
    index = open_data(record, root)
    found = read_detections(detections)
    check_detections(index, found)
    every = outcomes(index, found)
    return Scene(name, record, index, every, best_threshold(every) if least is None else least, least is not None)


def _no_detections(name: str, record: Record, path: Path, command: str) -> str:
    """What to do: detect again with the weights where they are here, else get the run's folder or train again."""
    run = RunDir(path.parents[2])
    if path.with_name("record.json").is_file() and run.final.is_file():
        again = command.replace("harness run ", "harness eval ", 1) + f" --seed {record.job.train.seed}"
        return (
            f"{name}: its detections are gone ({path}). To detect again with the run's weights, move record.json away "
            f"from that folder, and then: {again}"
        )
    fresh = " --fresh" if path.with_name("record.json").is_file() else ""  # else the run counts as done
    return (
        f"{name}: its detections are not here ({path}). They lie in a run's folder only, not in its record. Set "
        f"HARNESS_RUNS to the folder with the run {record.train_id}, or train it again: {command}{fresh}"
    )


def _some_row(record: Record) -> str:
    return f"harness run TABLE/ROW --profile {shlex.quote(record.profile)}"


def scene_data(record: Record, given: Path | None, runs: Path) -> Path:
    """Where the record's data lies. Raises DataError where it does not, with the command that gets it."""
    source = record.job.train.data
    try:
        root = data_root(source, given, runs)
    except UsageError as error:
        raise DataError(f"The images are of {_split(record)} of a COCO root. {error}") from error
    if not (root / "annotations").is_dir():
        raise DataError(f"The data set that the images are of is not at {root}. {_how_to_get(source, root)}")
    return root


def _how_to_get(source: DataSource, root: Path) -> str:
    if isinstance(source, Shapes):
        return f"Make it again: {synth_command(source, shlex.quote(str(root)))}"
    return "Name its folder with --data."


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
    index = open_split(record.job.train.data, root, "test") if own else load_index(root, split)
    if not (folder := root / index.image_folder).is_dir():
        how = _how_to_get(record.job.train.data, root)
        raise DataError(f"The annotations of {split} are in {root}, but its images are not at {folder}. {how}")
    return index


def _split(record: Record) -> str:
    from detector.data.splits import split_name

    return record.job.split or split_name(record.job.train.data, "test")
