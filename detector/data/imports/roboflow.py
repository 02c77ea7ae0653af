"""Roboflow: folders train, valid and test, each with images and annotations in the form that was asked for.

The COCO form lists a category 0 that is the parent of the others and has no boxes: it is left out. The YOLO and VOC
forms are those of their own readers. Free of torch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from detector.data.fix.values import flag, numbers, whole
from detector.data.imports.export import NO_SHAPE, Export, Labelled, Picked, Source, read_rows, rectangle, split_named
from detector.data.imports.voc import read_voc
from detector.data.imports.yolo import read_yolo
from detector.errors import DataError

FILE: Final = "_annotations.coco.json"
Row = dict[str, Any]


def read_roboflow(source: Source) -> Export:
    """The export, by the form that is there. Raises DataError where none is."""
    if source.ending(FILE):
        return _read_coco(source)
    if source.ending(".xml"):
        export = read_voc(source, zero_based=True)  # its corners are edges of pixels
    elif source.ending(".txt"):
        export = read_yolo(source)
    else:
        raise DataError(f"{source.root} has no {FILE}, XML or text files. Export it from Roboflow as COCO or YOLO.")
    export.form = "roboflow"
    return export


def _read_coco(source: Source) -> Export:
    export = source.export("roboflow")
    parts = [(name, _checked(source, name)) for name in source.ending(FILE)]
    export.names = _names(export, parts)
    for name, rows in parts:
        near = name.rpartition("/")[0]
        split = split_named(near.rpartition("/")[2])
        names = {whole(row.get("id")): str(row.get("name")) for row in rows["categories"]}
        boxes: dict[int | None, list[Labelled]] = {}
        for row in rows["annotations"]:
            box = numbers(row.get("bbox"), 4)
            label = names.get(whole(row.get("category_id")))
            if box is None or label not in export.names:
                export.told.add(NO_SHAPE, f"annotation {row.get('id')!r} of {name}")
                continue
            points = rectangle(box[0], box[1], box[2], box[3], centre=True)
            crowd = bool(flag(row.get("iscrowd")))
            boxes.setdefault(whole(row.get("image_id")), []).append(Labelled(label, points, ignored=crowd))
        for row in rows["images"]:
            file = export.find(str(row.get("file_name")), near=near)
            if file is not None:
                size = numbers([row.get("width"), row.get("height")], 2)
                own = boxes.pop(whole(row.get("id")), [])
                export.images.append(Picked(file, own, (size[0], size[1]) if size else None, split))
        for key in boxes:
            export.told.add("annotations of unknown images (left out)", f"image {key} of {name}")
    return export


def _checked(source: Source, name: str) -> dict[str, list[Row]]:
    rows = read_rows(source.root / name)
    found = {}
    for key in ("images", "annotations", "categories"):
        value = rows.get(key) if isinstance(rows, dict) else None
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise DataError(f"{source.root / name} is no COCO file: it has no list of {key}.")
        found[key] = value
    return found


def _names(export: Export, parts: list[tuple[str, dict[str, list[Row]]]]) -> list[str]:
    """Names of all files' categories in the order of their ids, without a parent that has no boxes."""
    used: Counter[str] = Counter()
    order: dict[str, int] = {}
    parents, roots = set[str](), set[str]()
    for _, rows in parts:
        names = {whole(row.get("id")): str(row.get("name")) for row in rows["categories"]}
        used.update(names[key] for row in rows["annotations"] if (key := whole(row.get("category_id"))) in names)
        for row in rows["categories"]:
            key, name = whole(row.get("id")), str(row.get("name"))
            if key is not None:
                order.setdefault(name, key)
            parents.add(str(row.get("supercategory")))
            if key == 0:
                roots.add(name)
    dropped = {name for name in roots if not used[name] and (name in parents or len(order) > 1)}
    for name in sorted(dropped):
        export.told.add("category 0, the parent of the others (left out)", name)
    return [name for name in sorted(order, key=lambda name: (order[name], name)) if name not in dropped]
