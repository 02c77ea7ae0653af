"""One image of an evaluation as a picture: true, false and missed boxes told by colour, by line and by a letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detector.errors import DataError
from harness.figures.images.scenes import Scene

if TYPE_CHECKING:
    from PIL import Image

    from detector.evaluation.pictures.draw import Drawn
    from detector.evaluation.pictures.marks import Key, Mark


@dataclass(frozen=True)
class Size:
    """Pixels. most, readable: of the long side, as for ``factor_of``; font: height of letters.

    enlarges: whether images with small objects become larger than that.
    """

    readable: int
    most: int
    font: int
    enlarges: bool


LARGE: Final = Size(readable=640, most=800, font=14, enlarges=True)
SMALL: Final = Size(readable=400, most=400, font=12, enlarges=False)


@dataclass(frozen=True)
class Counts:
    """Boxes of one image at the scene's threshold."""

    true: int
    false: int
    missed: int
    objects: int
    on_crowds: int

    def __str__(self) -> str:
        crowds = f", {self.on_crowds} on a crowd" if self.on_crowds else ""
        return f"{self.true} true, {self.false} false{crowds}, {self.missed} of {self.objects} objects missed"


@dataclass(frozen=True)
class Shown:
    """A picture in its frame. unlabelled: of each image on it, how many boxes have no label, for lack of room.

    unread: the image cannot be read.
    """

    picture: Image.Image
    unlabelled: tuple[int, ...]
    unread: bool

    @property
    def note(self) -> str:
        """A sentence about boxes without a label, with a space before it; "" where every box has its label."""
        count = sum(self.unlabelled)
        return f" {count} {'box has' if count == 1 else 'boxes have'} no label, for lack of room." if count else ""


def counts(scene: Scene, position: int) -> Counts:
    """What is drawn on an image, counted."""
    from detector.evaluation.pictures.outcome import FALSE, IGNORED, TRUE

    outcome = scene.outcomes[position]
    shown = outcome.kinds[outcome.scores >= scene.least]
    true, false, on_crowds = (int((shown == kind).sum()) for kind in (TRUE, FALSE, IGNORED))
    return Counts(true, false, int(outcome.missed(scene.least).sum()), outcome.num_objects, on_crowds)


def panel(scene: Scene, position: int, title: Sequence[str], size: Size = LARGE) -> Shown:
    """The image with its boxes, lines above it, and the legend. One that cannot be read is called out in its place."""
    from detector.evaluation.pictures.frame import framed

    drawn = _drawn(scene, position, size)
    page = framed(drawn.picture, title, legend([scene], position), font_size=drawn.font_size)
    return Shown(page, (drawn.unlabelled,), drawn.factor == 0)


def pair(
    scenes: tuple[Scene, Scene], position: int, titles: tuple[Sequence[str], Sequence[str]], size: Size = LARGE
) -> Shown:
    """The same image in two evaluations side by side, in line also where labels stand above only one of them."""
    from detector.evaluation.pictures.frame import beside, framed, title_height

    drawn = [_drawn(scene, position, size) for scene in scenes]
    font = drawn[0].font_size
    top = max(title_height(t, one.picture.width, font_size=font) for t, one in zip(titles, drawn, strict=True))
    lowest = max(one.inset[1] for one in drawn)
    parts = [
        framed(one.picture, t, (), font_size=font, top=top + lowest - one.inset[1])
        for one, t in zip(drawn, titles, strict=True)
    ]
    page = framed(beside(parts), (), legend(scenes, position), font_size=font)
    return Shown(page, tuple(one.unlabelled for one in drawn), drawn[0].factor == 0)


def legend(scenes: Sequence[Scene], position: int) -> list[Key]:
    """What lines and letters mean; crowds, and boxes on them, only where there are some."""
    from detector.evaluation.pictures.marks import BLUE, GREEN, GREY, VERMILION, Key

    keys = [
        Key("T true", GREEN),
        Key("F false", VERMILION, "dashed"),
        Key("M missed", BLUE, "dotted"),
    ]
    if scenes[0].outcomes[position].crowd.any():
        keys.append(Key("crowd", GREY, hatched=True))
    if any(counts(scene, position).on_crowds for scene in scenes):
        keys.append(Key("on a crowd: not counted", GREY))
    return keys


def _drawn(scene: Scene, position: int, size: Size) -> Drawn:
    """With a factor of 0 where the image cannot be read."""
    from detector.data.images import open_image
    from detector.evaluation.pictures.draw import Drawn, draw
    from detector.evaluation.pictures.frame import placeholder

    outcome = scene.outcomes[position]
    try:
        image = open_image(scene.index, position)
    except DataError as error:
        where = (int(scene.index.widths[position]), int(scene.index.heights[position]))
        return Drawn(placeholder(where, _why(error, scene)), 0, 0, (0, 0), size.font)
    objects = outcome.truth[~outcome.crowd]  # of the annotations: the same for two evaluations of the image
    sides = (objects[:, 2:] - objects[:, :2]).min(axis=1)
    smallest = float(sides.min()) if size.enlarges and len(sides) else None
    marks = _marks(scene, position)
    return draw(image, marks, readable=size.readable, most=size.most, smallest=smallest, font_size=size.font)


def _why(error: DataError, scene: Scene) -> str:
    """Without the folder, which is another on every machine."""
    return str(error).replace(f"{scene.index.root}/", "").split(". Run '")[0]


def _marks(scene: Scene, position: int) -> list[Mark]:
    from detector.evaluation.pictures.marks import BLUE, GREEN, GREY, VERMILION, Mark, short_name
    from detector.evaluation.pictures.outcome import IGNORED, TRUE

    outcome, names = scene.outcomes[position], [short_name(name) for name in scene.index.category_names]
    marks = []
    for box, label, score, kind in zip(
        outcome.boxes.tolist(), outcome.labels.tolist(), outcome.scores.tolist(), outcome.kinds.tolist(), strict=True
    ):
        if score < scene.least:
            continue
        if kind == IGNORED:
            marks.append(Mark(tuple(box), "", GREY))
        elif kind == TRUE:
            marks.append(Mark(tuple(box), f"T {names[label]} {score:.2f}", GREEN))
        else:
            marks.append(Mark(tuple(box), f"F {names[label]} {score:.2f}", VERMILION, "dashed"))
    missed = outcome.missed(scene.least)
    for g, (box, label) in enumerate(zip(outcome.truth.tolist(), outcome.truth_labels.tolist(), strict=True)):
        if missed[g]:
            marks.append(Mark(tuple(box), f"M {names[label]}", BLUE, "dotted"))
        elif outcome.crowd[g]:
            marks.append(Mark(tuple(box), "", GREY, hatched=True))
    return marks
