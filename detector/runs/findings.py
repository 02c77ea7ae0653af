"""What a finished training shows beside its AP: its health, its scores, its curves, its errors. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal, get_args

from msgspec import Struct
from msgspec.structs import asdict

from detector.runs.job import LARGEST

HealthName = Literal["no learning", "no detections", "dead gradients", "dead level", "diverging boxes", "collapsed"]
MOST_POINTS = 200  # of a curve in a record


class Health(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that is wrong with a training although it ended. message: with the numbers that show it."""

    name: HealthName
    message: str


class Scores(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the sigmoid scores of the test set's entries are spread (Fig. 4): counts in bins of equal width over 0..1.

    positives, negatives: counts, the first bin from 0. The sums and sums of squares are of the scores themselves.
    """

    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    positive_sums: tuple[float, float]
    negative_sums: tuple[float, float]


class Curves(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Curves of ``metrics.jsonl`` at ``MOST_POINTS`` iterations or fewer, the first and the last included."""

    iterations: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]


Kind = Literal["classification", "localisation", "both", "duplicate", "background", "missed"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Size = Literal["small", "medium", "large"]
SIZES: Final[tuple[Size, ...]] = get_args(Size)
Objects = Literal["1", "2-4", "5-9", "10+"]
OBJECTS: Final[tuple[Objects, ...]] = get_args(Objects)
MOST_CLASSES: Final = 2000  # in a record; COCO has 80, LVIS 1,203
MOST_NAME: Final = 80  # characters of a category's name
LOST_DIGITS: Final = 4  # decimals of the numbers of parts
ROUNDED: Final = 2 * 10.0**-LOST_DIGITS  # by how much two rounded numbers may add up to more


class LostAP(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AP (percent, at IoU 0.5) that would be won if all errors of one kind were mended (TIDE, Bolya et al., 2020).

    classification: right box, wrong class. localisation: right class, IoU too low. both: both wrong. duplicate: another
    detection of a box. background: on no object. missed: no detection at all.
    """

    classification: float
    localisation: float
    both: float
    duplicate: float
    background: float
    missed: float


class Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the test set: boxes to be found, their AP at IoU 0.5 (percent), and what each kind of error costs."""

    boxes: int
    AP50: float
    lost: LostAP


class LostClasses(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The same of each category that has boxes, as columns in the order of their ids. names: cut at ``MOST_NAME``."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    boxes: tuple[int, ...]
    AP50: tuple[float, ...]
    lost: dict[Kind, tuple[float, ...]]


class LostParts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """AP lost by kind of error in parts of the test set; those that have no box are left out.

    sizes: COCO's area ranges. objects: images by the number of their boxes that are no crowds. What "lost" means in
    each is said at ``detector.evaluation.errors.errors_of``.
    """

    sizes: dict[Size, Part]
    objects: dict[Objects, Part]
    classes: LostClasses


def impossible_parts(parts: LostParts, *, boxes: int) -> Iterator[str]:
    """What cannot be of the parts of a test set of so many boxes, in sentences without their end."""
    named = [(f"of size {name}", part) for name, part in parts.sizes.items()]
    named += [(f"of images with objects {name}", part) for name, part in parts.objects.items()]
    for what, part in named:
        yield from _impossible_part(what, part.boxes, part.AP50, asdict(part.lost), most=boxes)
    yield from _impossible_sum("images by number of objects", [part.boxes for part in parts.objects.values()], boxes)
    classes = parts.classes
    columns: dict[str, Sequence[object]] = {"names": classes.names, "boxes": classes.boxes, "AP50": classes.AP50}
    columns |= {str(kind): values for kind, values in classes.lost.items()}
    count = len(classes.ids)
    if missing := [kind for kind in KINDS if kind not in classes.lost]:
        yield f"its classes have no lost AP of the kind {', '.join(missing)}"
    elif wrong := [name for name, values in columns.items() if len(values) != count]:
        yield f"it has {len(columns[wrong[0]])} {wrong[0]} of classes, not {count}"
    elif count > MOST_CLASSES or any(len(name) > MOST_NAME for name in classes.names):
        yield f"it has more than {MOST_CLASSES} classes, or a class's name has more than {MOST_NAME} characters"
    elif any(a >= b for a, b in pairwise(classes.ids)):
        yield "its classes are not in the order of their ids, or one is there twice"
    else:
        for i, key in enumerate(classes.ids):
            lost: dict[str, float] = {kind: values[i] for kind, values in classes.lost.items()}
            yield from _impossible_part(f"of class {key}", classes.boxes[i], classes.AP50[i], lost, most=boxes)
        yield from _impossible_sum("classes", classes.boxes, boxes)


def _impossible_part(name: str, boxes: int, ap50: float, lost: Mapping[str, float], *, most: int) -> Iterator[str]:
    if not 1 <= boxes <= most:
        yield f"its number of boxes {name} is {boxes}, which is not in 1 .. {most}"
    if not 0 <= ap50 <= 100:
        yield f"its AP50 {name} is {ap50:g}, which is not in 0 .. 100"
    for kind, value in lost.items():
        if not 0 <= value <= 100 - ap50 + ROUNDED:
            yield f"its lost AP ({kind}) {name} is {value:g}, which is not in 0 .. {100 - ap50:g}, what AP50 leaves"


def _impossible_sum(what: str, counts: Sequence[int], boxes: int) -> Iterator[str]:
    if sum(counts) > boxes:
        yield f"its {what} have {sum(counts)} boxes together, the test split has {boxes}"


def logged(line: bytes) -> dict[str, float] | None:
    """One line of ``metrics.jsonl``: its numbers, with ``iteration`` as a whole number; None where it is damaged."""
    try:
        import json  # not above: ``harness --help`` reads this file

        found = json.loads(line.decode())
        whole = int(found["iteration"])
        point = {str(name): float(value) for name, value in found.items()}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None
    return point | {"iteration": whole} if 0 <= whole <= LARGEST else None
