"""Boxes: in pixels of the upright picture, as a corner with positive width and height, inside it. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from detector.data.fix.draft import BoxForm, Choices, Draft, Row
from detector.data.fix.pictures import XYWH, Picture, turned_box, turned_point
from detector.data.fix.values import number, numbers

CORNERS_SHARE: Final = 0.3  # of true corner boxes read as x, y, width, height, three quarters leave their image
FEWEST: Final = 4  # boxes by which a form is recognised
OVERHANG: Final = 1.0  # pixels by which boxes that are right leave their image: rounding
SLACK: Final = 1e-3  # of normalised boxes: digits are cut


def mend_boxes(draft: Draft, pictures: dict[int, Picture], choices: Choices) -> None:
    """Set every annotation's box and area, and every image's size; annotations without a box are dropped."""
    boxes = _read(draft)
    scaled = _are_normalised(draft, list(boxes.values()), pictures, choices)
    form = choices.boxes or _form(draft, boxes, pictures, scaled=scaled)
    if scaled:
        draft.done.add("splits whose boxes lay in 0..1 (pixels now)", f"{len(boxes):,} boxes of {draft.split}")
    if form != "xywh":
        draft.done.add(f"splits whose boxes were {form} (x, y, width, height now)", f"{draft.split}")
    # An image's annotations by its id: the frame that they were drawn in is one for all of them.
    drawn: dict[int, dict[int, XYWH]] = {}
    for i, box in boxes.items():
        picture = pictures[draft.annotations[i]["image_id"]]
        drawn.setdefault(draft.annotations[i]["image_id"], {})[i] = _pixels(box, form, picture if scaled else None)
    kept: list[Row] = []
    for row in draft.images:
        own = drawn.get(row["id"], {})
        picture = pictures[row["id"]]
        if _is_stored_frame(draft, row, picture, own.values(), choices):
            own = {i: turned_box(box, picture) for i, box in own.items()}
            for i in own:
                _turn_outline(draft.annotations[i], picture)
        _set_size(draft, row, picture)
        kept += [found for i, box in own.items() if (found := _finished(draft, i, box, picture.upright)) is not None]
    order = {id(row): i for i, row in enumerate(draft.annotations)}
    draft.annotations = sorted(kept, key=lambda row: order[id(row)])


def _read(draft: Draft) -> dict[int, XYWH]:
    """The four numbers of each annotation that has them, by its position; those of its outline where there are none."""
    found: dict[int, XYWH] = {}
    for i, row in enumerate(draft.annotations):
        given = row.get("bbox")
        box = numbers(given, 4)
        if box is None:
            box = _around(row.get("segmentation"))
            what = f"{draft.of(row)}: {given!r}"[:200]
            if box is None:
                draft.done.add("annotations without a box of four numbers (dropped)", what)
                continue
            draft.done.add("boxes that were missing or unreadable (from the outline)", what)
        elif any(type(value) not in (int, float) for value in given or ()):
            draft.done.add("boxes whose numbers were text", draft.of(row))
        found[i] = (box[0], box[1], box[2], box[3])
    return found


def _outline(segmentation: Any) -> list[list[float]] | None:
    """Polygons, each a flat list of x and y; None where the outline is none, or is a mask."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    found = [numbers(polygon) for polygon in polygons]
    if any(polygon is None or len(polygon) < 6 or len(polygon) % 2 for polygon in found):
        return None
    return [polygon for polygon in found if polygon is not None]


def _around(segmentation: Any) -> list[float] | None:
    polygons = _outline(segmentation)
    if polygons is None:
        return None
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _are_normalised(draft: Draft, boxes: list[XYWH], pictures: dict[int, Picture], choices: Choices) -> bool:
    """Whether all boxes of the split are fractions of their image's sides."""
    if not boxes or not all(-SLACK <= value <= 1 + SLACK for box in boxes for value in box):
        return False
    if not any(min(picture.size) > 2 for picture in pictures.values()):
        return False
    inside = all(x + w <= 1 + SLACK and y + h <= 1 + SLACK for x, y, w, h in boxes)
    if not inside and choices.boxes is None:
        what = f"{len(boxes):,} boxes of {draft.split}, first {boxes[0]}"
        draft.unclear.add(
            "splits whose boxes lie in 0..1 and are no x, y, width, height (say --boxes xyxy|cxcywh)", what
        )
    return True


def _form(draft: Draft, boxes: dict[int, XYWH], pictures: dict[int, Picture], *, scaled: bool) -> BoxForm:
    """x, y, width, height, unless most boxes leave their image like that and fit it as corners: then it is told."""
    leaving = 0
    for i, (x, y, w, h) in boxes.items():
        width, height = pictures[draft.annotations[i]["image_id"]].upright
        side = max(width, height) + OVERHANG  # a picture may have been drawn on as it is stored
        if scaled or not (0 <= x < w <= side and 0 <= y < h <= side):
            return "xywh"
        leaving += x + w > width + OVERHANG or y + h > height + OVERHANG
    if len(boxes) >= FEWEST and leaving >= CORNERS_SHARE * len(boxes):
        what = (
            f"{leaving:,} of {len(boxes):,} boxes of {draft.split} leave their image, and all fit it as x1, y1, x2, y2"
        )
        draft.unclear.add("splits whose boxes look like corners (say --boxes xyxy or xywh)", what)
    return "xywh"


def _pixels(box: XYWH, form: BoxForm, picture: Picture | None) -> XYWH:
    """x, y, width, height; in pixels of the picture, if one is given."""
    a, b, c, d = box
    x, y, w, h = {"xywh": box, "xyxy": (a, b, c - a, d - b), "cxcywh": (a - c / 2, b - d / 2, c, d)}[form]
    width, height = picture.upright if picture is not None else (1, 1)
    return x * width, y * height, w * width, h * height


def _is_stored_frame(draft: Draft, row: Row, picture: Picture, boxes: Iterable[XYWH], choices: Choices) -> bool:
    """Whether a picture that is to be turned was drawn on as it is stored; the size that its entry gives says so."""
    if picture.orientation == 1:
        return False
    draft.done.add("images that EXIF turns (written upright)", f"{row['file_name']}, orientation {picture.orientation}")
    if choices.exif is not None:
        return choices.exif == "stored"
    told = (number(row.get("width")), number(row.get("height")))
    if picture.size != picture.upright and told in (picture.size, picture.upright):
        return told == picture.size and _fit(boxes, picture.size)
    draft.done.add(
        "images that EXIF turns, drawn on upright or not: sizes do not say (taken as upright; else --exif stored)",
        str(row["file_name"]),
    )
    return False


def _fit(boxes: Iterable[XYWH], size: tuple[int, int]) -> bool:
    return all(x + w <= size[0] + OVERHANG and y + h <= size[1] + OVERHANG for x, y, w, h in boxes)


def _turn_outline(row: Row, picture: Picture) -> None:
    """Turn an annotation's polygons with its picture; what cannot be turned so is taken out."""
    polygons = _outline(row.get("segmentation"))
    for name in ("segmentation", "keypoints", "num_keypoints"):
        row.pop(name, None)
    if polygons is not None:
        row["segmentation"] = [
            [value for k in range(0, len(p), 2) for value in turned_point(p[k], p[k + 1], picture)] for p in polygons
        ]


def _set_size(draft: Draft, row: Row, picture: Picture) -> None:
    given, size = (row.get("width"), row.get("height")), picture.upright
    if given != size and picture.orientation == 1:
        draft.done.add("image sizes that were not the file's", f"{row['file_name']}: {given[0]!r} x {given[1]!r}"[:200])
    row["width"], row["height"] = size


def _finished(draft: Draft, i: int, box: XYWH, size: tuple[int, int]) -> Row | None:
    """The annotation with its box turned to positive sides and cut to the image; None where nothing is left."""
    row = draft.annotations[i]
    x, y, w, h = box
    if w < 0 or h < 0:
        draft.done.add("boxes with negative sides (turned)", f"{draft.of(row)}: {list(box)}")
        x, y, w, h = min(x, x + w), min(y, y + h), abs(w), abs(h)
    clipped = clip((x, y, w, h), size)
    if clipped is None:
        draft.done.add("boxes without area in their image (dropped)", f"{draft.of(row)}: {list(box)}")
        return None
    if clipped != (x, y, w, h):
        draft.done.add("boxes that left their image (clipped)", f"{draft.of(row)}: {list(box)}")
    previous = numbers(row.get("bbox"), 4)
    if previous != list(clipped) or any(type(value) not in (int, float) for value in row["bbox"]):
        row["bbox"] = list(clipped)
    _set_area(draft, row, clipped, changed=previous is None or previous != list(clipped))
    return row


def _set_area(draft: Draft, row: Row, box: XYWH, *, changed: bool) -> None:
    """An area is a number of pixels, no more than the box's; where it cannot be kept, the box's."""
    given, most = row.get("area"), box[2] * box[3]
    area = number(given)
    if area is None or area < 0:
        draft.done.add(
            "areas that were missing or no pixel counts (the box's now)", f"{draft.of(row)}: {given!r}"[:200]
        )
        row["area"] = most
    elif area > 1.01 * most + 1:
        if not changed:
            draft.done.add("areas above the box's (the box's now)", f"{draft.of(row)}: {area:g} of {most:g}")
        row["area"] = most
    elif changed and area <= 1 < most:
        row["area"] = most  # it was a fraction, as the box was
    elif type(given) not in (int, float):
        draft.done.add("areas that were written as text", draft.of(row))
        row["area"] = area


def clip(box: XYWH, size: tuple[int, int]) -> XYWH | None:
    """A box (x, y, width, height) cut to an image of ``size``, itself where it lies inside; None without area."""
    x, y, w, h = box
    if x < 0 or y < 0 or x + w > size[0] or y + h > size[1]:
        x1, y1 = max(0.0, x), max(0.0, y)
        x, y, w, h = x1, y1, min(box[0] + w, float(size[0])) - x1, min(box[1] + h, float(size[1])) - y1
    return (x, y, w, h) if w > 0 and h > 0 else None
