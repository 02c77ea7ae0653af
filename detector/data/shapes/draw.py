"""One image of the generated set: coloured shapes among clutter on a textured ground, drawn from a random generator.

Colour alone is a hard negative and shape alone is hard to see, so that a detector has to learn both. Lengths are in
pixels, x to the right and y down; colours are RGB in 0..1. Any change of what is drawn must raise
``GENERATOR_VERSION`` in generate.py.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float64]

SUPERSAMPLING = 4
OBJECT_SIZE = (12, 56)  # geometric mean of a shape's sides at 96 px, scaled with the image
CROWD_SIZE = (9, 15)
REFERENCE_SIZE = 96
HUE_DEVIATION = 0.04  # of a class, around its own hue
MIN_VISIBLE = 0.3  # share of an object that later shapes leave visible
PLACEMENT_ATTEMPTS = 12
MAX_OBJECTS = 7  # six objects and a crowd
EMPTY_FRACTION = 0.04  # images with clutter only
CROWD_FRACTION = 0.05  # images with a crowd region beside their objects


def _regular(corners: int, radius: float = 1.0, turn: float = -0.25) -> Floats:
    """[corners, 2] of a regular polygon, the first at ``turn`` of a full turn (-0.25: at the top)."""
    angle = 2 * np.pi * (np.arange(corners) / corners + turn)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star(points: int, inner: float) -> Floats:
    return _regular(2 * points) * np.where(np.arange(2 * points) % 2, inner, 1.0)[:, None]


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 16


_CROSS = [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]
_ARROW = [(-3, -1), (0.5, -1), (0.5, -2.5), (3, 0), (0.5, 2.5), (0.5, 1), (-3, 1)]

# Name, outline and hole of each class; the class of label k is the k-th.
SHAPES: tuple[tuple[str, Floats, Floats | None], ...] = (
    ("circle", _regular(48), None),
    ("square", _regular(4, turn=0.125), None),
    ("triangle", _regular(3), None),
    ("star", _star(5, 0.42), None),
    ("ring", _regular(48), _regular(48, 0.55)),
    ("cross", np.array(_CROSS, dtype=np.float64), None),
    ("diamond", np.array([(0, -2), (1, 0), (0, 2), (-1, 0)], dtype=np.float64), None),
    ("pentagon", _regular(5), None),
    ("hexagon", _regular(6, turn=0), None),
    ("crescent", _regular(48), _regular(48, 0.85) + np.array([0.55, 0])),
    ("arrow", np.array(_ARROW, dtype=np.float64), None),
    ("heart", _heart(), None),
)


@dataclass(frozen=True, eq=False)
class DrawnObject:
    """One annotation. ``mask`` [H, W] are its visible pixels: for a crowd those of all its members."""

    label: int
    crowd: bool
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Canvas:
    """The picture so far and who owns each pixel: 0 the ground and clutter, k the k-th object."""

    colour: NDArray[np.float32]  # [H, W, 3]
    owner: NDArray[np.intp]  # [H, W]
    visible: NDArray[np.intp]  # [MAX_OBJECTS + 1] pixels of each owner now
    drawn: NDArray[np.intp]  # [MAX_OBJECTS + 1] pixels of each owner when it was drawn

    def paint(self, rng: np.random.Generator, alpha: Floats, colour: Floats, owner: int, near: Floats | None) -> bool:
        """Put a shape over the picture, at random or around ``near`` (x, y), without hiding too much of an object.

        alpha: [h, w] coverage of each pixel. False where no place was found.
        """
        height, width = alpha.shape
        room = np.array(self.owner.shape[::-1]) - (width, height)
        if (room < 0).any():
            return False
        covered = alpha >= 0.5
        for _ in range(PLACEMENT_ATTEMPTS):
            wanted = rng.uniform(0, room + 1) if near is None else near - (width / 2, height / 2) + rng.normal(0, 1, 2)
            x, y = np.clip(wanted.astype(np.intp), 0, room).tolist()
            patch = np.s_[y : y + height, x : x + width]
            left = self.visible - np.bincount(self.owner[patch][covered], minlength=MAX_OBJECTS + 1)
            hidden = left < MIN_VISIBLE * self.drawn
            hidden[[0, owner]] = False
            if not hidden.any():
                weight = alpha[..., None].astype(np.float32)
                self.colour[patch] += weight * (colour.astype(np.float32) - self.colour[patch])
                self.owner[patch][covered] = owner
                self.visible[:] = left
                self.visible[owner] += covered.sum()
                self.drawn[owner] = self.visible[owner]
                return True
        return False


def draw_image(
    rng: np.random.Generator, size: int, num_classes: int
) -> tuple[NDArray[np.uint8], tuple[DrawnObject, ...]]:
    """An image [size, size, 3] of 2 to 6 objects, 3 to 8 distractors and sometimes a crowd, or of clutter alone."""
    ground = _ground(rng, size)
    pixels_of = np.zeros((2, MAX_OBJECTS + 1), dtype=np.intp)
    canvas = _Canvas(ground, np.zeros((size, size), dtype=np.intp), *pixels_of)
    kind = rng.random()
    num_objects = 0 if kind < EMPTY_FRACTION else int(rng.integers(2, MAX_OBJECTS))
    num_distractors = int(rng.integers(3, 9))
    drawn: list[tuple[int, bool]] = []
    for is_object in rng.permutation(np.arange(num_objects + num_distractors) < num_objects):
        if is_object:
            label = int(rng.integers(num_classes))
            alpha = _coverage(rng, label, rng.uniform(*OBJECT_SIZE) * size / REFERENCE_SIZE)
            if canvas.paint(rng, alpha, _class_colour(rng, label, num_classes), len(drawn) + 1, None):
                drawn.append((label, False))
        else:
            canvas.paint(rng, _distractor(rng, size), _random_colour(rng, 0.3), 0, None)
    if 0 <= kind - EMPTY_FRACTION < CROWD_FRACTION:
        label = int(rng.integers(num_classes))
        if _paint_crowd(rng, canvas, label, num_classes, len(drawn) + 1):
            drawn.append((label, True))
    noise = rng.standard_normal(canvas.colour.shape, dtype=np.float32) * rng.uniform(0.01, 0.04)
    pixels = np.clip((canvas.colour + noise) * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels, tuple(DrawnObject(label, crowd, canvas.owner == k) for k, (label, crowd) in enumerate(drawn, 1))


def _paint_crowd(rng: np.random.Generator, canvas: _Canvas, label: int, num_classes: int, owner: int) -> bool:
    """Four to eight small members of one class around one point, owned as one. False where none found a place."""
    size = len(canvas.owner)
    scale = size / REFERENCE_SIZE
    centre = rng.uniform(0.25 * size, 0.75 * size, 2)
    painted = False
    for _ in range(int(rng.integers(4, 9))):
        alpha = _coverage(rng, label, rng.uniform(*CROWD_SIZE) * scale)
        colour = _class_colour(rng, label, num_classes)
        painted |= canvas.paint(rng, alpha, colour, owner, centre + rng.uniform(-14, 14, 2) * scale)
    return painted


def _coverage(rng: np.random.Generator, label: int, extent: float) -> Floats:
    """[h, w] of a shape stretched and turned a little; ``extent`` is the geometric mean of its sides."""
    _, outline, hole = SHAPES[label]
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    angle = rng.uniform(-0.35, 0.35)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    move = turn @ np.diag([stretch, 1 / stretch])
    outline = outline @ move.T
    scale = extent / np.sqrt(np.ptp(outline, axis=0).prod())
    return _fill(outline * scale, None if hole is None else hole @ move.T * scale)


def _distractor(rng: np.random.Generator, size: int) -> Floats:
    """[h, w] of a line, or of a polygon too irregular to be one of the classes."""
    scale = size / REFERENCE_SIZE
    if rng.random() < 0.4:
        length, width, angle = rng.uniform(20, 80) * scale, rng.uniform(1, 4) * scale, rng.uniform(0, np.pi)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        return _fill(np.outer([-1, 1, 1, -1], along * length / 2) + np.outer([-1, -1, 1, 1], across * width / 2), None)
    corners = int(rng.integers(4, 9))
    radii = rng.uniform(4, 26) * scale * rng.uniform(0.25, 1.0, corners)
    return _fill(_regular(corners, turn=rng.random()) * radii[:, None], None)


def _fill(outline: Floats, hole: Floats | None) -> Floats:
    """[h, w] share of each pixel inside ``outline`` ([n, 2]) and outside ``hole``, in the smallest frame around it."""
    origin = outline.min(axis=0)
    width, height = np.ceil(outline.max(axis=0) - origin).astype(int) + 1
    canvas = Image.new("L", (SUPERSAMPLING * int(width), SUPERSAMPLING * int(height)))
    draw = ImageDraw.Draw(canvas)
    for polygon, value in ((outline, 255), (hole, 0)):
        if polygon is not None:
            draw.polygon([(x, y) for x, y in ((polygon - origin) * SUPERSAMPLING).tolist()], fill=value)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _ground(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """[size, size, 3]: a gradient between two dull colours, stripes, and blotches."""
    x = np.arange(size, dtype=np.float32) / size - 0.5
    angle, stripe = rng.uniform(0, 2 * np.pi, 2)
    along = 0.5 + 0.5 * (math.cos(angle) * x + (math.sin(angle) * x)[:, None])
    start, end = (_random_colour(rng, 0.1, 0.45).astype(np.float32) for _ in range(2))
    frequency = 2 * math.pi * rng.uniform(2, 14)
    waves = np.sin(frequency * math.cos(stripe) * x + (frequency * math.sin(stripe) * x)[:, None])
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    blotches = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255 - 0.5
    texture = rng.uniform(0, 0.08) * waves + rng.uniform(0.05, 0.25) * blotches
    ground = start + along[..., None] * (end - start) + texture[..., None]
    return ground.astype(np.float32, copy=False)


def _class_colour(rng: np.random.Generator, label: int, num_classes: int) -> Floats:
    return _colour(rng, label / num_classes + rng.normal(0, HUE_DEVIATION), 0.45, 1.0)


def _random_colour(rng: np.random.Generator, low: float, high: float = 1.0) -> Floats:
    return _colour(rng, rng.random(), low, high)


def _colour(rng: np.random.Generator, hue: float, low: float, high: float) -> Floats:
    """Of random saturation in [low, high] and random value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(low, high), rng.uniform(0.45, 1.0)))
