"""``import_data``: a COCO root from an export of another tool. Free of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from detector.data.coco.verify import verify_root
from detector.data.fix.boxes import clip
from detector.data.fix.pictures import XYWH, Picture, copy_picture, look_at_all, turned_box
from detector.data.fix.tally import Tally
from detector.data.imports.detect import read_export
from detector.data.imports.export import Export, Labelled, Picked
from detector.data.imports.split import assign_splits
from detector.errors import DataError
from detector.storage.files import write_json
from detector.storage.outputs import claim_folder
from detector.storage.staging import staged_folder

LIST: Final = "import.json"
SPLITS: Final = ("train", "val", "test")
Row = dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """What was made: the export's form, how it was split, what was left out or changed."""

    form: str
    split: str
    names: tuple[str, ...]
    told: Tally
    images: dict[str, int]  # by split
    boxes: dict[str, int]


def import_data(
    source: Path,
    out: Path,
    *,
    form: str = "auto",
    val: float | None = None,
    group: str | None = None,
    seed: int = 0,
    zero_based: bool = False,
    attribute: str | None = None,
    link: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Write the export as a COCO root to the new folder ``out``, whole or not at all. ``source`` is only read.

    val, group, seed: as for ``assign_splits``. zero_based, attribute: as for ``read_export``. link: hard links in place
    of copies. progress: called with the number of images just copied. Raises UsageError, DataError.
    """
    claim_folder(out)
    export = read_export(source, form, zero_based=zero_based, attribute=attribute)
    pictures = _usable(export)
    _check_names(export)
    said = assign_splits(export.images, val=val, group=group, seed=seed)
    parts = {split: [image for image in export.images if image.split == split] for split in SPLITS}
    rows = {split: _rows(export, images, pictures) for split, images in parts.items() if images}
    imported = Imported(
        export.form,
        said,
        tuple(export.names),
        export.told,
        {split: len(content["images"]) for split, content in rows.items()},
        {split: len(content["annotations"]) for split, content in rows.items()},
    )
    with staged_folder(out) as staging:
        for split, content in rows.items():
            path = staging / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(msgspec.json.encode(content))
            for image, row in zip(parts[split], content["images"], strict=True):
                target = staging / split / row["file_name"]
                copy_picture(export.root / image.file, target, pictures[image.file], link=link)
                if progress is not None:
                    progress(1)
        if problems := verify_root(staging, list(rows), decode=False).problems:
            shown = "; ".join(map(str, problems[:3]))
            raise DataError(f"{source} cannot be imported: {len(problems):,} problems would remain: {shown}.")
        _write_list(staging / LIST, source, imported)
    return imported


def _write_list(path: Path, source: Path, imported: Imported) -> None:
    about = {"form": imported.form, "source": source.name, "split": imported.split, "names": imported.names}
    write_json(path, about | {"told": imported.told.as_json()})


def _usable(export: Export) -> dict[str, Picture]:
    """The pictures of the export's images, by file; images that cannot be used are taken out, and told."""
    once: dict[str, Picked] = {}
    for image in export.images:
        if image.file in once:
            same = once[image.file].boxes == image.boxes
            export.told.add("images that were listed twice (the first is taken)", image.file)
            if not same:
                export.told.add("images that were listed twice with other boxes (the first is taken)", image.file)
        elif not image.file.isascii() and not _is_unicode(image.file):
            export.told.add("images whose names are not UTF-8 (left out: rename them)", image.file)
        elif export.files.leaves(image.file):
            export.told.add("images that are links out of the folder (left out)", image.file)
        else:
            once[image.file] = image
    found = look_at_all([export.root / file for file in once])
    pictures: dict[str, Picture] = {}
    for (file, image), picture in zip(once.items(), found, strict=True):
        if not isinstance(picture, Picture):
            export.told.add("images that cannot be read (left out)", f"{file} {picture}")
        elif image.size is not None and image.size not in (picture.size, picture.upright):
            size = f"{picture.upright[0]} x {picture.upright[1]}, the export says {image.size[0]:g} x {image.size[1]:g}"
            export.told.add("images whose size is not the one that was labelled (left out)", f"{file} is {size}")
        else:
            pictures[file] = picture
    export.images = [image for file, image in once.items() if file in pictures]
    if not export.images:
        raise DataError(f"{export.root}: no image can be imported. {'; '.join(export.told.lines())}")
    return pictures


def _is_unicode(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # bytes of another encoding, which JSON cannot hold
        return False


def _check_names(export: Export) -> None:
    """Each class once; two classes of one name are one."""
    twice = [name for name, count in Counter(export.names).items() if count > 1]
    for name in twice:
        export.told.add("classes that were listed twice (one now)", name)
    export.names = list(dict.fromkeys(export.names))
    if not export.names:
        raise DataError(f"{export.root}: no object has a class. {'; '.join(export.told.lines())}")


def _rows(export: Export, images: Sequence[Picked], pictures: dict[str, Picture]) -> Row:
    """The annotation file of one split."""
    category = {name: i for i, name in enumerate(export.names, start=1)}
    names = _file_names(images)
    listed: list[Row] = []
    annotations: list[Row] = []
    for key, image in enumerate(images, start=1):
        picture = pictures[image.file]
        if picture.orientation != 1:
            what = f"{image.file}, orientation {picture.orientation}"
            export.told.add("images that EXIF turns (written upright)", what)
        width, height = picture.upright
        listed.append({"id": key, "file_name": names[image.file], "width": width, "height": height})
        for labelled in image.boxes:
            box = _box(export, image, labelled, picture)
            if box is not None:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": key,
                        "category_id": category[labelled.name],
                        "bbox": list(box),
                        "area": box[2] * box[3],
                        "iscrowd": int(labelled.ignored),
                    }
                )
    categories = [{"id": key, "name": name, "supercategory": ""} for name, key in category.items()]
    return {"images": listed, "annotations": annotations, "categories": categories}


def _box(export: Export, image: Picked, labelled: Labelled, picture: Picture) -> XYWH | None:
    """The box around an object's points, in pixels of the upright picture, to a thousandth; None without area in it."""
    # An export that gives the stored size of a picture that EXIF turns was drawn on as it is stored.
    stored = picture.size != picture.upright and image.size == picture.size
    size = picture.size if stored else picture.upright
    scale = size if labelled.fractions else (1, 1)
    xs = [x * scale[0] for x, _ in labelled.points]
    ys = [y * scale[1] for _, y in labelled.points]
    x, y = min(xs), min(ys)
    box: XYWH = (round(x, 3), round(y, 3), round(max(xs) - x, 3), round(max(ys) - y, 3))
    found = clip(turned_box(box, picture) if stored else box, picture.upright)
    where = f"{labelled.name} {list(box)} of {image.file}"
    if found is None:
        export.told.add("boxes without area in their image (left out)", where)
    elif found != box and not stored and max(abs(a - b) for a, b in zip(found, box, strict=True)) > 0.01:
        export.told.add("boxes that left their image (clipped)", where)
    return None if found is None else _rounded(found)


def _rounded(box: XYWH) -> XYWH:
    x, y, w, h = (round(value, 3) for value in box)
    return x, y, w, h


def _file_names(images: Sequence[Picked]) -> dict[str, str]:
    """Each image's name in its split's folder: its own, or with its folders where two have the same."""
    same = Counter(image.file.rpartition("/")[2].lower() for image in images)
    found: dict[str, str] = {}
    for image in images:
        last = image.file.rpartition("/")[2]
        found[image.file] = last if same[last.lower()] == 1 else image.file
    return found
