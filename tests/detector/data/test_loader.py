"""What enters the network: boxes, pixels and their layout in memory, from workers of every kind."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detector.data.coco import cache
from detector.data.coco.index import load_index
from detector.data.loader import Group, TrainingData, training_batches
from detector.runs.job import EvalJob


@pytest.fixture
def mapped(job: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingData:
    """The tiny set as a large one is opened: its index mapped."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST_BYTES", 1)
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1.0)
    index = load_index(data, "train2017")
    assert index.mapped is not None
    return TrainingData(job.train, index, rank=0, world_size=1)


@pytest.fixture
def start_method(request: pytest.FixtureRequest) -> Iterator[None]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def assert_same(ours: list[Group], theirs: list[Group]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a.images, b.images, strict=True):
            assert torch.equal(x, y)
            assert x.stride() == y.stride()
        assert all(torch.equal(x[k], y[k]) for x, y in zip(a.targets, b.targets, strict=True) for k in x | y)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"], indirect=True)
@pytest.mark.usefixtures("start_method")
def test_training_batches_are_the_same_from_workers_that_are_forked_or_spawned(mapped: TrainingData) -> None:
    found = list(training_batches(mapped, range(3), workers=2))
    for iteration, batch in enumerate(found):
        assert_same(batch, mapped[iteration])


def test_training_data_of_a_mapped_index_is_pickled_without_its_columns(mapped: TrainingData, data: Path) -> None:
    # Per image: its position and its orientation.
    assert len(pickle.dumps(mapped)) < 8000 + 9 * mapped.index.num_images
    assert_same(pickle.loads(pickle.dumps(mapped))[1], mapped[1])
    read = TrainingData(mapped.job, replace(mapped.index, mapped=None), rank=0, world_size=1)
    assert_same(read[2], mapped[2])


def test_training_data_leaves_out_images_without_a_valid_box(mapped: TrainingData) -> None:
    index = replace(mapped.index, crowd=mapped.index.crowd.copy(), mapped=None)
    index.crowd[index.annotations_of(0)] = True
    data = TrainingData(mapped.job, index, rank=0, world_size=1)
    assert data.positions.tolist() == [i for i in mapped.positions.tolist() if i != 0]
    groups = data.groups.groups_per_epoch // data.groups.groups_per_batch
    shown = {int(i) for iteration in range(groups) for i in data.positions[data.groups.batch(iteration)].ravel()}
    assert 0 not in shown


def test_images_are_channels_last_in_memory_as_the_network_has_them(mapped: TrainingData) -> None:
    for iteration in range(4):  # with and without a flip
        for group in mapped[iteration]:
            for image in group.images:
                assert image.dtype == torch.uint8
                assert image.stride() == (1, 3 * image.shape[2], 3)
