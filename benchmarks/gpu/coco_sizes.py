"""Sizes of COCO's images, and the groups that a training makes of them: no image is needed."""

from __future__ import annotations

import torch

from detector.data.loader import Group
from detector.data.transforms import resized_size

# Size (width, height), and how many of 80 images of train2017 have it.
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
    **dict.fromkeys(
        [
            (640, height)
            for height in (359, 383, 409, 418, 420, 421, 425, 429, 433, 449, 457, 478, 482, 483, 484, 489, 498, 512)
        ],
        1,
    ),
    **dict.fromkeys(
        [
            (213, 140),
            (333, 500),
            (359, 640),
            (389, 500),
            (400, 302),
            (426, 640),
            (448, 336),
            (449, 640),
            (450, 600),
            (469, 469),
            (500, 346),
            (500, 374),
            (600, 593),
        ],
        1,
    ),
}


def drawn(count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """``count`` sizes (width, height), as often as COCO has them."""
    sizes = list(SIZES)
    weights = torch.tensor([float(SIZES[size]) for size in sizes])
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    return [sizes[index] for index in chosen.tolist()]


def batch(generator: torch.Generator, *, num_groups: int, short_side: int, max_size: int, pinned: bool) -> list[Group]:
    """Groups of two images that are both upright or both not, as a training draws them; noise, in main memory."""
    landscape: list[tuple[int, int]] = []
    upright: list[tuple[int, int]] = []
    groups: list[Group] = []
    while len(groups) < num_groups:
        (size,) = drawn(1, generator)
        waiting = upright if size[1] >= size[0] else landscape
        waiting.append(size)
        if len(waiting) == 2:
            sizes = [resized_size(*one, short_side=short_side, max_size=max_size) for one in waiting]
            waiting.clear()
            group = _group(sizes, generator)
            groups.append(group.pin_memory() if pinned else group)
    return groups


def _group(sizes: list[tuple[int, int]], generator: torch.Generator) -> Group:
    images, targets = [], []
    for width, height in sizes:
        images.append(torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8))
        count = int(torch.randint(1, 15, (), generator=generator))  # seven in the mean
        corners = torch.rand(count, 2, generator=generator) * 0.6
        sides = 0.05 + 0.3 * torch.rand(count, 2, generator=generator)
        boxes = torch.cat((corners, corners + sides), dim=1) * torch.tensor([width, height, width, height])
        targets.append({"boxes": boxes, "labels": torch.randint(0, 80, (count,), generator=generator)})
    return Group(images, targets)
