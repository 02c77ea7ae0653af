"""Image entries and their files: found, measured, each once. Free of torch."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from detector.data.fix.draft import Choices, Draft, Row, new_ids
from detector.data.fix.files import ImageFiles
from detector.data.fix.pictures import Picture, look_at_all
from detector.data.fix.values import numbers, whole


def mend_images(root: Path, draft: Draft, choices: Choices) -> dict[int, Picture]:
    """Leave the entries whose files can be read, each with an id and name of its own; the pictures, by image id.

    Annotations of other images are dropped. Sizes are not set here: ``detector.data.fix.boxes``
    compares them with the pictures' first.
    """
    _number(draft, choices)
    _find_files(root, draft)
    _merge(draft, choices)
    paths = [root / draft.folder / draft.sources[row["id"]] for row in draft.images]
    pictures: dict[int, Picture] = {}
    for row, found in zip(draft.images, look_at_all(paths), strict=True):
        if isinstance(found, Picture):
            pictures[row["id"]] = found
        else:
            draft.done.add("images that cannot be read (dropped)", f"{draft.folder}/{row['file_name']} {found}")
    draft.images = [row for row in draft.images if row["id"] in pictures]
    for row in draft.annotations:
        if row["image_id"] not in pictures:
            draft.done.add("annotations of dropped images (dropped)", f"{draft.of(row)}, image {row['image_id']}")
    draft.annotations = [row for row in draft.annotations if row["image_id"] in pictures]
    return pictures


def _key(value: Any) -> int | str | None:
    found = whole(value)
    return found if found is not None else value if isinstance(value, str) else None


def _number(draft: Draft, choices: Choices) -> None:
    """Image ids as whole numbers above 0, each once, in images and annotations."""
    entries: dict[int | str | None, list[Row]] = defaultdict(list)
    for row in draft.images:
        entries[_key(row.get("id"))].append(row)
    kept: list[Row] = []
    for key, rows in entries.items():
        names = {str(row.get("file_name")) for row in rows}
        if key is None or len(rows) == 1:
            kept += rows
        elif len(names) == 1:
            draft.done.add("images that were listed twice", f"{draft.of(rows[0], 'image')} ({names.pop()})")
            kept.append(rows[0])
        elif choices.drop_unclear:
            draft.done.add("image ids of several files (all of them dropped)", draft.of(rows[0], "image"))
        else:
            listed = " and ".join(sorted(names)[:2])
            draft.unclear.add(
                "image ids of several files, whose annotations could be of any (--drop-unclear leaves them out)",
                f"{draft.of(rows[0], 'image')} is {listed}",
            )
            kept.append(rows[0])
    given = [_key(row.get("id")) for row in kept]
    draft.images = kept
    new_ids(kept, draft, "image", lowest=0)
    mapped: dict[int | str | None, int] = dict(zip(given, (row["id"] for row in kept), strict=True))
    mapped.pop(None, None)
    known = []
    for annotation in draft.annotations:
        found = mapped.get(_key(annotation.get("image_id")))
        if found is None:
            what = f"{draft.of(annotation)}, image {annotation.get('image_id')!r}"
            draft.done.add("annotations of unknown images (dropped)", what)
        else:
            known.append({**annotation, "image_id": found})
    draft.annotations = known


def _find_files(root: Path, draft: Draft) -> None:
    """Keep the images that have a file; their names become its path within the split's folder."""
    files = ImageFiles.below(root / draft.folder)
    kept = []
    for row in draft.images:
        name = row.get("file_name")
        found = files.find(name) if isinstance(name, str) else None
        if found is None or files.leaves(found):
            why = "is a link that leaves its folder" if found is not None else "has no file"
            draft.done.add("images without a file in their folder (dropped)", f"{draft.folder}/{name} {why}")
            continue
        if found != name:
            draft.done.add("file names that were paths of elsewhere", f"{name!r}: {found}")
        row["file_name"] = draft.sources[row["id"]] = found
        kept.append(row)
    draft.images = kept
    unlisted = len(files.names) - len(set(draft.sources.values()))
    if unlisted:
        draft.done.add("folders with images that no entry names (not copied)", f"{unlisted:,} in {draft.folder}")


def _merge(draft: Draft, choices: Choices) -> None:
    """One entry per file, where the annotations of several agree, or the user says that they belong together."""
    by_file: dict[str, list[Row]] = defaultdict(list)
    for row in draft.images:
        by_file[row["file_name"]].append(row)
    several = {name: rows for name, rows in by_file.items() if len(rows) > 1}
    if not several:
        return
    annotations: dict[int, list[Row]] = defaultdict(list)
    for row in draft.annotations:
        annotations[row["image_id"]].append(row)
    target: dict[int, int | None] = {}
    for name, rows in several.items():
        keep = rows[0]["id"]
        meanings = {row["id"]: _meaning(annotations[row["id"]]) for row in rows}
        told = f"{name} of {draft.split} is " + " and ".join(str(row["id"]) for row in rows[:3])
        if len({meaning for meaning in meanings.values() if meaning}) <= 1:
            draft.done.add("files under several ids whose annotations agree (one now)", told)
            source = next((key for key, meaning in meanings.items() if meaning), keep)
            target |= {row["id"]: keep if row["id"] == source else None for row in rows}
        elif choices.merge_images:
            draft.done.add("files under several ids (one now, with the annotations of all)", told)
            target |= {row["id"]: keep for row in rows}
        elif choices.drop_unclear:
            draft.done.add("files under several ids whose annotations differ (dropped)", told)
            target |= {row["id"]: None for row in rows}
            keep = None
        else:
            draft.unclear.add(
                "files under several ids whose annotations differ (say --merge-images or --drop-unclear)", told
            )
        by_file[name] = [row for row in rows if row["id"] == keep]
    draft.images = [row for rows in by_file.values() for row in rows]
    draft.annotations = [row for row in draft.annotations if target.get(row["image_id"], row["image_id"]) is not None]
    for row in draft.annotations:
        row["image_id"] = target.get(row["image_id"], row["image_id"])


def _meaning(rows: list[Row]) -> frozenset[tuple[Any, ...]]:
    """What an image's annotations say, whatever their ids and order."""
    return frozenset((str(row.get("category_id")), *(numbers(row.get("bbox")) or ())) for row in rows)
