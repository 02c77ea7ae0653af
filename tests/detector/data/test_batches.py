"""The sequence of global batches: every image each epoch, no mixed orientations, any number of processes."""

from __future__ import annotations

import numpy as np
import pytest

from detector.data.batches import GroupSequence
from detector.runs.job import BatchSettings


def sequence(portrait: list[bool], *, images: int = 4, seed: int = 0, aspect_grouping: bool = True) -> GroupSequence:
    settings = BatchSettings(images=images, images_per_group=2, aspect_grouping=aspect_grouping)
    return GroupSequence(np.array(portrait), settings, seed)


MIXED = [True] * 5 + [False] * 8


def test_every_image_appears_in_every_epoch() -> None:
    groups = sequence(MIXED)
    assert groups.groups_per_epoch == 3 + 4
    stream = np.concatenate([groups.batch(i) for i in range(7)])  # 14 groups: two epochs
    for epoch in (stream[:7], stream[7:]):
        assert set(epoch.ravel()) == set(range(13))


def test_no_group_mixes_portrait_and_landscape() -> None:
    groups = sequence(MIXED)
    portrait = np.array(MIXED)
    for iteration in range(20):
        kinds = portrait[groups.batch(iteration)]
        assert (kinds[:, 0] == kinds[:, 1]).all()


def test_without_aspect_grouping_groups_mix() -> None:
    groups = sequence(MIXED, aspect_grouping=False)
    kinds = np.array(MIXED)[np.concatenate([groups.batch(i) for i in range(20)])]
    assert (kinds[:, 0] != kinds[:, 1]).any()


def test_epochs_and_seeds_differ_and_repeat_exactly() -> None:
    first = [sequence(MIXED).batch(i).tolist() for i in range(8)]
    again = sequence(MIXED)
    assert [again.batch(i).tolist() for i in reversed(range(8))] == first[::-1]  # in any order of asking
    assert [sequence(MIXED, seed=1).batch(i).tolist() for i in range(8)] != first
    assert first[0] != first[4]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_the_same_global_batch(world_size: int) -> None:
    groups = sequence([False] * 20, images=8)
    for iteration in range(6):
        shares = [groups.share(iteration, rank=rank, world_size=world_size) for rank in range(world_size)]
        np.testing.assert_array_equal(np.concatenate(shares), groups.batch(iteration))


def test_share_refuses_processes_that_do_not_divide_the_groups() -> None:
    with pytest.raises(ValueError, match="3 processes do not divide the 4 groups"):
        sequence([False] * 20, images=8).share(0, rank=0, world_size=3)


def test_a_batch_larger_than_the_data_set_repeats_epochs() -> None:
    batch = sequence([False, False, True], images=8).batch(0)
    assert batch.shape == (4, 2)
    assert set(batch.ravel()) == {0, 1, 2}


def test_images_must_be_whole_groups() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        sequence([False], images=3)
