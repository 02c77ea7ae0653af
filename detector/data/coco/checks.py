"""What is wrong in the columns of an annotation file, and what is only worth a note. Free of torch.

Legend: N images, B boxes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import AnnotationTable, find, repeated
from detector.data.coco.problems import SHOWN_EXAMPLES, Finding, finding

# COCO's own boxes overhang their image by fractions of a pixel.
OVERHANG: Final = 1.0
MAX_SIDE: Final = 2**31 - 1
LONGEST_NAME: Final = 255  # bytes of a file's or folder's name, on every common file system
# A box's area is that of its mask, or its own; rounding and COCO's counting of pixels make it a little larger.
LARGER: Final = 1.1
# From this share of boxes on that overhang, and would not if they were corners, they are said to look like corners.
LOOK_LIKE_CORNERS: Final = 0.2

Float = NDArray[np.float64]


def problems_of(table: AnnotationTable) -> list[Finding]:
    """Everything that makes the file unfit, each kind once: of its entries, categories and images, annotations."""
    found = [*table.problems, *_categories(table), *_images(table), *_annotations(table)]
    return [kind for kind in found if kind.count]


def notes_of(table: AnnotationTable) -> list[Finding]:
    """What is read though it is odd, each kind once."""
    found = [*table.notes, *_category_notes(table), *_box_notes(table)]
    return [kind for kind in found if kind.count]


def _categories(table: AnnotationTable) -> list[Finding]:
    names: dict[int, set[str]] = defaultdict(set)
    for key, name in table.listed:
        names[key].add(name)
    twice = [
        (key, f"category id {key} is given twice: {_quoted(found)}") for key, found in names.items() if len(found) > 1
    ]
    return [Finding("categories that share an id", len(twice), tuple(twice))]


def _category_notes(table: AnnotationTable) -> list[Finding]:
    ids: dict[str, set[int]] = defaultdict(set)
    for key, name in table.listed:
        ids[name].add(key)
    again = len(table.listed) - len(set(table.listed))
    shared = [
        (None, f"{_quoted([name])} is {', '.join(map(str, sorted(found)))}")
        for name, found in ids.items()
        if len(found) > 1
    ]
    return [
        Finding("identical categories listed again, which counts once", again, ()),
        Finding("categories of one name under several ids", len(shared), tuple(shared)),
    ]


def _images(table: AnnotationTable) -> list[Finding]:
    ids, widths, heights = table.images.T
    names = table.file_names
    impossible = (table.images[:, 1:] < 1).any(axis=1) | (table.images[:, 1:] > MAX_SIDE).any(axis=1)
    unsafe = np.array([not is_usable(name) for name in names], dtype=np.bool_)
    first: dict[str, int] = {}
    owner = [first.setdefault(name, int(key)) for name, key in zip(names, ids.tolist(), strict=True)]
    shared = np.array(owner, dtype=np.int64) != ids if names else np.zeros(0, np.bool_)
    return [
        finding(repeated(ids), ids, "images whose id is taken", lambda i: f"image id {ids[i]} is given twice"),
        finding(
            impossible,
            ids,
            "images of an impossible size",
            lambda i: f"image {ids[i]} has the impossible size {widths[i]} x {heights[i]}",
        ),
        finding(
            unsafe,
            ids,
            "images with an unusable file name",
            lambda i: f"image {ids[i]} has the unusable file name {names[i]!r}",
        ),
        finding(
            shared & ~unsafe,
            ids,
            "images whose file has another id too",
            lambda i: f"the file {names[i]!r} is image {owner[i]} and image {ids[i]}",
        ),
    ]


def is_usable(name: str) -> bool:
    """Whether it is a path inside the split's folder that the system can be asked for."""
    if not name or name.startswith("/") or "\0" in name:
        return False
    try:
        parts = os.fsencode(name).split(b"/")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return b".." not in parts and parts[-1] not in (b"", b".") and max(map(len, parts)) <= LONGEST_NAME


def _borders(table: AnnotationTable) -> tuple[Float, NDArray[np.int64]]:
    """(width, height) of each box's image [B, 2], infinite for an unknown one; and its position, or -1."""
    image_ids, first = np.unique(table.images[:, 0], return_index=True)
    position = find(image_ids, table.annotations[:, 1])
    # An unknown image is a problem of its own; its boxes are not compared with any border.
    border = np.full((len(position), 2), np.inf)
    border[position >= 0] = table.images[first[position[position >= 0]], 1:]
    return border, position


def _annotations(table: AnnotationTable) -> list[Finding]:
    ids, images, categories, _ = table.annotations.T
    border, position = _borders(table)
    finite = (np.abs(table.xywh) <= MAX_SIDE).all(axis=1)  # NaN is not
    positive = (table.xywh[:, 2:] >= 0).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # reported as not finite
        corner, end = table.xywh[:, :2], table.xywh[:, :2] + table.xywh[:, 2:]
        outside = ((end < -OVERHANG) | (corner > border + OVERHANG)).any(axis=1)
    measured = (table.areas >= 0) & np.isfinite(table.areas)
    unknown = find(np.array(sorted(table.categories), dtype=np.int64), categories) < 0
    whole = finite & positive
    fractions = _are_fractions(table.xywh[whole], border[whole])

    def annotation(i: int) -> str:
        return f"annotation {ids[i]} of image {images[i]}"

    def box(i: int) -> str:
        return f"{annotation(i)}: bbox (x, y, width, height) = {tuple(table.xywh[i].tolist())}"

    return [
        finding(
            repeated(ids), ids, "annotations whose id is taken", lambda i: f"annotation id {ids[i]} is given twice"
        ),
        finding(
            position < 0,
            ids,
            "annotations of an unknown image",
            lambda i: f"annotation {ids[i]}: unknown image id {images[i]}",
        ),
        finding(
            unknown,
            ids,
            "annotations of an unknown category",
            lambda i: f"{annotation(i)}: unknown category id {categories[i]}",
        ),
        finding(
            ~finite,
            ids,
            "boxes that are not finite, or beyond any image",
            lambda i: f"{box(i)} is not finite, or beyond any image",
        ),
        finding(finite & ~positive, ids, "boxes of a negative size", lambda i: f"{box(i)} has a negative size"),
        finding(
            whole & outside,
            ids,
            "boxes outside their image",
            lambda i: f"{box(i)} is outside its image of {border[i, 0]:.0f} x {border[i, 1]:.0f}",
        ),
        finding(
            whole & fractions,
            ids,
            "boxes in 0..1, fractions of their image instead of pixels",
            lambda i: f"{box(i)} is in 0..1, a fraction of its image instead of pixels",
        ),
        finding(
            whole & ~measured,
            ids,
            "areas that are no pixel counts",
            lambda i: f"{annotation(i)}: area {table.areas[i]} is no pixel count",
        ),
    ]


def _are_fractions(xywh: Float, border: Float) -> bool:
    """Whether all boxes of the file lie in 0..1, and are not just whole pixels in a corner."""
    if not len(xywh) or (border <= 2).any():
        return False
    return bool((xywh >= -0.05).all() and (xywh <= 1.05).all() and (xywh % 1 != 0).any())


def _box_notes(table: AnnotationTable) -> list[Finding]:
    ids, images, _, crowd = table.annotations.T
    border, _ = _borders(table)
    xywh = np.where(np.abs(table.xywh) <= MAX_SIDE, table.xywh, 0.0)
    corner, sides = xywh[:, :2], xywh[:, 2:]
    end = corner + sides
    outside = ((end < -OVERHANG) | (corner > border + OVERHANG)).any(axis=1)
    overhang = ((corner < -OVERHANG) | (end > border + OVERHANG)).any(axis=1) & ~outside & (sides >= 0).all(axis=1)
    size = sides.prod(axis=1)
    larger = (table.areas > LARGER * size + 1) & (size > 0) & (crowd == 0)
    as_corners = ((corner >= 0) & (sides > corner) & (sides <= border + OVERHANG)).all(axis=1)
    look = len(ids) > 0 and bool(overhang.mean() >= LOOK_LIKE_CORNERS and as_corners.all())

    def box(i: int) -> str:
        return f"annotation {ids[i]} of image {images[i]}: bbox {tuple(table.xywh[i].tolist())}"

    def over(i: int) -> str:
        return f"{box(i)} in {border[i, 0]:.0f} x {border[i, 1]:.0f}"

    hint = "boxes that look like corners (x1, y1, x2, y2); COCO's are (x, y, width, height)"
    return [
        finding(overhang & look, ids, hint, over),
        finding(overhang, ids, "boxes that reach out of their image, and are cut at its border in training", over),
        finding(
            larger,
            ids,
            "areas above their box's, by which COCO's metrics call an object small, medium or large",
            lambda i: f"{box(i)}: area {table.areas[i]:g}, not {size[i]:g}",
        ),
    ]


def _quoted(names: set[str] | list[str]) -> str:
    return ", ".join(f"{name[:60]!r}" for name in sorted(names)[:SHOWN_EXAMPLES])
