"""A job's data: checks that the folder holds what the job names, and opens each split as an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from detector.data.coco.files import annotation_file, annotations_sha256
from detector.data.coco.index import CocoIndex, load_index, select, trainable
from detector.data.coco.verify import check_release
from detector.data.shapes.generate import SPEC_FILE, SPLITS
from detector.errors import DataError
from detector.runs.job import AnnotatedFolder, CocoRelease, DataSource, Shapes
from detector.runs.record import SplitFingerprint

Part = Literal["train", "test"]
PARTS: tuple[Part, Part] = ("train", "test")


def split_name(source: DataSource, part: Part) -> str:
    """The split of a COCO root that a job trains or tests on."""
    if isinstance(source, Shapes):
        return SPLITS[0 if part == "train" else 1]
    return source.train_split if part == "train" else source.test_split


def open_split(source: DataSource, root: Path, part: Part) -> CocoIndex:
    """The images and boxes that the job means, in full.

    Raises DataError where the folder does not hold them: another release, other annotations, another generator.
    """
    split = split_name(source, part)
    if isinstance(source, Shapes):
        _check_shapes(source, root)
    elif isinstance(source, AnnotatedFolder):
        wanted = source.train_sha256 if part == "train" else source.test_sha256
        found = annotations_sha256(root, split)
        if found != wanted:
            raise DataError(
                f"{root}: the annotations of {split} are not those that the run was planned with "
                f"(sha256 {found[:12]}, planned {str(wanted)[:12]}). Plan and run again with --data {root}."
            )
    index = load_index(root, split)
    if isinstance(source, CocoRelease):
        check_release(index, source.release)
    if isinstance(source, AnnotatedFolder) and source.num_images is not None:
        index = _first_with_boxes(index, source.num_images)
    return index


def check_categories(test: CocoIndex, trained: Sequence[int]) -> None:
    """Raise DataError unless the test split's category ids are those of the training: labels are positions in them."""
    found = test.category_ids.tolist()
    if found != list(trained):
        differing = sorted(set(found) ^ set(trained))
        raise DataError(
            f"{annotation_file(test.root, test.split)} has {len(found)} categories, the training split has "
            f"{len(trained)}; they differ in the ids {', '.join(map(str, differing[:10]))}. Give both splits the same "
            "list of categories, used or not."
        )


def fingerprint(source: DataSource, root: Path, part: Part, index: CocoIndex) -> SplitFingerprint:
    """What goes into the record about a split."""
    sha256 = annotations_sha256(root, split_name(source, part))
    return SplitFingerprint(images=index.num_images, boxes=len(index.boxes), sha256=sha256)


def _first_with_boxes(index: CocoIndex, count: int) -> CocoIndex:
    positions = trainable(index)
    if len(positions) < count:
        raise DataError(
            f"{index.root}: {index.split} has {len(positions)} images with a valid box; {count} are needed."
        )
    return select(index, positions[:count])


def _check_shapes(source: Shapes, root: Path) -> None:
    path = root / SPEC_FILE
    if not path.exists():
        raise DataError(f"No generated set at {root}. Make it: harness data synth --out {root}.")
    found = msgspec.json.decode(path.read_bytes(), type=Shapes)
    if found != source:
        raise DataError(f"{root} holds another generated set ({found}) than the job's ({source}). Give another folder.")
