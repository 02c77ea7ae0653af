"""The page of ``harness data browse``: images of a data set with boxes, and which anchors match them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import DataError, UsageError
from detector.runs.job import MatchSettings, TrainJob
from harness.console.bars import count_bar
from harness.figures.images.gallery import Gallery, Item, Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detector.data.coco.index import CocoIndex
    from detector.evaluation.pictures.anchors import Matched
    from detector.evaluation.pictures.draw import Drawn
    from detector.evaluation.pictures.marks import Key, Mark

MOST_ROWS: Final = 300  # of the table below a picture
_LISTED = 12  # ids or names in a message


@dataclass(frozen=True, eq=False)
class _Sheet:
    """One image and its boxes. names: of the categories, as labels have them."""

    index: CocoIndex
    position: int
    matched: Matched
    names: list[str]

    @property
    def rows(self) -> slice:
        return self.index.annotations_of(self.position)


def chosen_split(root: Path, given: str | None) -> str:
    """The split to browse: the one given, else the first that is trained on, else the first.

    Raises DataError where the root has none, or not that one.
    """
    from detector.data.coco.files import known_splits, missing_split

    splits = known_splits(root)
    if given is not None and given not in splits:
        raise DataError(f"{root}: {missing_split(root, given)}.")
    if not splits:
        raise DataError(
            f"{root}: {'it has no annotations' if root.is_dir() else 'there is no such folder'}. A COCO root has "
            "annotations/instances_SPLIT.json and a folder SPLIT/ of images. To make one: harness data import --help."
        )
    return given or next((split for split in splits if split.startswith("train")), splits[0])


def browse(
    job: TrainJob,
    root: Path,
    split: str,
    *,
    ids: Sequence[int] = (),
    classes: Sequence[str] = (),
    count: int,
    setting: str,
) -> Gallery:
    """``count`` images spread evenly over those that hold one of the classes, or those of the given ids.

    setting: whose matching it is, in words. Raises UsageError for an id or a class that the split does not have.
    """
    from detector.data.coco.index import load_index
    from detector.evaluation.pictures.anchors import matched_anchors
    from detector.evaluation.pictures.marks import short_name

    index = load_index(root, split)
    if not index.num_images:
        raise DataError(f"{root}: {split} has no images. Run 'harness data verify {root}'.")
    positions = _positions(index, ids, classes, count)
    names = [short_name(name) for name in index.category_names]
    sheets = []
    with count_bar("matching", len(positions)) as advance:
        for i in positions:
            sheets.append(_Sheet(index, i, matched_anchors(job, index, i), names))
            advance(1)
    return Gallery(
        title=f"{split} of {root.name}",
        text=[
            f"In the split: {index.num_images:,} images, {len(index.boxes):,} boxes, {len(names):,} categories. Shown "
            f"here: {len(sheets):,}.",
            f"The matching is that of {setting}: the image's short side {job.augmentation.short_sides[-1]} pixels, "
            f"{_rule(job.matching)}.",
            "The number at a box is how many anchors learn it. Dots of its colour: centres of these anchors; grey "
            "crosses: of ignored ones; several anchors share a centre. Below each picture its boxes are listed, with "
            "their annotations' ids.",
        ],
        sections=[Section("Images", _unmatched_text(sheets), [partial(_item, sheet) for sheet in sheets])],
    )


def _rule(matching: MatchSettings) -> str:
    """How anchors are matched, in words."""
    low, high = matching.background_iou, matching.foreground_iou
    ignored = f"ignored from {low:g}" if low < high else "none ignored"
    best = ", and the best anchors of each box positive in any case" if matching.allow_low_quality else ""
    return f"anchors are positive from IoU {high:g}, {ignored}{best}"


def _positions(index: CocoIndex, ids: Sequence[int], classes: Sequence[str], count: int) -> list[int]:
    import numpy as np

    from detector.data.coco.annotations import find
    from detector.sanity.anchor_counts import spread

    if ids:
        found = find(index.image_ids, np.array(ids, np.int64))
        unknown = [key for key, at in zip(ids, found.tolist(), strict=True) if at < 0]
        if unknown:
            some = ", ".join(map(str, index.image_ids[:_LISTED].tolist()))
            raise UsageError(f"{index.split} has no image with the id {unknown[0]}. It has {some}, ...")
        return list(dict.fromkeys(found.tolist()))
    every = np.arange(index.num_images)
    if classes:
        wanted = np.isin(index.labels, [_label(index, name) for name in classes])
        every = np.unique(index.positions()[wanted])
        if not len(every):
            raise UsageError(f"No image of {index.split} has a box of {' or '.join(classes)}.")
    return [int(position) for position in spread(every, min(count, len(every)))]


def _label(index: CocoIndex, name: str) -> int:
    """A category by its name or its id."""
    names = index.category_names
    if name in names:
        return names.index(name)
    ids = [str(key) for key in index.category_ids.tolist()]
    if name in ids:
        return ids.index(name)
    close = get_close_matches(name, names, n=3, cutoff=0.5) or list(names[:_LISTED])
    raise UsageError(f"{index.split} has no category {name!r}. Known: {', '.join(close)}, ... ({len(names):,} in all).")


def _unmatched_text(sheets: Sequence[_Sheet]) -> str:
    boxes = sum(int(sheet.matched.trained.sum()) for sheet in sheets)
    bare = sum(int(sheet.matched.unmatched.sum()) for sheet in sheets)
    if not boxes:
        return "None of these images has a box that is trained on."
    called_out = " (called out with a dashed line)" if bare else ""
    return f"Boxes that are trained on: {boxes:,}. Learnt by no anchor: {bare or 'none'}{called_out}."


def _item(sheet: _Sheet) -> Item:
    from detector.evaluation.pictures.frame import framed, jpeg

    (drawn, keys), words = _drawn(sheet), _caption(sheet)
    if drawn.unlabelled:
        words += f". Boxes without a label, for lack of room: {drawn.unlabelled:,}"
    title = f"image {sheet.index.image_ids[sheet.position]}"
    if not len(sheet.matched.trained):
        title += ": no annotations"
    picture = framed(drawn.picture, [title], keys, font_size=drawn.font_size)
    return Item(jpeg(picture), *picture.size, f"{words}.", f"{words}.", _table(sheet), unread=not drawn.factor)


def _caption(sheet: _Sheet) -> str:
    index, i, matched = sheet.index, sheet.position, sheet.matched
    crowd = int(index.crowd[sheet.rows].sum())
    boxes = len(matched.trained) - crowd
    parts = [f"{boxes:,} box{'es' * (boxes != 1)}"] + [f"{crowd:,} crowd region{'s' * (crowd > 1)}"] * (crowd > 0)
    bare = int(matched.unmatched.sum())
    return (
        f"image {index.image_ids[i]} ({index.file_name(i)}), {index.widths[i]} x {index.heights[i]} pixels: "
        + " and ".join(parts)
        + (f", {bare:,} without an anchor" if bare else "")
        + f"; at {matched.size[0]} x {matched.size[1]} pixels {len(matched.positives):,} positive and "
        f"{len(matched.ignored):,} ignored of {matched.num_anchors:,} anchors"
    )


def _drawn(sheet: _Sheet) -> tuple[Drawn, list[Key]]:
    """The picture and its legend; with a factor of 0 where the image cannot be read."""
    from detector.data.images import open_image
    from detector.evaluation.pictures.draw import Drawn, draw
    from detector.evaluation.pictures.frame import placeholder
    from detector.evaluation.pictures.marks import DARK_GREY, Points

    index, i, matched = sheet.index, sheet.position, sheet.matched
    try:
        image = open_image(index, i)
    except DataError as error:
        picture = placeholder((int(index.widths[i]), int(index.heights[i])), str(error).split(". Run '")[0])
        return Drawn(picture, 0, 0, (0, 0), 14), []
    marks, colours = _marks(sheet), _colours(len(matched.trained))
    points = [Points(_centres(matched.ignored), DARK_GREY, "cross")]
    for row in range(len(matched.trained)):
        mine = matched.positives[matched.boxes_of_positives == row]
        if len(mine):
            points.append(Points(_centres(mine), colours[row]))
    sides = index.sides[sheet.rows][matched.trained].min(axis=1)
    smallest = float(sides.min()) if len(sides) else None
    return draw(image, marks, points, most=900, smallest=smallest, font_size=14), _legend(sheet)


def _centres(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without repetitions: anchors of several shapes have one centre."""
    import numpy as np

    return np.unique(points, axis=0)


def _colours(count: int) -> list[str]:
    from detector.evaluation.pictures.marks import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW

    some = (ORANGE, SKY, GREEN, YELLOW, BLUE, PURPLE)  # vermilion calls out
    return [some[i % len(some)] for i in range(count)]


def _marks(sheet: _Sheet) -> list[Mark]:
    from detector.evaluation.pictures.marks import GREY, VERMILION, Mark

    index, matched = sheet.index, sheet.matched
    colours = _colours(len(matched.trained))
    marks = []
    boxes, labels = index.boxes[sheet.rows].tolist(), index.labels[sheet.rows].tolist()
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        name = sheet.names[label]
        if index.crowd[sheet.rows][row]:
            marks.append(Mark(tuple(box), f"{name}: crowd", GREY, hatched=True))
        elif not matched.trained[row]:
            marks.append(Mark(tuple(box), f"{name}: left out", GREY, "dotted"))
        elif matched.unmatched[row]:
            marks.append(Mark(tuple(box), f"{name}: no anchor", VERMILION, "dashed"))
        else:
            marks.append(Mark(tuple(box), f"{name}: {matched.num_positive[row]}", colours[row]))
    called_out = (VERMILION, GREY)
    return sorted(marks, key=lambda mark: mark.colour not in called_out)  # stable: these get their labels first


def _legend(sheet: _Sheet) -> list[Key]:
    from detector.evaluation.pictures.marks import BLUE, DARK_GREY, GREY, VERMILION, Key

    matched, crowd = sheet.matched, sheet.index.crowd[sheet.rows]
    keys = [
        (matched.trained.any(), Key("box and number of its positive anchors", BLUE)),
        (len(matched.positives), Key("positive anchors", BLUE, shape="dot")),
        (len(matched.ignored), Key("ignored anchors", DARK_GREY, shape="cross")),
        (matched.unmatched.any(), Key("no anchor learns it", VERMILION, "dashed")),
        ((~matched.trained & ~crowd).any(), Key("left out of training", GREY, "dotted")),
        (crowd.any(), Key("crowd", GREY, hatched=True)),
    ]
    return [key for there, key in keys if there]


def _table(sheet: _Sheet) -> list[list[str]]:
    index, matched = sheet.index, sheet.matched
    rows = [["annotation", "category", "x, y, width, height", "positive anchors", "ignored anchors", "what"]]
    start = sheet.rows.start
    for row in range(min(MOST_ROWS, len(matched.trained))):
        at = start + row
        box = [*index.boxes[at, :2].tolist(), *index.sides[at].tolist()]
        what = "crowd" if index.crowd[at] else "not trained on: no area" if not matched.trained[row] else ""
        rows.append(
            [
                str(index.annotation_ids[at]),
                index.category_names[index.labels[at]],
                ", ".join(f"{number:.1f}" for number in box),
                str(matched.num_positive[row]) if matched.trained[row] else "-",
                str(matched.num_ignored[row]) if matched.trained[row] else "-",
                what or ("no anchor learns it" if matched.unmatched[row] else ""),
            ]
        )
    more = len(matched.trained) - MOST_ROWS
    return rows + ([[f"and {more:,} more", "", "", "", "", ""]] if more > 0 else [])
