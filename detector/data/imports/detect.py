"""Which tool's export a folder is, by what its files begin with. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from detector.data.imports.cvat import read_cvat
from detector.data.imports.export import FORMS, Export, Source, read_rows, read_table
from detector.data.imports.label_studio import is_label_studio, read_label_studio
from detector.data.imports.roboflow import FILE, read_roboflow
from detector.data.imports.via import CSV_COLUMN, is_via, read_via
from detector.data.imports.voc import read_voc
from detector.data.imports.xml import read_xml
from detector.data.imports.yolo import NAME_FILES, read_yolo
from detector.errors import DataError, UsageError

TRIED: Final = 20  # files of a kind


def read_export(path: Path, form: str, *, zero_based: bool, attribute: str | None) -> Export:
    """An export in a form of ``FORMS``, or "auto". zero_based: of VOC's corners. attribute: VIA's that is the class.

    Raises UsageError for an unknown form, and where the form is unclear; DataError for what cannot be read.
    """
    source = Source.at(path)
    if form == "auto":
        form = detect(source)
    if form not in FORMS:
        raise UsageError(f"Unknown form {form!r}. Known: auto, {', '.join(FORMS)}.")
    if zero_based and form != "voc":
        raise UsageError(f"--zero-based is for Pascal VOC's corners; the form is {form}.")
    if attribute is not None and form != "via":
        raise UsageError(f"--label-attribute is for VIA's regions; the form is {form}.")
    readers: dict[str, Callable[[], Export]] = {
        "voc": lambda: read_voc(source, zero_based=zero_based),
        "yolo": lambda: read_yolo(source),
        "cvat": lambda: read_cvat(source),
        "label-studio": lambda: read_label_studio(source),
        "via": lambda: read_via(source, attribute=attribute),
        "roboflow": lambda: read_roboflow(source),
    }
    export = readers[form]()
    if not export.images:
        told = "; ".join(export.told.lines())
        raise DataError(f"{path}: no image of form {form} can be imported. {told or 'There are no such files.'}")
    return export


def detect(source: Source) -> str:
    """The form of an export. Raises UsageError where there is none or more than one."""
    if source.ending(FILE) or any("roboflow" in name.lower() for name in source.names):
        return "roboflow"
    found = _of_xml(source) | _of_json(source) | _of_csv(source)
    if not found and _is_yolo(source):
        found = {"yolo"}
    if len(found) == 1:
        return found.pop()
    if not found:
        raise UsageError(
            f"{source.root} is no export of a known form. Known: {', '.join(FORMS)}; a COCO root needs no import: "
            f"harness data verify {source.root}."
        )
    raise UsageError(
        f"{source.root} has files of several forms: {', '.join(sorted(found))}. Name one before the folder."
    )


def _of_xml(source: Source) -> set[str]:
    tags, broken = set[str](), list[DataError]()
    for name in source.ending(".xml")[:TRIED]:
        try:
            tags.add(read_xml(source.root / name).tag)
        except DataError as error:  # of many files, the reader leaves it out by name
            broken.append(error)
    if broken and not tags:
        raise broken[0]
    return {form for tag, form in (("annotation", "voc"), ("annotations", "cvat")) if tag in tags}


def _of_json(source: Source) -> set[str]:
    found = set()
    for name in source.ending(".json")[:TRIED]:
        rows = read_rows(source.root / name)
        found |= {"label-studio"} if is_label_studio(rows) else {"via"} if is_via(rows) else set()
    return found


def _of_csv(source: Source) -> set[str]:
    tables = (read_table(source.root / name) for name in source.ending(".csv")[:TRIED])
    return {"via" for table in tables if table and CSV_COLUMN in table[0]}


def _is_yolo(source: Source) -> bool:
    names = {name.rpartition("/")[2].lower() for name in source.names}
    folders = {part for name in source.names for part in name.split("/")[:-1]}
    text = bool(source.ending(".txt"))
    return text and (
        bool(names & {*NAME_FILES, "data.yaml", "data.yml"}) or "labels" in folders or bool(source.ending(".yaml"))
    )
