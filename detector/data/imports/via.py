"""VIA, the VGG Image Annotator 2: its project, its JSON and its CSV. Pixels, from 0. Free of torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from detector.data.fix.values import number, numbers
from detector.data.imports.export import (
    NO_LABEL,
    NO_SHAPE,
    OUTLINES,
    Export,
    Labelled,
    Picked,
    Point,
    Source,
    ellipse,
    in_order,
    read_rows,
    read_table,
    rectangle,
)
from detector.errors import DataError, UsageError

USUAL: Final = ("class", "label", "name", "type", "category", "object")  # names of the attribute that is the class
ONLY: Final = "object"  # the class, where shapes have no attributes at all
CSV_COLUMN: Final = "region_shape_attributes"
Row = dict[str, Any]
Region = tuple[Row, Row]  # its shape, its attributes


def read_via(source: Source, *, attribute: str | None = None) -> Export:
    """All images that are listed. attribute: which of the regions' attributes is the class.

    Raises UsageError where that is unclear.
    """
    export = source.export("via")
    found: dict[str, tuple[str, list[Region]]] = {}
    for name in source.ending(".json", ".csv"):
        rows = _of_csv(source, name) if name.lower().endswith(".csv") else _of_json(source, name)
        for key, regions in rows:
            if key in found:
                export.told.add("images that a second file lists (the first is taken)", f"{key} of {name}")
            else:
                found[key] = (name.rpartition("/")[0], regions)
    chosen = attribute or _attribute(regions for _, regions in found.values())
    for key, (near, regions) in found.items():
        file = export.find(key, near=near)
        if file is not None:
            boxes = [box for region in regions if (box := _box(export, region, chosen, key)) is not None]
            export.images.append(Picked(file, boxes))
    export.names = in_order(box.name for image in export.images for box in image.boxes)
    return export


def is_via(rows: Any) -> bool:
    """Whether JSON is a project, or its list of images."""
    if isinstance(rows, dict) and "_via_img_metadata" in rows:
        return True
    first = next(iter(rows.values()), None) if isinstance(rows, dict) else None
    return isinstance(first, dict) and "filename" in first and "regions" in first


def _of_json(source: Source, name: str) -> Iterator[tuple[str, list[Region]]]:
    rows = read_rows(source.root / name)
    if not is_via(rows):
        return
    images = rows.get("_via_img_metadata", rows)
    for row in images.values() if isinstance(images, dict) else ():
        if not isinstance(row, dict) or not isinstance(row.get("filename"), str):
            continue
        given = row.get("regions") or []
        regions = list(given.values()) if isinstance(given, dict) else given  # VIA 1 numbers them
        if not isinstance(regions, list):
            raise DataError(f"{source.root / name}: the regions of {row['filename']!r} are no list.")
        yield (
            row["filename"],
            [
                (_row(region.get("shape_attributes")), _row(region.get("region_attributes")))
                for region in regions
                if isinstance(region, dict)
            ],
        )


def _row(value: Any) -> Row:
    return value if isinstance(value, dict) else {}


def _of_csv(source: Source, name: str) -> Iterator[tuple[str, list[Region]]]:
    table = read_table(source.root / name)
    if table and CSV_COLUMN not in table[0]:
        return
    found: dict[str, list[Region]] = {}
    for position, row in enumerate(table, start=2):
        regions = found.setdefault(row.get("filename", ""), [])
        try:
            shape = msgspec.json.decode(row.get(CSV_COLUMN) or "{}", type=dict[str, Any])
            attributes = msgspec.json.decode(row.get("region_attributes") or "{}", type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise DataError(f"{source.root / name}:{position}: {error}.") from error
        if shape:
            regions.append((shape, attributes))
    yield from found.items()


def _attribute(images: Iterable[list[Region]]) -> str | None:
    """The attribute that is the class: the only one, or the only one with a usual name."""
    seen = Counter(key for regions in images for _, attributes in regions for key in attributes)
    if len(seen) <= 1:
        return next(iter(seen), None)
    usual = [key for key in seen if key.strip().lower() in USUAL]
    if len(usual) == 1:
        return usual[0]
    listed = ", ".join(f"{key!r} ({count:,} shapes)" for key, count in seen.most_common(10))
    raise UsageError(f"Which attribute of the shapes is their class? Say --label-attribute NAME. There are: {listed}.")


def _box(export: Export, region: Region, attribute: str | None, where: str) -> Labelled | None:
    shape, attributes = region
    label = ONLY if attribute is None else _label(attributes.get(attribute))
    if label is None:
        export.told.add(NO_LABEL, f"a {shape.get('name')} of {where}")
        return None
    if attribute is None:
        export.told.add(f"shapes without attributes (their class is {ONLY!r})", where)
    points = _points(shape)
    if points is None:
        export.told.add(NO_SHAPE, f"a {shape.get('name')} {label} of {where}")
        return None
    if shape.get("name") != "rect":
        export.told.add(OUTLINES, f"a {shape.get('name')} {label} of {where}")
    return Labelled(label, points)


def _label(value: Any) -> str | None:
    """A text, or the one box that is ticked."""
    if isinstance(value, dict):
        ticked = [str(key) for key, yes in value.items() if yes]
        return ticked[0] if len(ticked) == 1 else None
    text = value.strip() if isinstance(value, str) else ""
    return text or None


def _points(shape: Row) -> tuple[Point, ...] | None:
    def values(*names: str) -> list[float] | None:
        return numbers([shape.get(name) for name in names])

    kind = shape.get("name")
    if kind == "rect" and (box := values("x", "y", "width", "height")):
        return rectangle(box[0], box[1], box[2], box[3], centre=True)
    if kind == "circle" and (circle := values("cx", "cy", "r")):
        return ellipse(circle[0], circle[1], circle[2], circle[2])
    if kind == "ellipse" and (oval := values("cx", "cy", "rx", "ry")):
        return ellipse(oval[0], oval[1], oval[2], oval[3], math.degrees(number(shape.get("theta")) or 0.0))
    if kind in ("polygon", "polyline"):
        xs, ys = numbers(shape.get("all_points_x")), numbers(shape.get("all_points_y"))
        if xs and ys and len(xs) == len(ys) >= 2:
            return tuple(zip(xs, ys, strict=True))
    return None
