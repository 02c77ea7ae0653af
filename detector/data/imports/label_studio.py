"""Label Studio: JSON and JSON-MIN, boxes in percent of the image, turned about their first corner. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from detector.data.fix.pictures import image_size
from detector.data.fix.values import number, numbers
from detector.data.imports.export import (
    NO_FILE,
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
    read_rows,
    rectangle,
)
from detector.errors import DataError

LABEL_KEYS: Final = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels", "labels")
PREFIX: Final = re.compile(r"^[0-9a-f]{8}-")  # of an uploaded file's name
Row = dict[str, Any]


def read_label_studio(source: Source) -> Export:
    """All tasks that somebody finished, with boxes or without."""
    export = source.export("label-studio")
    for name in source.ending(".json"):
        rows = read_rows(source.root / name)
        if not is_label_studio(rows):
            continue
        for position, task in enumerate(rows):
            if isinstance(task, dict):
                _add(export, task, f"task {task.get('id', position)}", near=name.rpartition("/")[0])
    export.names = in_order(box.name for image in export.images for box in image.boxes)
    return export


def is_label_studio(rows: Any) -> bool:
    """Whether JSON is a list of tasks."""
    first = rows[0] if isinstance(rows, list) and rows else None
    return isinstance(first, dict) and (
        isinstance(first.get("data"), dict) or ("image" in first and ("annotator" in first or "annotation_id" in first))
    )


def _add(export: Export, task: Row, where: str, *, near: str) -> None:
    results = _results(export, task, where)
    if results is None:
        return
    file = _file(export, task, near)
    if file is None:
        export.told.add(NO_FILE, where)
        return
    if any(number(row.get("image_rotation")) for row in results):
        export.told.add("images that were turned in the tool (left out: export them turned)", where)
        return
    labels: dict[str, str] = {}
    for row in results:  # a shape and its label may be two results of one id
        if (label := _label(row)) is not None and isinstance(row.get("id"), str):
            labels.setdefault(row["id"], label)
    boxes, done = [], set[str]()
    for row in results:
        shape = row.get("value", row)
        if not isinstance(shape, dict) or not ({"width", "points", "radiusX", "rle"} & shape.keys()):
            if isinstance(shape, dict) and "choices" in shape:
                export.told.add("classes of whole images (left out)", where)
            continue
        key = row.get("id")
        if isinstance(key, str):
            if key in done:
                continue
            done.add(key)
        box = _box(export, row, shape, _label(row) or labels.get(str(key)), file, where)
        if box is not None:
            boxes.append(box)
    sizes = [(number(row.get("original_width")), number(row.get("original_height"))) for row in results]
    size = next(((w, h) for w, h in sizes if w and h), None)
    export.images.append(Picked(file, boxes, size))


def _results(export: Export, task: Row, where: str) -> list[Row] | None:
    """What somebody drew: the annotation that is marked as the truth, else the newest; None where there is none."""
    if "data" not in task:  # JSON-MIN: the controls' own names
        lists = [value for value in task.values() if isinstance(value, list)]
        return [row for value in lists for row in value if isinstance(row, dict)]
    given = task.get("annotations", task.get("completions"))
    rows = [row for row in given if isinstance(row, dict)] if isinstance(given, list) else []
    finished = [row for row in rows if not row.get("was_cancelled") and isinstance(row.get("result"), list)]
    if not finished:
        kind = "tasks that were skipped (left out)" if rows else "tasks without an annotation (left out: not yet done)"
        export.told.add(kind, where)
        return None
    chosen = [row for row in finished if row.get("ground_truth")] or finished
    if len(finished) > 1:
        export.told.add("tasks with several annotations (the truth, or the newest, is taken)", where)
    newest = max(chosen, key=lambda row: str(row.get("updated_at") or row.get("created_at") or ""))
    return [row for row in newest["result"] if isinstance(row, dict)]


def _label(row: Row) -> str | None:
    shape = row.get("value", row)
    if not isinstance(shape, dict):
        return None
    given = next((shape[key] for key in LABEL_KEYS if shape.get(key)), None)
    if isinstance(given, list):
        given = given[0]
    return given if isinstance(given, str) else None


def _box(export: Export, row: Row, shape: Row, label: str | None, file: str, where: str) -> Labelled | None:
    if label is None:
        export.told.add(NO_LABEL, where)
        return None
    size = numbers([row.get("original_width"), row.get("original_height")], 2)
    if size is None or min(size) <= 0:
        try:
            size = list(map(float, image_size(export.root / file)))
        except DataError as error:
            export.told.add(NO_SHAPE, str(error))
            return None
    points = _points(shape, size[0], size[1])
    if points is None:
        export.told.add(NO_SHAPE, f"{label} of {where}")
        return None
    if "points" in shape or "radiusX" in shape:
        export.told.add(OUTLINES, f"{label} of {where}")
    elif number(shape.get("rotation")):
        export.told.add(TURNED, f"{label} of {where}")
    return Labelled(label, tuple((x / size[0], y / size[1]) for x, y in points), fractions=True)


def _points(shape: Row, width: float, height: float) -> tuple[Point, ...] | None:
    """Corners in pixels of the original image, since an angle needs square pixels."""
    turn = number(shape.get("rotation")) or 0.0
    if "points" in shape:
        found = [numbers(point, 2) for point in shape["points"]] if isinstance(shape["points"], list) else []
        corners = tuple((point[0] * width / 100, point[1] * height / 100) for point in found if point is not None)
        return corners if len(corners) == len(found) >= 2 else None
    x, y = number(shape.get("x")), number(shape.get("y"))
    if x is None or y is None:
        return None
    if "radiusX" in shape:
        radii = numbers([shape["radiusX"], shape.get("radiusY")], 2)
        if radii is None:
            return None
        return ellipse(x * width / 100, y * height / 100, radii[0] * width / 100, radii[1] * height / 100, turn)
    sides = numbers([shape.get("width"), shape.get("height")], 2)
    if sides is None:
        return None
    box = (x * width / 100, y * height / 100, sides[0] * width / 100, sides[1] * height / 100)
    return rectangle(*box, turn, centre=False)


def _file(export: Export, task: Row, near: str) -> str | None:
    """The image file of a task: by its path, its name, or its name without the prefix of an upload."""
    for name in _names(task):
        last = name.rpartition("/")[2]
        for candidate in (name, PREFIX.sub("", last)):
            if candidate and (found := export.files.find(candidate, near=near)) is not None:
                return found
    return None


def _names(task: Row) -> Iterator[str]:
    data = task.get("data", task)
    values = [data.get("image"), *data.values()] if isinstance(data, dict) else []
    for value in values:
        if not isinstance(value, str):
            continue
        try:
            url = urlsplit(value)
        except ValueError:
            continue
        yield from (name for name in parse_qs(url.query).get("d", []))  # a file of the tool's own disk
        yield unquote(url.path)
        yield value
    if isinstance(task.get("file_upload"), str):
        yield task["file_upload"]
