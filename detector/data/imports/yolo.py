"""YOLO: a text file per image, a line per object: class, then fractions of the image's sides. Free of torch.

An image without a text file has no objects, as trainers of this form read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from detector.data.fix.values import number, whole
from detector.data.imports.export import NO_SHAPE, OUTLINES, Export, Labelled, Picked, Source, pairs, split_named
from detector.errors import DataError
from detector.storage.reading import read_text

NAME_FILES: Final = ("classes.txt", "obj.names", "labels.txt", "classes.names", "_darknet.labels")
NOT_LABELS: Final = ("train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt", *NAME_FILES)


def read_yolo(source: Source) -> Export:
    """All images of the folder, with the objects of their text files."""
    export = source.export("yolo")
    settings = _settings(source)
    export.names = _names(source, settings)
    split_of = _splits(source, settings, export)
    texts = {name for name in source.ending(".txt") if not _is_other(name)}
    used = set[str]()
    for file in sorted(export.files.names):
        if split_of and file not in split_of:
            export.told.add("images in no split of the export (left out)", file)
            continue
        found = next((name for name in _label_names(file) if name in texts), None)
        if found is None:
            export.told.add("images without a text file (taken as empty)", file)
        used |= set() if found is None else {found}
        try:
            boxes = [] if found is None else list(_read(source, found, settings, export))
        except DataError as error:
            export.told.add("text files that cannot be read (their images are left out)", str(error).rstrip("."))
            continue
        export.images.append(Picked(file, boxes, split=split_of.get(file)))
    for name in sorted(texts - used):
        if _is_labels(source, name):
            export.told.add("text files without an image (left out)", name)
    _name_the_rest(export)
    return export


def _is_other(name: str) -> bool:
    last = name.rpartition("/")[2].lower()
    return last in NOT_LABELS or last.startswith("readme") or "license" in last


def _is_labels(source: Source, name: str) -> bool:
    """Whether a text file looks like one of labels: five numbers or more in its first line."""
    first = read_text(source.root / name, raises=DataError).split("\n", 1)[0].split()
    return len(first) >= 5 and all(number(word) is not None for word in first)


def _label_names(file: str) -> Iterator[str]:
    """Where the text file of an image may lie: the last folder images is labels there; or beside it."""
    text = PurePosixPath(file).with_suffix(".txt")
    parts = list(text.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            yield "/".join([*parts[:i], "labels", *parts[i + 1 :]])
            yield "/".join([*parts[:i], "labels", parts[-1]])
    yield str(text)
    yield "/".join(["labels", *parts])
    yield "/".join([*parts[:-1], "labels", parts[-1]])


def _settings(source: Source) -> dict[str, Any]:
    """data.yaml, with every value as the text that stands there: a class may be called no, or 1e3."""
    known = [name for name in source.names if name.lower().endswith((".yaml", ".yml"))]
    for name in sorted(known, key=lambda name: (name.count("/"), not name.startswith("data."), name)):
        where = f"{source.root / name}"
        text = read_text(source.root / name, raises=DataError)
        try:
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.BaseLoader)):
                raise DataError(f"{where} has aliases (*name), which are not read.")
            found = yaml.load(text, yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DataError(f"{where} is not YAML: {' '.join(str(error).split())[:200]}.") from error
        if isinstance(found, dict) and "names" in found:
            return {str(key): value for key, value in found.items()}
    return {}


def _names(source: Source, settings: dict[str, Any]) -> list[str]:
    """Names of the classes by their number; those that are not given are called by it."""
    given = settings.get("names")
    if isinstance(given, list):
        return [str(name) for name in given]
    if isinstance(given, dict):
        numbered = {whole(key): str(name) for key, name in given.items()}
        if None in numbered or not all(key is not None and 0 <= key < 10_000 for key in numbered):
            raise DataError(f"{source.root}: names of data.yaml must be numbered from 0.")
        most = max((key for key in numbered if key is not None), default=-1)
        return [numbered.get(key, str(key)) for key in range(most + 1)]
    for last in NAME_FILES:
        for name in sorted(source.names, key=lambda name: name.count("/")):
            if name.rpartition("/")[2].lower() == last:
                lines = read_text(source.root / name, raises=DataError).splitlines()
                return [line.strip() for line in lines if line.strip()]
    return []


def _read(source: Source, name: str, settings: dict[str, Any], export: Export) -> Iterator[Labelled]:
    """The objects of one text file."""
    seen = set[str]()
    for position, line in enumerate(read_text(source.root / name, raises=DataError).splitlines(), start=1):
        where = f"{name}:{position}"
        words = line.split()
        if not words:
            continue
        if " ".join(words) in seen:
            export.told.add("lines that were there twice (once now)", where)
            continue
        seen.add(" ".join(words))
        values = [number(word) for word in words]
        label = whole(words[0])
        numbers = [value for value in values[1:] if value is not None]
        if label is None or not 0 <= label < 10_000 or len(numbers) != len(words) - 1:
            export.told.add("lines that are no class and numbers (left out)", f"{where}: {line[:80]!r}")
            continue
        points = _points(numbers, settings, export, where)
        if points is None:
            continue
        if any(not -1 <= value <= 2 for point in points for value in point):  # less is clipped
            export.told.add("lines whose numbers are no fractions of the image (left out)", f"{where}: {line[:80]!r}")
            continue
        yield Labelled(export.names[label] if label < len(export.names) else str(label), points, fractions=True)


def _points(
    numbers: list[float], settings: dict[str, Any], export: Export, where: str
) -> tuple[tuple[float, float], ...] | None:
    """Corners: of a box by its centre, or of an outline of three points or more."""
    count = len(numbers)
    pose = "kpt_shape" in settings and count > 5
    if count in (4, 5) or pose:
        if count == 5:
            export.told.add("boxes with a score (it is left out)", where)
        if pose:
            export.told.add("boxes with key points (they are left out)", where)
        x, y, w, h = numbers[:4]
        return (x - w / 2, y - h / 2), (x + w / 2, y + h / 2)
    if count >= 6 and count % 2 == 0:
        export.told.add(OUTLINES, where)
        return pairs(numbers)
    export.told.add(NO_SHAPE, where)
    return None


def _splits(source: Source, settings: dict[str, Any], export: Export) -> dict[str, str]:
    """The split of each image: by data.yaml, by lists of file names, or by folders. Empty where there are none."""
    found: dict[str, str] = {}
    for key in ("train", "val", "valid", "test"):
        given = settings.get(key)
        for entry in given if isinstance(given, list) else [given] if given else []:
            for file in _of_entry(source, str(entry), settings, export):
                _put(found, file, split_named(key), export)
    if not found:
        for name in source.names:
            split = split_named(PurePosixPath(name).stem)
            if name.endswith(".txt") and split is not None and _is_other(name):
                for file in _of_list(source, name, export):
                    _put(found, file, split, export)
    if not found:
        for file in sorted(export.files.names):
            splits = [split for part in PurePosixPath(file).parts[:-1] if (split := split_named(part)) is not None]
            if splits:
                found[file] = splits[0]
    return found


def _put(found: dict[str, str], file: str, split: str | None, export: Export) -> None:
    if split is not None and found.setdefault(file, split) != split:
        export.told.add("images in two splits (the first is kept)", f"{file}: {found[file]} and {split}")


def _of_entry(source: Source, entry: str, settings: dict[str, Any], export: Export) -> list[str]:
    """The images that an entry of data.yaml means: a folder or a list, whose path may be of another machine."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    lists = [name for name in source.names if name.endswith(".txt")]
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if tail in lists:
            return _of_list(source, tail, export)
        inside = [file for file in export.files.names if file.startswith(f"{tail}/")]
        if inside:
            return sorted(inside)
    if not parts:
        return []
    alias = {"val": "valid", "valid": "val"}.get(parts[0])  # Roboflow's file and folder disagree at times
    inside = [file for file in export.files.names if alias and file.startswith(f"{alias}/")]
    if not inside:
        export.told.add("folders of data.yaml that are not there", entry[:200])
    return sorted(inside)


def _of_list(source: Source, name: str, export: Export) -> list[str]:
    """The images of a list with one path per line."""
    lines = read_text(source.root / name, raises=DataError).splitlines()
    found = [export.find(line.strip(), near=name.rpartition("/")[0]) for line in lines if line.strip()]
    return [file for file in found if file is not None]


def _name_the_rest(export: Export) -> None:
    """Classes that occur and have no name are called by their numbers."""
    used = {box.name for image in export.images for box in image.boxes}
    unnamed = used - set(export.names)
    if not unnamed:
        return
    for name in sorted(unnamed, key=int):
        export.told.add("classes without a name (called by their numbers)", name)
    known = len(export.names)
    export.names += [str(number) for number in range(known, max(map(int, unnamed)) + 1)]
