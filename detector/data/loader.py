"""Training batches of one process: augmented images, boxes and labels; the same with any number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from detector.data.batches import GroupSequence
from detector.data.coco.index import CocoIndex, trainable
from detector.data.images import open_image
from detector.data.transforms import augment, random_generator
from detector.data.workers.loop import batches_of_workers
from detector.errors import DataError, UsageError
from detector.geometry.boxes import trainable_corners
from detector.geometry.padding import padded_shape
from detector.runs.job import TrainJob

# A split that fits in this is decoded once; a generated set of 2,000 images of 96 px takes 55 MB.
KEEP_DECODED_BYTES = 256 * 2**20
BYTES_BESIDE = 4096  # of an image's boxes and labels, and what its memory is rounded up by


@dataclass(frozen=True)
class Group:
    """Images that share padding and normalisers: uint8 [3, H, W] each, and torchvision-style targets."""

    images: list[torch.Tensor]
    targets: list[dict[str, torch.Tensor]]

    def pin_memory(self) -> Group:
        """Page-locked copies, for asynchronous transfers; torch's loader calls this method by its name."""
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in self.targets]
        return Group([image.pin_memory() for image in self.images], targets)

    def to(self, device: torch.device) -> Group:
        """The group with its images on ``device``; asynchronous from page-locked memory.

        Targets stay where they are: those of a whole pass are put together first (``RetinaNet.padded_targets``).
        """
        return Group([image.to(device, non_blocking=True) for image in self.images], self.targets)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(H, W) of the batch that the network makes of it."""
        return padded_shape([(image.shape[-2], image.shape[-1]) for image in self.images])


class TrainingData(Dataset[list[Group]]):
    """Item i: the groups that one process trains on in iteration i."""

    def __init__(self, job: TrainJob, index: CocoIndex, *, rank: int, world_size: int) -> None:
        self.job, self.index = job, index
        # Base codebase: images without a valid box are left out. By position, so that no column is copied.
        self.positions = trainable(index, crowd_only=job.batch.crowd_only)
        if not len(self.positions):
            raise DataError(f"{index.root}: {index.split} has no image with a valid box to train on.")
        heights, widths = index.heights[self.positions], index.widths[self.positions]
        self.groups = GroupSequence(heights >= widths, job.batch, job.seed)
        if self.groups.groups_per_batch % world_size:
            raise UsageError(
                f"{world_size} processes cannot share the {self.groups.groups_per_batch} groups of a batch evenly "
                f"({job.batch.images} images in groups of {job.batch.images_per_group}). Run as many processes as "
                f"divide {self.groups.groups_per_batch}."
            )
        self.rank, self.world_size = rank, world_size
        pixels = int((widths.astype(np.int64) * heights).sum())
        self._decoded: dict[int, Image.Image] | None = {} if 3 * pixels <= KEEP_DECODED_BYTES else None

    def __getitem__(self, iteration: int) -> list[Group]:
        share = self.groups.share(iteration, rank=self.rank, world_size=self.world_size)
        return [self._group(self.positions[chosen], iteration) for chosen in share]

    def most_bytes(self) -> int:
        """Bytes that the batch of one iteration and process can have at most: as many of the largest image."""
        width, height = self.index.widths[self.positions], self.index.heights[self.positions]
        settings = self.job.augmentation
        scale = np.minimum(
            max(settings.short_sides) / np.minimum(width, height), settings.max_size / np.maximum(width, height)
        )
        pixels = np.ceil(width * scale) * np.ceil(height * scale)
        images = self.job.batch.images // self.world_size
        return images * (3 * int(pixels.max()) + BYTES_BESIDE)

    def _group(self, positions: np.ndarray, iteration: int) -> Group:
        images, targets = [], []
        for position in positions:
            image, target = self._image(int(position), iteration)
            images.append(image)
            targets.append(target)
        return Group(images, targets)

    def _image(self, position: int, iteration: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        index = self.index
        image = self._open(position)
        rows = index.annotations_of(position)
        kept = ~index.crowd[rows]  # base codebase: crowd boxes are left out
        generator = random_generator(self.job.seed, iteration, int(index.image_ids[position]))
        convention = self.job.box_convention
        corners, valid = trainable_corners(index.boxes[rows][kept], image.width, image.height, convention)
        pixels, boxes = augment(image, corners[valid], self.job.augmentation, generator, convention)
        single = boxes.astype(np.float32)
        seen = (single[:, 2:] > single[:, :2]).all(axis=1)  # a very thin box can vanish in float32
        target = {
            "boxes": torch.from_numpy(single[seen]),
            "labels": torch.from_numpy(index.labels[rows][kept][valid][seen]),
        }
        return pixels, target

    def _open(self, position: int) -> Image.Image:
        if self._decoded is None:
            return open_image(self.index, position)
        if position not in self._decoded:
            self._decoded[position] = open_image(self.index, position)
        return self._decoded[position]


def training_batches(data: TrainingData, iterations: Iterable[int], *, workers: int) -> Iterator[list[Group]]:
    """The batches of the given iterations in order, prepared by ``workers`` processes (0: in this one).

    Raises TrainingError where the machine has no room for the workers, or one of them died, and what an item raises.
    """
    if workers:
        import detector.data.bilinear  # noqa: F401  compiled once, before the workers are forked

        yield from batches_of_workers(
            data, iterations, workers=workers, most_bytes=data.most_bytes(), alone=data.world_size == 1
        )
        return
    yield from DataLoader(
        data,
        batch_size=None,
        sampler=list(iterations),
        pin_memory=torch.cuda.is_available(),
        # The loader's own generator: else it would draw from torch's global state, and a resumed training would differ.
        generator=torch.Generator(),
    )
