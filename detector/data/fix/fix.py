"""``fix_root``: a mended copy of a COCO root, and the list of what was done. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from detector.data.coco.files import known_splits, missing_split
from detector.data.coco.verify import verify_root
from detector.data.fix.boxes import mend_boxes
from detector.data.fix.categories import mend_categories
from detector.data.fix.draft import Choices, Draft, Row, new_ids, read_draft
from detector.data.fix.images import mend_images
from detector.data.fix.pictures import Picture, copy_picture
from detector.data.fix.tally import Tally
from detector.data.fix.values import flag, numbers
from detector.errors import DataError
from detector.storage.files import write_json
from detector.storage.outputs import claim_folder
from detector.storage.staging import staged_folder

LIST: Final = "fixes.json"


@dataclass(frozen=True)
class Fixes:
    """What was done; what could not be done: then nothing was written."""

    done: Tally
    unclear: Tally
    images: dict[str, int]  # by split
    annotations: dict[str, int]

    @property
    def ok(self) -> bool:
        return not self.unclear


class _Unfinished(Exception):
    """Ends the writing: the folder must not appear."""


def fix_root(
    root: Path,
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    choices: Choices | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fixes:
    """Write a mended copy of ``root`` to the new folder ``out``, which appears only if it then verifies.

    splits: None for all. progress: called with the number of images just copied. ``root`` is only read. Raises
    UsageError where ``out`` is there already, DataError for a file that cannot be read at all.
    """
    claim_folder(out)
    choices = choices or Choices()
    done, unclear = Tally(), Tally()
    names = list(splits) if splits else known_splits(root)
    if not names:
        raise DataError(f"{root} cannot be mended: it has no annotations/instances_*.json. Run 'harness data import'.")
    for split in names:
        if split not in known_splits(root):
            raise DataError(f"{root} cannot be mended: {missing_split(root, split)}.")
    drafts = [read_draft(root, split, done, unclear) for split in names]
    mend_categories(drafts, choices)
    pictures = {draft.split: mend_images(root, draft, choices) for draft in drafts}
    for draft in drafts:
        mend_boxes(draft, pictures[draft.split], choices)
        _mend_rest(draft)
        if not draft.images:
            unclear.add("splits without any image that can be used", draft.split)
    images = {draft.split: len(draft.images) for draft in drafts}
    annotations = {draft.split: len(draft.annotations) for draft in drafts}
    fixes = Fixes(done, unclear, images, annotations)
    if fixes.ok:
        _write(root, out, drafts, pictures, fixes, choices, progress)
    return fixes


def _encoded(content: Row) -> bytes:
    try:
        return msgspec.json.encode(content)
    except (OverflowError, UnicodeError):  # unused fields may hold numbers of 100 digits, or half a surrogate pair
        return json.dumps(content).encode()


def _mend_rest(draft: Draft) -> None:
    """Crowd flags, ids, repetitions."""
    seen: set[tuple[Any, ...]] = set()
    kept: list[Row] = []
    for row in draft.annotations:
        given = row.get("iscrowd")
        crowd = flag(given)
        if crowd is None:
            draft.done.add("iscrowd that was neither 0 nor 1 (0 now)", f"{draft.of(row)}: {given!r}"[:200])
        elif type(given) is not int:
            draft.done.add("iscrowd that was missing or no number", f"{draft.of(row)}: {given!r}")
        row["iscrowd"] = int(bool(crowd))
        meaning = (row["image_id"], row["category_id"], row["iscrowd"], *(numbers(row["bbox"]) or ()))
        if meaning in seen:
            draft.done.add("annotations that were there twice (dropped)", draft.of(row))
            continue
        seen.add(meaning)
        kept.append(row)
    draft.annotations = kept
    new_ids(kept, draft, "annotation", lowest=1)


def _write(
    root: Path,
    out: Path,
    drafts: Sequence[Draft],
    pictures: dict[str, dict[int, Picture]],
    fixes: Fixes,
    choices: Choices,
    progress: Callable[[int], None] | None,
) -> None:
    """The new folder, unless the check of it finds something: that becomes a part of ``fixes.unclear``."""
    copied: set[str] = set()  # splits may share a folder of images
    try:
        with staged_folder(out) as staging:
            for draft in drafts:
                for row in draft.images:
                    name = f"{draft.folder}/{row['file_name']}"
                    if name not in copied:
                        picture = pictures[draft.split][row["id"]]
                        copy_picture(root / name, staging / name, picture, link=choices.link)
                        copied.add(name)
                    if progress is not None:
                        progress(1)
                content = draft.other | {"images": draft.images, "categories": draft.categories}
                if draft.labelled:
                    content["annotations"] = draft.annotations
                path = staging / draft.file
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(_encoded(content))
            for problem in verify_root(staging, [draft.split for draft in drafts], decode=False).problems:
                fixes.unclear.add("problems that remain", str(problem))
            if not fixes.ok:
                raise _Unfinished
            write_json(staging / LIST, {"source": root.name, "done": fixes.done.as_json()})
    except _Unfinished:
        return
