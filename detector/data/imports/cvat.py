"""CVAT: XML 1.1 for images, and for videos with tracks. Corners are edges of pixels, from 0. Free of torch.

A track has a box at its key frames; between two of them it moves in a straight line, and from a box that is marked
outside on it is not to be seen. Turned boxes turn about their centre.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final
from xml.etree.ElementTree import Element

from detector.data.fix.values import flag, number, whole
from detector.data.imports.export import (
    NO_LABEL,
    NO_SHAPE,
    OUTLINES,
    TURNED,
    Export,
    Labelled,
    Picked,
    Point,
    Source,
    ellipse,
    in_order,
    pairs,
    rectangle,
    split_named,
)
from detector.data.imports.xml import read_xml, text_of
from detector.errors import DataError

SHAPES: Final = ("box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton")
MOST_FRAMES: Final = 10_000_000


def read_cvat(source: Source) -> Export:
    """All images that the XML files list; all frames of their videos."""
    export = source.export("cvat")
    listed: list[str] = []
    for name in source.ending(".xml"):
        root = read_xml(source.root / name)
        if root.tag != "annotations":
            export.told.add("XML files that are not CVAT's (left out)", name)
            continue
        listed += [text for label in root.iterfind("meta//labels/label") if (text := text_of(label, "name"))]
        near = name.rpartition("/")[0]
        for image in root.findall("image"):
            _add_image(export, image, near)
        tracks = root.findall("track")
        if tracks or (text_of(root, "meta/task/mode") or text_of(root, "meta/job/mode")) == "interpolation":
            _add_video(export, root, tracks, name)
    used = in_order(box.name for image in export.images for box in image.boxes)
    export.names = list(dict.fromkeys([*listed, *used]))
    return export


def _add_image(export: Export, image: Element, near: str) -> None:
    name = image.get("name") or ""
    subset = image.get("subset") or ""
    found = export.files.find(f"images/{subset}/{name}", near=near) or export.find(name, near=near)
    if found is None:
        return
    boxes = [box for shape in image if (box := _labelled(export, shape, shape.get("label"), name)) is not None]
    export.images.append(Picked(found, boxes, _size(image.get("width"), image.get("height")), split_named(subset)))


def _size(width: str | None, height: str | None) -> tuple[float, float] | None:
    w, h = number(width), number(height)
    return (w, h) if w and h else None


def _labelled(export: Export, shape: Element, label: str | None, where: str) -> Labelled | None:
    if shape.tag == "tag":
        export.told.add("classes of whole images (left out)", f"{shape.get('label')} of {where}")
        return None
    if shape.tag not in SHAPES:
        return None
    if not label:
        export.told.add(NO_LABEL, f"a {shape.tag} of {where}")
        return None
    points = _points(shape)
    if points is None:
        export.told.add(NO_SHAPE, f"a {shape.tag} {label} of {where}")
        return None
    if shape.tag != "box":
        export.told.add(OUTLINES, f"a {shape.tag} {label} of {where}")
    elif number(shape.get("rotation")):
        export.told.add(TURNED, f"{label} of {where}")
    return Labelled(label, points)


def _points(shape: Element) -> tuple[Point, ...] | None:
    """The corners of what a shape surrounds; None for shapes that surround nothing, and unreadable numbers."""

    def values(*names: str) -> list[float] | None:
        found = [number(shape.get(name)) for name in names]
        return None if any(value is None for value in found) else [value for value in found if value is not None]

    turn = number(shape.get("rotation")) or 0.0
    if shape.tag == "box" and (box := values("xtl", "ytl", "xbr", "ybr")):
        return rectangle(box[0], box[1], box[2] - box[0], box[3] - box[1], turn, centre=True)
    if shape.tag == "ellipse" and (round_ := values("cx", "cy", "rx", "ry")):
        return ellipse(round_[0], round_[1], round_[2], round_[3], turn)
    if shape.tag == "mask" and (mask := values("left", "top", "width", "height")):
        return rectangle(mask[0], mask[1], mask[2], mask[3], centre=True)
    if shape.tag == "cuboid" and (corners := _cuboid(shape)):
        return corners
    if shape.tag in ("polygon", "polyline"):
        found = [number(word) for word in re.split(r"[;,]", shape.get("points") or "")]
        if len(found) >= 4 and len(found) % 2 == 0 and None not in found:
            return pairs([value for value in found if value is not None])
    return None


def _cuboid(shape: Element) -> tuple[Point, ...] | None:
    names = [name for name, _ in shape.items() if re.fullmatch(r"x[tb][lr]\d", name)]
    found = [(number(shape.get(name)), number(shape.get(f"y{name[1:]}"))) for name in sorted(names)]
    points = tuple((x, y) for x, y in found if x is not None and y is not None)
    return points if len(points) == len(found) >= 2 else None


def _add_video(export: Export, root: Element, tracks: list[Element], name: str) -> None:
    """One image per frame that has a file, with the boxes of all tracks at it."""
    shapes: dict[int, list[Labelled]] = {}
    for track in tracks:
        where = f"track {track.get('id')} of {name}"
        for frame, box in _moving(export, track, where):
            shapes.setdefault(frame, []).append(box)
    meta = root.find("meta/task") if root.find("meta/task") is not None else root.find("meta/job")
    start, count = 0, None
    size = None
    if meta is not None:
        start = whole(text_of(meta, "start_frame")) or 0
        count = whole(text_of(meta, "size"))
        size = _size(text_of(meta, "original_size/width"), text_of(meta, "original_size/height"))
    near = name.rpartition("/")[0]
    files = _frames(export, near, start, count, set(shapes))
    group = f"the video of {name}"
    for frame, file in sorted(files.items()):
        export.images.append(Picked(file, shapes.pop(frame, []), size, group=group))
    for frame in sorted(shapes):
        export.told.add("frames whose image was not found (left out)", f"frame {frame} of {name}")


def _frames(export: Export, near: str, start: int, count: int | None, used: set[int]) -> dict[int, str]:
    """Image files by their frame: the last number in their names, or their place in order.

    Raises DataError where neither fits.
    """
    below = [file for file in export.files.names if not near or file.startswith(f"{near}/")]
    taken = {image.file for image in export.images}
    files = sorted((file for file in below if file not in taken), key=natural)
    if not files:
        raise DataError(
            f"{export.root / near} has no images of the video. Write its frames there: "
            "ffmpeg -i VIDEO -start_number 0 images/frame_%06d.png"
        )
    numbers = [last_number(file) for file in files]
    by_number = {n: file for n, file in zip(numbers, files, strict=True) if n is not None}
    if len(by_number) == len(files) and (min(by_number) == start or (count != len(files) and used <= by_number.keys())):
        return by_number
    if count in (None, len(files)):
        if len(by_number) == len(files):
            export.told.add("videos whose frames were counted in the order of their names", f"first {files[0]}")
        return {start + i: file for i, file in enumerate(files)}
    raise DataError(
        f"{export.root / near}: {len(files):,} images cannot be told to be the {count:,} frames of the video. "
        "Name them by their frame, from 0: frame_000000.png."
    )


def _moving(export: Export, track: Element, where: str) -> Iterator[tuple[int, Labelled]]:
    """(frame, box) of a track, for each frame at which it is to be seen."""
    label = track.get("label")
    listed = [(whole(shape.get("frame")), shape) for shape in track if shape.tag in SHAPES]
    keys = sorted(((frame, shape) for frame, shape in listed if frame is not None), key=lambda key: key[0])
    if keys and not _outside(keys[-1][1]) and len(keys) < keys[-1][0] - keys[0][0] + 1:
        export.told.add("tracks that end without a mark (seen until their last box)", where)
    for (frame, shape), following in zip(keys, [*keys[1:], None], strict=True):
        if _outside(shape):
            continue
        box = _labelled(export, shape, label, f"{where}, frame {frame}")
        if box is None:
            continue
        yield frame, box
        if following is None or following[0] - frame > MOST_FRAMES:
            continue
        target = _points(following[1])
        for between in range(frame + 1, following[0]):
            share = (between - frame) / (following[0] - frame)
            yield between, Labelled(box.name, _on_the_way(box.points, target, share))


def _on_the_way(start: tuple[Point, ...], end: tuple[Point, ...] | None, share: float) -> tuple[Point, ...]:
    """Points between two shapes; outlines of unlike length stay until the next, as CVAT matches them by eye only."""
    if end is None or len(end) != len(start):
        return start
    return tuple((a + (c - a) * share, b + (d - b) * share) for (a, b), (c, d) in zip(start, end, strict=True))


def _outside(shape: Element) -> bool:
    return bool(flag(shape.get("outside")))


def last_number(file: str) -> int | None:
    """The last number in a file's name, by which frames are counted."""
    found = re.findall(r"\d{1,15}", PurePosixPath(file).stem)
    return int(found[-1]) if found else None


def natural(file: str) -> tuple[tuple[str, int], ...]:
    """A key that sorts frame 9 before frame 10."""
    parts = re.split(r"(\d{1,15})", file)
    return tuple((text, int(digits or 0)) for text, digits in zip(parts[::2], [*parts[1::2], ""], strict=True))
