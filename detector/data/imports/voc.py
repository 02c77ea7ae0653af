"""Pascal VOC: an XML file per image, corners that count pixels from 1 and are both inside. Free of torch.

A difficult object is neither trained on nor scored, as in VOC's own evaluation: COCO's flag for that is iscrowd.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from detector.data.fix.values import flag, number
from detector.data.imports.export import NO_LABEL, NO_SHAPE, Export, Labelled, Picked, Source, in_order, split_named
from detector.data.imports.xml import read_xml, text_of
from detector.errors import DataError
from detector.storage.reading import read_text


def read_voc(source: Source, *, zero_based: bool = False) -> Export:
    """Images that have an XML file. zero_based: corners are pixel edges from 0, as some tools write them."""
    export = source.export("voc")
    annotated = set[str]()
    for name in source.ending(".xml"):
        try:
            root = read_xml(source.root / name)
        except DataError as error:
            export.told.add("XML files that cannot be read (left out)", str(error).rstrip("."))
            continue
        if root.tag != "annotation":
            export.told.add("XML files that are no annotations (left out)", name)
            continue
        file = _image(export, name, root)
        if file is None:
            continue
        if file in annotated:
            export.told.add("images with two XML files (the first is taken)", file)
            continue
        annotated.add(file)
        boxes = [box for item in root.findall("object") if (box := _box(export, name, item, zero_based)) is not None]
        export.images.append(Picked(file, boxes, _size(root), _folder_split(file)))
    for file in sorted(export.files.names - annotated):
        if not file.startswith(("SegmentationClass/", "SegmentationObject/")) and "/Segmentation" not in file:
            export.told.add("images without an XML file (left out: nobody says that they are empty)", file)
    _listed_splits(source, export)
    export.names = in_order(box.name for image in export.images for box in image.boxes)
    return export


def _image(export: Export, name: str, root: Element) -> str | None:
    """The image of an XML file: the one that it names, else the one that is called like it."""
    path = PurePosixPath(name)
    near = path.parent.parent / "JPEGImages" if path.parent.name == "Annotations" else path.parent
    folder = "" if str(near) == "." else str(near)
    given = text_of(root, "filename")
    found = export.files.find(given, near=folder) if given else None
    if found is None:  # tools rename one of the two, or leave the suffix out
        alike = [file for file in export.files.names if PurePosixPath(file).stem == path.stem]
        close = [file for file in alike if str(PurePosixPath(file).parent) in (str(near), str(path.parent))] or alike
        found = close[0] if len(close) == 1 else None
    if found is None:
        export.told.add("images whose file was not found (left out)", f"{given or name} of {name}")
    return found


def _size(root: Element) -> tuple[float, float] | None:
    width, height = (number(text_of(root, f"size/{side}")) for side in ("width", "height"))
    return (width, height) if width and height else None  # 0 x 0 means that the tool did not know


def _box(export: Export, name: str, item: Element, zero_based: bool) -> Labelled | None:
    label = text_of(item, "name")
    corners = [number(text_of(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if label is None:
        export.told.add(NO_LABEL, f"an object of {name}")
        return None
    if any(value is None for value in corners):
        export.told.add(NO_SHAPE, f"{label} of {name}")
        return None
    x1, y1, x2, y2 = (value for value in corners if value is not None)
    if not zero_based:
        if min(x1, y1) < 1:
            export.told.add(
                "boxes that begin before pixel 1 (clipped; if the tool counts from 0, say --zero-based)",
                f"{label} of {name}",
            )
        x1, y1 = x1 - 1, y1 - 1
    difficult = bool(flag(text_of(item, "difficult")))
    if difficult:
        export.told.add("difficult objects (neither trained on nor scored: iscrowd)", f"{label} of {name}")
    return Labelled(label, ((x1, y1), (x2, y2)), ignored=difficult)


def _folder_split(file: str) -> str | None:
    """Roboflow's VOC exports have a folder per split."""
    return split_named(file.split("/")[0]) if "/" in file else None


def _listed_splits(source: Source, export: Export) -> None:
    """Splits of ImageSets/Main: train.txt and val.txt, else trainval.txt; test.txt."""
    lists = {
        PurePosixPath(name).stem: name for name in source.names if "ImageSets/Main/" in name and name.endswith(".txt")
    }
    wanted = {split: lists[split] for split in ("train", "val", "test") if split in lists}
    if "train" not in wanted and "trainval" in lists:
        wanted["train"] = lists["trainval"]
    if "train" not in wanted or len(wanted) == 1 or source.only is not None:
        return
    split_of: dict[str, str] = {}
    for split, name in wanted.items():
        for line in read_text(source.root / name, raises=DataError).splitlines():
            if line.strip():
                split_of.setdefault(line.split()[0], split)
    kept = []
    for image in export.images:
        image.split = split_of.get(PurePosixPath(image.file).stem)
        if image.split is None:
            export.told.add("images in no list of ImageSets/Main (left out)", image.file)
        else:
            kept.append(image)
    export.images = kept
