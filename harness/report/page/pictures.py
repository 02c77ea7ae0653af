"""Figures and images as the page holds them, each with its words; and why one cannot be shown."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from detector.errors import HarnessError
from harness.report.page.drawings import small
from harness.report.page.grids import SIGNS, TONES, anchor
from harness.report.page.scales import Scale

if TYPE_CHECKING:
    from harness.figures.figure import Figure
    from harness.figures.images.pictures import Picture

# By section of the page, its figures; what the paper draws is the same at every scale where no run is in it.
SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "figures": ("fig2", "fig3", "fig4"),
    "claims": ("claims", "seeds"),
    "tables": ("cells",),
    "curves": ("curves",),
    "errors": ("errors",),
    "costs": ("cost",),
}
IMAGE_BYTES: Final = 660_000  # of all scales together, a third more as text
WITHOUT_RUNS: Final = ("fig2", "fig3")


@dataclass(frozen=True)
class FigurePart:
    """A figure. svg: drawn, "" where ``missing`` says why not. csv: its numbers.

    claims: id, text, verdict, its sign and tone. statements: of the paper, checked on the numbers that are drawn.
    """

    name: str
    anchor: str
    scale: str
    title: str
    caption: str
    svg: Markup
    claims: tuple[tuple[str, str, str, str, str], ...]
    csv: str
    missing: str
    statements: tuple[StatementPart, ...] = ()


@dataclass(frozen=True)
class StatementPart:
    """What the paper says of a figure, and whether it holds, as a verdict is shown."""

    text: str
    where: str
    measured: str
    outcome: str
    tone: str

    @property
    def sign(self) -> str:
        """The verdict's sign."""
        return SIGNS[self.tone]


@dataclass(frozen=True)
class ImagePart:
    """An image with boxes. data: its JPEG as an address that holds it."""

    title: str
    caption: str
    alt: str
    width: int
    height: int
    data: str


def figure_parts(scales: Sequence[Scale]) -> dict[str, list[FigurePart]]:
    """By section, every figure of the catalogue at every scale."""
    from harness.figures.catalogue import FIGURES

    found: dict[str, list[FigurePart]] = {section: [] for section in SECTIONS}
    section_of = {name: section for section, names in SECTIONS.items() for name in names}
    for name in FIGURES:
        for scale in scales[:1] if name in WITHOUT_RUNS else scales:
            found[section_of.get(name, "figures")].append(_figure_part(name, scale))
    return found


def _figure_part(name: str, scale: Scale) -> FigurePart:
    from harness.figures.catalogue import build
    from harness.figures.output import numbers, svg

    scale_name = "" if name in WITHOUT_RUNS else scale.name
    try:
        figure = build(name, scale.selection)
    except HarnessError as error:
        return FigurePart(name, anchor("figure", scale.name, name), scale_name, name, "", Markup(), (), "", str(error))
    # Ids in the drawing begin with the scale too: a page has each id once.
    prefix = anchor("drawing", scale.name, name)
    drawn = "" if figure.missing else small(svg(figure, "page", prefix), prefix)
    return FigurePart(
        name=name,
        anchor=anchor("figure", scale.name, name),
        scale=scale_name,
        title=figure.title,
        caption=_caption(figure),
        svg=Markup(drawn),
        claims=_verdicts(figure, scale),
        csv="" if figure.missing else numbers(figure).decode(),
        missing=figure.missing,
        statements=tuple(
            StatementPart(
                text=item.text,
                where=item.where,
                measured=item.measured,
                outcome="holds" if item.holds else "does not hold",
                tone="good" if item.holds else "bad",
            )
            for item in figure.statements
        ),
    )


def _caption(figure: Figure) -> str:
    """Without the statements, which stand below it with their verdicts."""
    caption = figure.caption
    for statement in figure.statements:
        caption = caption.replace(statement.sentence, "")
    return " ".join(caption.split())


def _verdicts(figure: Figure, scale: Scale) -> tuple[tuple[str, str, str, str, str], ...]:
    parts = [part for part in (scale.check.paper, scale.check.own) if part is not None]
    found = {verdict.claim.id: verdict for part in parts for verdict in part.claims}
    chosen = [found[name] for name in figure.claims if name in found]
    return tuple((v.claim.id, v.claim.text, v.outcome, SIGNS[TONES[v.outcome]], TONES[v.outcome]) for v in chosen)


def image_parts(scale: Scale, most: int = IMAGE_BYTES) -> tuple[tuple[ImagePart, ...], str]:
    """Images of the selection's runs, where the folder of one is here; and why there are no more, "" for all.

    As many as have ``most`` bytes together: the page is to be sent to people. Each row shows one before any shows two.
    """
    from harness.figures.images.pictures import pictures_of, why_none

    found = pictures_of(scale.selection)
    turns = _turns([picture.row for picture in found])
    order = sorted(range(len(found)), key=lambda i: (turns[i], i))
    sizes = accumulate(len(found[i].jpeg) for i in order)
    shown = sorted(order[: sum(size <= most for size in sizes)])
    parts = tuple(_image_part(found[i]) for i in shown)
    left = len(found) - len(shown)
    if left:
        return (
            parts,
            f"{left} more {'is' if left == 1 else 'are'} not here, for size: "
            f"harness images {found[order[len(shown)]].row or 'ROW'} --profile {scale.name}",
        )
    return parts, "" if parts else why_none(scale.selection)


def _turns(rows: Sequence[str]) -> list[int]:
    """By picture, how many of its row come before it: the last first, which compares the row with another."""
    left = Counter(rows)
    turns = []
    for row in rows:
        left[row] -= 1
        turns.append(left[row])
    return turns


def _image_part(picture: Picture) -> ImagePart:
    return ImagePart(
        title=picture.title,
        caption=picture.caption,
        alt=picture.alt,
        width=picture.width,
        height=picture.height,
        data=f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}",
    )
