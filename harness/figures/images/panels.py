"""One image of an evaluation as a picture: true, false and missed boxes told by colour, by line and by a letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from detector.errors import DataError
from harness.figures.images.scenes import Scene

if TYPE_CHECKING:
    from PIL import Image

    from detector.evaluation.pictures.marks import Key, Mark


@dataclass(frozen=True)
class Size:
    """Pixels. most, readable: of the long side, as for ``factor_of``; font: height of letters."""

    readable: int
    most: int
    font: int


LARGE: Final = Size(readable=640, most=800, font=14)
SMALL: Final = Size(readable=400, most=400, font=12)


@dataclass(frozen=True)
class Counts:
    """Boxes of one image at the scene's threshold."""

    true: int
    false: int
    missed: int
    objects: int

    def __str__(self) -> str:
        return f"{self.true} true, {self.false} false, {self.missed} of {self.objects} objects missed"


def counts(scene: Scene, position: int) -> Counts:
    """What is drawn on an image, counted."""
    from detector.evaluation.pictures.outcome import FALSE, TRUE

    outcome = scene.outcomes[position]
    shown = outcome.kinds[outcome.scores >= scene.least]
    missed = int(outcome.missed(scene.least).sum())
    return Counts(int((shown == TRUE).sum()), int((shown == FALSE).sum()), missed, outcome.num_objects)


def panel(scene: Scene, position: int, title: Sequence[str], size: Size = LARGE) -> Image.Image:
    """The image with its boxes, lines above it, and the legend. One that cannot be read is called out in its place."""
    from detector.evaluation.pictures.frame import framed

    return framed(_drawn(scene, position, size), title, legend(scene, [position]), font_size=size.font)


def pair(
    scenes: tuple[Scene, Scene], position: int, titles: tuple[Sequence[str], Sequence[str]], size: Size = LARGE
) -> Image.Image:
    """The same image in two evaluations, side by side."""
    from detector.evaluation.pictures.frame import beside, framed, title_height

    drawn = [_drawn(scene, position, size) for scene in scenes]
    top = max(title_height(t, one.width, font_size=size.font) for t, one in zip(titles, drawn, strict=True))
    parts = [framed(one, t, (), font_size=size.font, top=top) for one, t in zip(drawn, titles, strict=True)]
    return framed(beside(parts), (), legend(scenes[0], [position]), font_size=size.font)


def legend(scene: Scene, positions: Sequence[int]) -> list[Key]:
    """What lines and letters mean; crowds only where there are some."""
    from detector.evaluation.pictures.marks import BLUE, GREEN, GREY, VERMILION, Key

    keys = [
        Key("T true", GREEN),
        Key("F false", VERMILION, "dashed"),
        Key("M missed", BLUE, "dotted"),
    ]
    if any(scene.outcomes[i].crowd.any() for i in positions):
        keys.append(Key("crowd: not counted", GREY, hatched=True))
    return keys


def _drawn(scene: Scene, position: int, size: Size) -> Image.Image:
    from detector.data.images import open_image
    from detector.evaluation.pictures.draw import draw
    from detector.evaluation.pictures.frame import placeholder

    try:
        image = open_image(scene.index, position)
    except DataError as error:
        where = (int(scene.index.widths[position]), int(scene.index.heights[position]))
        return placeholder(where, _why(error, scene))
    return draw(image, _marks(scene, position), readable=size.readable, most=size.most, font_size=size.font).picture


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
