"""The sequence of global batches: a function of the data's shapes and the seed alone.

A batch is a list of groups; a group (the paper's two images of one GPU) shares padding and loss normalisers. Which
process trains a group, with how many workers, changes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from detector.runs.job import BatchSettings


@dataclass(frozen=True)
class GroupSequence:
    """An endless sequence of groups, epoch after epoch.

    portrait: bool [num_images], height >= width. With aspect grouping no group mixes the two orientations. Each epoch
    holds every image at least once; where the group size does not divide the count of an orientation, its first
    images are repeated.
    """

    portrait: np.ndarray
    settings: BatchSettings
    seed: int
    _newest: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)  # the latest epoch and its groups

    def __post_init__(self) -> None:
        if self.settings.images % self.settings.images_per_group:
            raise ValueError(
                f"batch.images {self.settings.images} is not a multiple of images_per_group "
                f"{self.settings.images_per_group}"
            )

    @property
    def groups_per_batch(self) -> int:
        """Groups of one global batch."""
        return self.settings.images // self.settings.images_per_group

    @cached_property
    def groups_per_epoch(self) -> int:
        """Groups that hold every image once (the same in every epoch)."""
        size = self.settings.images_per_group
        return sum(-(-len(bucket) // size) for bucket in self._buckets)

    def batch(self, iteration: int) -> np.ndarray:
        """Image positions of one global batch, int64 [groups_per_batch, images_per_group]."""
        first = iteration * self.groups_per_batch
        groups: list[np.ndarray] = []
        while len(groups) < self.groups_per_batch:
            epoch, offset = divmod(first + len(groups), self.groups_per_epoch)
            missing = self.groups_per_batch - len(groups)
            groups.extend(self._epoch(epoch)[offset : offset + missing])
        return np.stack(groups)

    def share(self, iteration: int, *, rank: int, world_size: int) -> np.ndarray:
        """The groups of one process: a contiguous part of the global batch.

        Raises ValueError where the number of processes does not divide the number of groups.
        """
        if self.groups_per_batch % world_size:
            raise ValueError(f"{world_size} processes do not divide the {self.groups_per_batch} groups of a batch")
        size = self.groups_per_batch // world_size
        return self.batch(iteration)[rank * size : (rank + 1) * size]

    @cached_property
    def _buckets(self) -> list[np.ndarray]:
        if not self.settings.aspect_grouping:
            return [np.arange(len(self.portrait))]
        return [found for found in (np.flatnonzero(~self.portrait), np.flatnonzero(self.portrait)) if len(found)]

    def _epoch(self, epoch: int) -> np.ndarray:
        """All groups of one epoch in their order, int64 [groups_per_epoch, images_per_group]."""
        if self._newest.get("epoch") == epoch:
            newest: np.ndarray = self._newest["groups"]
            return newest
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
        size = self.settings.images_per_group
        groups = []
        for bucket in self._buckets:
            order = generator.permutation(bucket)
            padded = np.resize(order, -(-len(order) // size) * size)  # np.resize repeats from the start
            groups.append(padded.reshape(-1, size))
        shuffled: np.ndarray = generator.permutation(np.concatenate(groups))
        self._newest.update(epoch=epoch, groups=shuffled)
        return shuffled
