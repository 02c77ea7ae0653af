"""Sizes of COCO's images, and the groups that a training makes of them: no image is needed."""

from __future__ import annotations

import torch

from detector.data.loader import Group

# (width, height) and how many of 80 images of train2017, drawn at random, have it.
SIZES: dict[tuple[int, int], int] = {
    (640, 480): 14,
    (480, 640): 11,
    (640, 427): 10,
    (640, 426): 3,
    (500, 375): 3,
    (640, 424): 2,
    (427, 640): 2,
    (640, 428): 2,
    (500, 333): 2,
    **{(640, height): 1 for height in (359, 383, 409, 420, 421, 425, 433, 483, 484, 489, 498, 512)},
    **{(500, 346): 1, (500, 374): 1, (359, 640): 1, (449, 640): 1, (213, 140): 1, (333, 500): 1, (389, 500): 1},
    **{(448, 336): 1, (400, 302): 1},
}


def drawn(count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """``count`` sizes (width, height), as often as COCO has them."""
    sizes = list(SIZES)
    weights = torch.tensor([float(SIZES[size]) for size in sizes])
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    return [sizes[index] for index in chosen.tolist()]


def resized(size: tuple[int, int], *, short_side: int, max_size: int) -> tuple[int, int]:
    """(height, width) of the image that a training sees: the short side scaled, the long one at most ``max_size``."""
    width, height = size
    scale = min(short_side / min(size), max_size / max(size))
    return round(height * scale), round(width * scale)


def batch(generator: torch.Generator, *, num_groups: int, short_side: int, max_size: int, pinned: bool) -> list[Group]:
    """Groups of two images that are both upright or both not, as a training draws them; noise, in main memory."""
    landscape = []
    upright = []
    groups: list[Group] = []
    while len(groups) < num_groups:
        (size,) = drawn(1, generator)
        waiting = upright if size[1] >= size[0] else landscape
        waiting.append(size)
        if len(waiting) == 2:
            shapes = [resized(one, short_side=short_side, max_size=max_size) for one in waiting]
            waiting.clear()
            group = _group(shapes, generator)
            groups.append(group.pin_memory() if pinned else group)
    return groups


def _group(shapes: list[tuple[int, int]], generator: torch.Generator) -> Group:
    images, targets = [], []
    for height, width in shapes:
        images.append(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
        count = int(torch.randint(1, 15, (), generator=generator))  # seven in the mean
        corners = torch.rand(count, 2, generator=generator) * 0.6
        sides = 0.05 + 0.3 * torch.rand(count, 2, generator=generator)
        boxes = torch.cat((corners, corners + sides), dim=1) * torch.tensor([width, height, width, height])
        targets.append({"boxes": boxes, "labels": torch.randint(0, 80, (count,), generator=generator)})
    return Group(images, targets)
