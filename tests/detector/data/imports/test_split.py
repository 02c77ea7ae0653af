"""Which images stay together, and which are held out."""

from __future__ import annotations

import random

import pytest

from detector.data.imports.export import Picked
from detector.data.imports.split import assign_splits
from detector.errors import UsageError


def named(*files: str, split: str | None = None, group: str | None = None) -> list[Picked]:
    return [Picked(file, [], split=split, group=group) for file in files]


def split(images: list[Picked], val: float | None = None, group: str | None = None, seed: int = 0) -> dict[str, str]:
    assign_splits(images, val=val, group=group, seed=seed)
    return {image.file: str(image.split) for image in images}


def videos(count: int, frames: int) -> list[str]:
    return [f"day{k}/cam_{k}_{i:04d}.jpg" for k in range(count) for i in range(frames)]


def test_frames_of_a_video_are_never_on_both_sides() -> None:
    for seed in range(5):
        found = split(named(*videos(9, 7)), seed=seed)
        sides = {name.split("/")[0]: set[str]() for name in found}
        for name, side in found.items():
            sides[name.split("/")[0]].add(side)
        assert all(len(side) == 1 for side in sides.values())
        assert sum(side == {"val"} for side in sides.values()) == 2  # 14 of 63 images are nearest to a fifth


def test_the_sentence_counts_images_and_groups() -> None:
    images = named(*videos(9, 7))
    assert assign_splits(images, val=0.2, group="video", seed=4) == "63 images in 9 groups: 7 train, 2 val (seed 4)"


def test_a_seed_and_the_names_decide_not_the_order_of_files() -> None:
    files = videos(9, 7)
    first = split(named(*files), seed=1)
    random.Random(0).shuffle(files)
    assert split(named(*files), seed=1) == first
    assert any(split(named(*files), seed=seed) != first for seed in range(2, 6))


def test_copies_of_one_image_with_other_augmentations_stay_together() -> None:
    files = [f"{name}_jpg.rf.{k}abc{k}.jpg" for name in ("cat", "dog", "owl", "hen", "cow") for k in range(3)]
    found = split(named(*files), val=0.2)
    assert sum(side == "val" for side in found.values()) == 3
    assert len({name.split("_")[0] for name, side in found.items() if side == "val"}) == 1


def test_folders_and_patterns_name_groups() -> None:
    files = [f"{folder}/{animal}{i}.jpg" for folder in "xyz" for animal in ("cat", "dog") for i in range(2)]
    by_folder = split(named(*files), val=0.3, group="folder")
    assert len({file[0] for file, side in by_folder.items() if side == "val"}) == 1
    by_animal = split(named(*files), val=0.5, group=r"/([a-z]+)\d")
    assert len({file[2:5] for file, side in by_animal.items() if side == "val"}) == 1
    assert sum(side == "val" for side in by_animal.values()) == 6
    alone = split(named(*files), val=0.25, group="none")
    assert sum(side == "val" for side in alone.values()) == 3


def test_one_group_is_cut_at_its_end() -> None:
    found = split(named(*(f"frame{i}.jpg" for i in range(12))), val=0.25)
    assert [name for name, side in found.items() if side == "val"] == ["frame9.jpg", "frame10.jpg", "frame11.jpg"]


def test_a_group_that_the_export_names_stays_together() -> None:
    images = named("a.jpg", "b.jpg", "c.jpg", group="film") + named("d.jpg", "e.jpg", "f.jpg")
    found = split(images, val=0.5)
    assert len({found[name] for name in ("a.jpg", "b.jpg", "c.jpg")}) == 1


def test_own_splits_are_kept_unless_another_is_asked_for() -> None:
    images = named("a.jpg", "b.jpg", split="train") + named("c.jpg", "d.jpg", split="test")
    assert assign_splits(images, val=None, group=None, seed=0) == "the export's own splits"
    assert [image.split for image in images] == ["train", "train", "test", "test"]
    assert split(images, val=0.5, group="none").keys() == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}
    assert {image.split for image in images} == {"train", "val"}


def test_an_export_of_one_split_only_is_divided() -> None:
    found = split(named(*videos(5, 4), split="train"))
    assert sum(side == "val" for side in found.values()) == 4


def test_nothing_is_held_out_on_request() -> None:
    assert set(split(named(*videos(3, 2)), val=0).values()) == {"train"}


@pytest.mark.parametrize("val", [-0.1, 1.0, 7.0, float("nan")])
def test_an_impossible_share_is_refused(val: float) -> None:
    with pytest.raises(UsageError, match="--val"):
        split(named("a.jpg"), val=val)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--group"):
        split(named("a.jpg"), group="(")
