"""A job's data: checks that the folder holds what the job names, and opens each split as an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from detector.data.coco.files import annotation_file, annotations_sha256
from detector.data.coco.index import CocoIndex, load_index, other_names, select, trainable
from detector.data.coco.verify import check_release
from detector.data.shapes.generate import SPEC_FILE, SPLITS
from detector.errors import DataError
from detector.runs.job import AnnotatedFolder, CocoRelease, DataSource, Shapes
from detector.runs.record import SplitFingerprint
from detector.storage.reading import read_json

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


def check_categories(
    test: CocoIndex,
    trained: Sequence[int],
    names: Sequence[str] | None = None,
    *,
    trained_on: str = "the training",
) -> None:
    """Raise DataError unless the test split's categories are those of the training: labels are positions in their ids.

    trained, names: of the training's categories; names are None where they are not known. trained_on: where those are
    from, for the error.
    """
    file, found = annotation_file(test.root, test.split), test.category_ids.tolist()
    if found != list(trained):
        differing = sorted(set(found) ^ set(trained))
        raise DataError(
            f"{file} has {len(found)} categories, {trained_on} has {len(trained)}; they differ in the ids "
            f"{', '.join(map(str, differing[:10]))}. Give both splits the same list of categories, used or not."
        )
    renamed = [] if names is None else other_names(trained, names, test.category_names)
    if renamed:
        listed = "; ".join(
            f"id {key} is {ours!r} in {trained_on}, {name!r} in {test.split}" for key, ours, name in renamed
        )
        raise DataError(f"{file} gives other names to the same category ids: {listed}. Give both the same categories.")


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
    found = read_json(path, Shapes, raises=DataError)
    if found != source:
        raise DataError(f"{root} holds another generated set ({found}) than the job's ({source}). Give another folder.")
