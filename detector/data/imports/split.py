"""Splits by group: images that are nearly the same, such as a video's frames, stay on one side. Free of torch."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Final

from detector.data.imports.cvat import natural
from detector.data.imports.export import Picked
from detector.errors import UsageError

GROUPS: Final = ("auto", "video", "folder", "none")
UPLOAD: Final = re.compile(
    r"[._](?:jpe?g|png|bmp|webp)\.rf\.[0-9A-Za-z]+$", re.IGNORECASE
)  # Roboflow's copies of one image
LAST_NUMBER: Final = re.compile(r"\d+(?=\D*$)")


def assign_splits(images: Sequence[Picked], *, val: float | None, group: str | None, seed: int) -> str:
    """Set every image's split, and say how.

    The export's own splits stay where it has two or more, unless ``val`` or ``group`` is given. val: the share of the
    images that is held out, about; None: 0.2. group: one of ``GROUPS``, or a regular expression whose first group (or
    whole match) names an image's group; None: auto. Deterministic by seed and names. Raises UsageError for a share
    outside 0..1 and a pattern that is none.
    """
    own = Counter(image.split for image in images)
    if val is None and group is None and len(own.keys() - {None}) > 1 and None not in own:
        return "the export's own splits"
    share = 0.2 if val is None else val
    if not 0 <= share < 1:
        raise UsageError(f"--val {share:g}: the share of images to hold out must be at least 0 and below 1.")
    groups: dict[str, list[Picked]] = {}
    key = _key(group or "auto")
    for image in sorted(images, key=lambda image: natural(image.file)):
        groups.setdefault(key(image), []).append(image)
    if share == 0:
        for image in images:
            image.split = "train"
        return "no validation split (--val 0)"
    if len(groups) == 1 and len(images) > 1:
        return _tail(next(iter(groups.values())), share)
    held = _held_out(groups, share, seed)
    for name, members in groups.items():
        for image in members:
            image.split = "val" if name in held else "train"
    return (
        f"{len(images):,} images in {len(groups):,} groups: {len(groups) - len(held):,} train, {len(held):,} val "
        f"(seed {seed})"
    )


def _key(group: str) -> Callable[[Picked], str]:
    """The name of an image's group."""
    if group == "none":
        return lambda image: image.file
    if group == "folder":
        return lambda image: str(PurePosixPath(image.file).parent)
    if group in ("auto", "video"):
        return lambda image: image.group or _video(image.file)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UsageError(
            f"--group {group!r} is no regular expression: {error}. Known names: {', '.join(GROUPS)}."
        ) from error

    def matched(image: Picked) -> str:
        found = pattern.search(image.file)
        if found is None:
            return f"alone: {image.file}"
        return str(found[1]) if pattern.groups and found[1] is not None else found[0]

    return matched


def _video(file: str) -> str:
    """Folder and name, less the last number: what frames of one video have in common."""
    path = PurePosixPath(file)
    stem = UPLOAD.sub("", path.stem)
    common = LAST_NUMBER.sub("#", stem)
    return f"{path.parent}/{common}"


def _held_out(groups: dict[str, list[Picked]], share: float, seed: int) -> set[str]:
    """Groups drawn until about the share of the images is held out; one at least, and never all."""
    wanted = share * sum(map(len, groups.values()))
    drawn = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest())
    held, count = set[str](), 0
    for name in drawn:
        size = len(groups[name])
        if abs(count + size - wanted) < abs(count - wanted) and len(held) < len(groups) - 1:
            held.add(name)
            count += size
    if not held and len(groups) > 1:
        held.add(min(drawn, key=lambda name: len(groups[name])))
    return held


def _tail(members: list[Picked], share: float) -> str:
    """One group alone: its end is held out, so that images that are alike meet at one place only."""
    count = min(len(members) - 1, max(1, round(share * len(members))))
    for i, image in enumerate(members):
        image.split = "val" if i >= len(members) - count else "train"
    return (
        f"{len(members):,} images in 1 group: its last {count:,} are val. If they are frames of one video, val is "
        "easier than new videos; if they are no frames, --group none draws them one by one"
    )
