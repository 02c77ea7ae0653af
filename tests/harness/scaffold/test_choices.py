"""The rules from a data set's figures to a profile's numbers."""

from __future__ import annotations

import dataclasses

import pytest

from detector.data.coco.figures import SplitFigures
from detector.errors import UsageError
from harness.scaffold.choices import CPU, GPU, choose, pick_splits

FIGURES = SplitFigures(
    images=2000,
    num_trainable=2000,
    num_boxes=8000,
    classes=("a",),
    category_ids=(1,),
    widths=(640, 640, 640),
    heights=(480, 480, 480),
    short_sides=(480, 480, 480),
    aspects=(4 / 3, 4 / 3, 4 / 3),
    boxes_per_image=(1, 4, 9),
    box_sides=(20, 96, 240),
    relative_sides=(0.04, 0.2, 0.5),
    suffixes=(".jpg",),
)


def figures(**changes: object) -> SplitFigures:
    return dataclasses.replace(FIGURES, **changes)


def test_median_box_gets_its_pixels() -> None:
    assert choose(FIGURES, CPU).short_side == 128  # 24 / 0.2 = 120, to a multiple of 32
    assert choose(FIGURES, GPU).short_side == 320  # 64 / 0.2


@pytest.mark.parametrize(
    ("relative", "own", "expected"), [(0.01, 480, 256), (0.9, 480, 96), (0.05, 150, 160), (0.05, 28, 96)]
)
def test_short_side_stays_in_its_limits_and_within_the_images(relative: float, own: float, expected: int) -> None:
    changed = figures(relative_sides=(relative,) * 3, short_sides=(own,) * 3)
    assert choose(changed, CPU).short_side == expected


@pytest.mark.parametrize(("large", "level"), [(0.5, 5), (0.9, 6), (1.7, 7), (9.0, 7)])
def test_largest_anchor_reaches_the_large_boxes(large: float, level: int) -> None:
    # At 128 pixels the large box has 64, 115, 218 and 1152; the largest anchors have 102, 203 and 406.
    assert choose(figures(relative_sides=(0.04, 0.2, large)), CPU).last_level == level


@pytest.mark.parametrize(("images", "batch"), [(1, 2), (2, 2), (7, 6), (16, 16), (2000, 16)])
def test_batch_is_whole_groups_of_no_more_than_there_are_and_the_rate_goes_with_it(images: int, batch: int) -> None:
    choices = choose(figures(num_trainable=images), CPU)
    assert choices.batch == batch
    assert choices.lr == pytest.approx(0.1 * batch / 16)


def test_schedule_has_twenty_epochs_within_the_time() -> None:
    few = choose(figures(num_trainable=160), CPU)
    assert (few.iterations, few.warmup) == (200, 20)
    many = choose(figures(num_trainable=100_000), CPU)
    assert many.minutes == pytest.approx(4, rel=0.1)  # cut to two digits
    assert choose(figures(num_trainable=320), CPU).iterations == 400  # 20 * 320 / 16
    assert choose(FIGURES, CPU, iterations=7).iterations == 7


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["train2017", "val2017"], ("train2017", "val2017")),
        (["test", "train", "valid"], ("train", "valid")),
        (["test", "train"], ("train", "test")),
        (["minival2017", "train2014", "train2017", "val2014", "val2017"], ("train2017", "val2017")),
    ],
)
def test_splits_are_told_by_their_names(splits: list[str], expected: tuple[str, str]) -> None:
    assert pick_splits(splits, None, None, "root") == expected


def test_unclear_splits_are_asked_for_with_the_choices() -> None:
    with pytest.raises(UsageError, match="--train-split and --test-split.*: a, b"):
        pick_splits(["a", "b"], None, None, "root")
    with pytest.raises(UsageError, match="Say so with --test-split"):
        pick_splits(["train", "val1", "val2"], None, None, "root")
    with pytest.raises(UsageError, match="--train-split c: root has no .*instances_c.json. Its splits: a, b"):
        pick_splits(["a", "b"], "c", "b", "root")
    assert pick_splits(["a"], "a", "a", "root") == ("a", "a")
