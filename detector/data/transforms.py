"""Resize and flip: the base codebase's rules, and every random choice a pure function of (seed, iteration, image)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from detector.geometry.boxes import mirrored
from detector.runs.job import AugmentationSettings, BoxConvention


def resized_size(width: int, height: int, *, short_side: int, max_size: int) -> tuple[int, int]:
    """(width, height) after resizing the short side to ``short_side`` and the long side to at most ``max_size``.

    The base codebase's rule: where the long side would pass ``max_size`` the short side is lowered to
    round(max_size * short / long); the long side is truncated, not rounded.
    """
    short, long = min(width, height), max(width, height)
    if long / short * short_side > max_size:
        short_side = round(max_size * short / long)
    short_side = max(1, short_side)
    if width < height:
        return short_side, max(1, int(short_side * height / width))
    return max(1, int(short_side * width / height)), short_side


def resize(image: Image.Image, *, short_side: int, max_size: int) -> Image.Image:
    """PIL's bilinear resize (the paper's pixels); an image that already fits is returned as it is."""
    size = resized_size(*image.size, short_side=short_side, max_size=max_size)
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """uint8 [3, H, W], RGB, channels last in memory as the network has them; normalised later, on the device."""
    content = bytearray((image if image.mode == "RGB" else image.convert("RGB")).tobytes())
    return torch.frombuffer(content, dtype=torch.uint8).view(image.height, image.width, 3).permute(2, 0, 1)


def resized_pixels(image: Image.Image, *, short_side: int, max_size: int, flip: bool = False) -> torch.Tensor:
    """``to_tensor`` of ``resize``, mirrored if ``flip``; the same bits, faster where the image grows."""
    width, height = resized_size(*image.size, short_side=short_side, max_size=max_size)
    grows = width >= image.width and height >= image.height and (width, height) != image.size
    if grows and image.mode == "RGB":
        from detector.data.bilinear import enlarged  # compiled, and slow to import

        return torch.from_numpy(enlarged(np.asarray(image), width, height, flip=flip)).permute(2, 0, 1)
    pixels = to_tensor(resize(image, short_side=short_side, max_size=max_size))
    return pixels.flip(-1) if flip else pixels


def random_generator(seed: int, iteration: int, image_id: int) -> np.random.Generator:
    """The random generator of one image in one iteration, whichever process loads it; its id may be negative."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, iteration, image_id % 2**64))))


def augment(
    image: Image.Image,
    boxes: np.ndarray,
    settings: AugmentationSettings,
    generator: np.random.Generator,
    convention: BoxConvention,
) -> tuple[torch.Tensor, np.ndarray]:
    """Random short side, then a random horizontal flip.

    boxes: xyxy pixels of the original image in ``convention``, float64 [G, 4] -> uint8 [3, H, W] and boxes of the
    resized image.
    """
    short_side = settings.short_sides[int(generator.integers(len(settings.short_sides)))]
    flip = bool(generator.random() < settings.flip_probability)
    pixels = resized_pixels(image, short_side=short_side, max_size=settings.max_size, flip=flip)
    height, width = pixels.shape[1:]
    boxes = boxes * np.tile([width / image.width, height / image.height], 2)
    if flip:
        boxes = mirrored(torch.from_numpy(boxes), width, convention).numpy()
    return pixels, boxes
