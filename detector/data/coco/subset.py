"""Copies a few images, with their original annotations, into a new COCO root."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from itertools import compress
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Raw

from detector.data.coco.annotations import AnnotationTable
from detector.data.coco.files import annotation_file, is_labelled
from detector.data.coco.forms import parse
from detector.data.coco.index import CocoIndex, load_index, select
from detector.errors import DataError
from detector.storage.outputs import claim_folder, leaves
from detector.storage.reading import LARGE, read_bytes
from detector.storage.staging import staged_folder


class _ImageId(msgspec.Struct, frozen=True, gc=False):
    id: int


class _AnnotatedImageId(msgspec.Struct, frozen=True, gc=False):
    image_id: int


def write_subset(
    source: Path, out: Path, num_images: int, *, splits: Sequence[str], seed: int | None, follow_links: bool = False
) -> None:
    """Copy ``num_images`` images of each split to the new COCO root ``out``: the first by id, or drawn with ``seed``.

    Annotations keep every field, as do info, licenses and categories. follow_links: copy also what lies outside of
    ``source`` and is only linked there. ``out`` appears whole or not at all. Raises UsageError where ``out`` is not
    empty, and DataError where the source is broken, lacks an image, or has fewer images than asked for.
    """
    claim_folder(out)
    cuts = [_cut(load_index(source, split), num_images, seed) for split in splits]
    if not follow_links:
        _refuse_links(source, cuts)
    with staged_folder(out) as staging:
        for cut in cuts:
            file = annotation_file(source, cut.split)
            content = read_bytes(file, most=LARGE, raises=DataError)
            target = staging / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            ids = set(cut.image_ids.tolist())
            target.write_bytes(cut_annotations(content, ids, labelled=is_labelled(source, cut.split)))
            for i in range(cut.num_images):
                copy = staging / cut.image_folder / cut.file_name(i)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(cut.image_path(i), copy)


def _refuse_links(source: Path, cuts: Sequence[CocoIndex]) -> None:
    """Raise DataError where what would be copied lies elsewhere: a link may lead to anything on this machine."""
    paths = [annotation_file(source, cut.split) for cut in cuts]
    paths += [cut.image_path(i) for cut in cuts for i in range(cut.num_images)]
    outside = [path for path in paths if leaves(source, path)]
    if outside:
        raise DataError(
            f"{len(outside):,} of the {len(paths):,} files to copy are links that leave {source}, first {outside[0]}. "
            "If they are yours, copy what they lead to with --follow-links."
        )


def first_images(index: CocoIndex, num_images: int) -> CocoIndex:
    """The first images by id. Raises DataError where the split has fewer."""
    if not 1 <= num_images <= index.num_images:
        raise DataError(
            f"Cannot take {num_images:,} images of '{index.split}' in {index.root}. Valid: 1 to {index.num_images:,}."
        )
    return select(index, np.arange(num_images))


def cut_annotations(content: bytes, image_ids: Collection[int], *, labelled: bool = True) -> bytes:
    """The annotation file ``content`` (readable) with only these images and their annotations, all else unchanged.

    What is kept is kept byte for byte: entries are sliced out of the text, not decoded and written again; but for a
    file that is not plain JSON in UTF-8, which is written anew. An image_info file without annotations stays without.
    """
    try:
        fields = msgspec.json.decode(content, type=dict[str, Raw])
        images = msgspec.json.decode(fields["images"], type=list[Raw])
        read_image = msgspec.json.Decoder(_ImageId).decode
        cut = {"images": [image for image in images if read_image(image).id in image_ids]}
        if "annotations" in fields:
            annotations = msgspec.json.decode(fields["annotations"], type=list[Raw])
            read_annotation = msgspec.json.Decoder(_AnnotatedImageId).decode
            cut["annotations"] = [row for row in annotations if read_annotation(row).image_id in image_ids]
        return msgspec.json.encode({**fields, **cut})
    except msgspec.DecodeError:
        return _cut_forms(content, image_ids, labelled=labelled)


def _cut_forms(content: bytes, image_ids: Collection[int], *, labelled: bool) -> bytes:
    """As ``cut_annotations``, of a file that is only readable entry by entry: those entries, as they are."""
    table = AnnotationTable.of_text(content, labelled=labelled)
    fields, _ = parse(content)
    for name, ids in (("images", table.images[:, 0]), ("annotations", table.annotations[:, 1])):
        if name in fields:
            kept = [key in image_ids for key in ids.tolist()]
            fields[name] = list(compress(fields[name], kept))
    return json.dumps(fields).encode()


def _cut(index: CocoIndex, num_images: int, seed: int | None) -> CocoIndex:
    """The images to copy, all of which exist."""
    cut = first_images(index, num_images)
    if seed is not None:
        drawn = np.random.default_rng(seed).choice(index.num_images, num_images, replace=False)
        cut = select(index, np.sort(drawn))
    absent = [path for path in map(cut.image_path, range(num_images)) if not path.is_file()]
    if absent:
        raise DataError(
            f"{len(absent):,} of the {num_images:,} images of '{index.split}' are missing, first {absent[0]}. "
            f"Run 'harness data verify {index.root}'."
        )
    return cut
