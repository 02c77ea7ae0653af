"""A data set looked at before a profile is written for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import DataError

if TYPE_CHECKING:
    from detector.data.coco.figures import SplitFigures
    from detector.data.coco.index import CocoIndex
    from detector.runs.assignment import AnchorRanges
    from detector.runs.job import TrainJob
    from harness.registry.load import Registry

SAMPLE = 200  # images whose anchors are matched
MEASURED_ROW = "table2/L6"  # the row whose matching is measured: the paper's best DR loss


@dataclass(frozen=True)
class DataSet:
    """Two splits of a COCO root and what they are like."""

    root: Path
    index: CocoIndex
    train: SplitFigures
    test: SplitFigures
    train_split: str
    test_split: str


@dataclass(frozen=True)
class Matching:
    """Anchors per image on a sample of ``images``: means, and what a batch's mean can be."""

    images: int
    positives: float
    borderline: float
    ranges: AnchorRanges


def labelled_splits(root: Path) -> list[str]:
    """Splits of which the root has boxes. Raises DataError where it is no COCO root."""
    from detector.data.coco.files import is_labelled, known_splits

    if not root.is_dir():
        raise DataError(f"--data {root}: there is no such folder.")
    found = [split for split in known_splits(root) if is_labelled(root, split)]
    if not found:
        raise DataError(
            f"--data {root}: a COCO root has annotations/instances_SPLIT.json and a folder SPLIT/ of images for each "
            "split, such as train2017 and val2017. There is no such annotation file."
        )
    return found


def look(root: Path, train_split: str, test_split: str) -> DataSet:
    """Figures of both splits.

    Raises DataError for broken annotations, categories that differ, a first image that cannot be read, and where
    nothing can be trained on.
    """
    from detector.data.coco.figures import split_figures
    from detector.data.coco.index import load_index, trainable
    from detector.data.images import open_image
    from detector.data.splits import check_categories

    index, test = load_index(root, train_split), load_index(root, test_split)
    check_categories(test, index.category_ids.tolist(), index.category_names, trained_on=train_split)
    figures = split_figures(index)
    if not test.num_images:
        raise DataError(f"{root}: {test_split} has no images. Run 'harness data verify {root}'.")
    if not figures.num_trainable:
        raise DataError(f"{root}: {train_split} has no image with a box to train on. Run 'harness data verify {root}'.")
    open_image(index, int(trainable(index)[0]))
    open_image(test, 0)
    return DataSet(root, index, figures, split_figures(test), train_split, test_split)


def match(data: DataSet, job: TrainJob) -> Matching:
    """Anchors per image as the job's training matches them, on images spread evenly over the training split."""
    return _match(data.index, job)


def _match(index: CocoIndex, job: TrainJob, sample: int = SAMPLE) -> Matching:
    from detector.data.coco.index import trainable
    from detector.sanity.anchor_counts import anchor_counts, anchor_ranges, spread

    counts = anchor_counts(job, index, spread(trainable(index), sample).tolist())
    means = counts.mean(axis=0) if len(counts) else (0.0, 0.0)
    return Matching(len(counts), float(means[0]), float(means[1]), anchor_ranges(counts, job.batch.images))


def has_own_ranges(root: Path, split: str) -> bool:
    """Whether a first batch on this split is held to ranges that are measured on it: it is no COCO and not generated.

    False where its annotations cannot be read, or nothing can be trained on.
    """
    from detector.data.coco.index import load_index, trainable
    from detector.data.coco.releases import NUM_COCO_CATEGORIES
    from detector.data.shapes.generate import SPEC_FILE

    if (root / SPEC_FILE).exists():
        return False
    index = load_index(root, split)
    return len(index.category_ids) != NUM_COCO_CATEGORIES and len(trainable(index)) > 0


def anchor_note(registry: Registry, root: Path, split: str) -> str:
    """Anchors per image of a split in the paper's setting, and between what a first batch's mean is."""
    from detector.data.coco.index import load_index
    from detector.sanity.anchor_counts import SAMPLE as FEW
    from harness.registry.resolve import eval_job, resolve

    job = eval_job(resolve(registry, MEASURED_ROW, registry.profile("paper")), 0).train
    found = _match(load_index(root, split), job, FEW)
    low, high = found.ranges.positives
    near_low, near_high = found.ranges.borderline
    side = job.augmentation.short_sides[-1]
    return (
        f"{split}: at {side} pixels (profile paper) {found.positives:.0f} anchors per image match and "
        f"{found.borderline:.0f} nearly do, on {found.images:,} images; a first batch must have {low:g} to {high:g} "
        f"and {near_low:g} to {near_high:g}. A run at another size measures its own"
    )
