"""What kinds of errors cost the sides their AP: in all, by size of object, by number of objects, by class.

From the records. Where an earlier version wrote one, from the detections beside the run, if the data set is here too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from msgspec.structs import asdict

from detector.errors import HarnessError
from detector.runs.findings import KINDS, MOST_CLASSES, OBJECTS, SIZES, LostAP, LostParts
from detector.runs.record import Record
from harness.folders import runs_folder
from harness.planning.data import data_root
from harness.report.compare.noise import Difference, difference, pairing
from harness.report.compare.operands import Measured, Side

if TYPE_CHECKING:
    from detector.data.coco.index import CocoIndex

Group = Literal["all", "size", "objects", "class"]
NUMBERS: Final = ("AP50", *KINDS)  # of each part: its AP50, and what each kind of error costs it
AGREE: Final = 1e-3  # points of AP50: how near detections must be to the record's for them to be of one evaluation
Opener = Callable[[Record], "CocoIndex"]
_Found = dict[tuple[Group, str], "_Numbers"]


@dataclass(frozen=True)
class ErrorsOf:
    """A part of the test set. name: small, 2-4, a class's, ...; boxes: to be found in it, None for the whole.

    id: a class's. sides: mean ``NUMBERS`` of each side, None where they are unknown. differences: of each side but the
    first against the first, over the seeds that both have; the noise of test images is unknown.
    """

    group: Group
    name: str
    id: int | None
    boxes: int | None
    sides: tuple[dict[str, float] | None, ...]
    differences: tuple[dict[str, Difference] | None, ...]


@dataclass(frozen=True)
class Errors:
    """Of all sides. unknown: by side, why not all parts are known. from_detections: how many records do not have it."""

    parts: tuple[ErrorsOf, ...]
    unknown: tuple[str | None, ...]
    from_detections: tuple[int, ...]


@dataclass(frozen=True)
class _Numbers:
    """Of one part in one record."""

    name: str
    boxes: int | None
    values: dict[str, float]


@dataclass(frozen=True)
class _SideErrors:
    """by_seed: what each record says; unknown: why not all of it; from_detections: how many records do not say it."""

    by_seed: dict[int, _Found]
    unknown: str | None
    from_detections: int

    @property
    def keys(self) -> list[tuple[Group, str]]:
        """What all seeds have."""
        found = list(self.by_seed.values())
        return [key for key in found[0] if all(key in one for one in found)] if found else []


def side_errors(sides: Sequence[Side], data: Path | None) -> Errors:
    """Of all sides, in their order. data: where the data set lies, if it is not where it is looked for otherwise."""
    opened: dict[str, CocoIndex] = {}
    read = [_of_side(side, lambda record: _index(record, data, opened)) for side in sides]
    keys = dict.fromkeys(key for one in read for key in one.keys)
    return Errors(
        parts=tuple(_part(key, sides, read) for key in keys),
        unknown=tuple(one.unknown for one in read),
        from_detections=tuple(one.from_detections for one in read),
    )


def _part(key: tuple[Group, str], sides: Sequence[Side], read: Sequence[_SideErrors]) -> ErrorsOf:
    known = [one.by_seed if key in one.keys else {} for one in read]
    first = next(numbers[key] for one in known for numbers in one.values())
    values = [{seed: numbers[key].values for seed, numbers in one.items()} for one in known]
    return ErrorsOf(
        group=key[0],
        name=first.name,
        id=int(key[1]) if key[0] == "class" else None,
        boxes=first.boxes,
        sides=tuple(_mean(one) if one else None for one in values),
        differences=tuple(
            _against(sides[0], side, values[0], one) for side, one in zip(sides[1:], values[1:], strict=True)
        ),
    )


def _mean(by_seed: Mapping[int, dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(values[name] for values in by_seed.values()) for name in NUMBERS}


def _against(
    a: Side, b: Side, of_a: Mapping[int, dict[str, float]], of_b: Mapping[int, dict[str, float]]
) -> dict[str, Difference] | None:
    if not of_a or not of_b:
        return None
    paired = pairing(a, b)
    return {
        name: difference(
            {seed: of_a[seed][name] for seed in paired.seeds_a},
            {seed: of_b[seed][name] for seed in paired.seeds_b},
            by_seed=paired.by_seed,
        )
        for name in NUMBERS
    }


def _of_side(side: Side, split: Opener) -> _SideErrors:
    by_seed, unknown, again = {}, [], 0
    for item in side.measured:
        record = item.record
        lost, parts = record.lost_ap, record.lost_parts
        if parts is None:
            try:
                lost, parts = _from_detections(item, split)
                again += 1
            except HarnessError as error:
                unknown.append(str(error).rstrip("."))
        if lost is not None:
            by_seed[record.job.train.seed] = _found(record, lost, parts)
    if len(by_seed) < len(side.measured):
        by_seed = {}
    count = f" ({len(unknown)} of {len(side.measured)} records)" if len(side.measured) > 1 else ""
    return _SideErrors(by_seed, f"{unknown[0]}{count}" if unknown else None, again)


def _found(record: Record, lost: LostAP, parts: LostParts | None) -> _Found:
    found: _Found = {("all", "all"): _numbers("all", None, record.metrics["AP50"] or 0.0, asdict(lost))}
    if parts is None:
        return found
    for size in SIZES:
        if one := parts.sizes.get(size):
            found["size", size] = _numbers(size, one.boxes, one.AP50, asdict(one.lost))
    for objects in OBJECTS:
        if one := parts.objects.get(objects):
            found["objects", objects] = _numbers(objects, one.boxes, one.AP50, asdict(one.lost))
    classes = parts.classes
    for i, key in enumerate(classes.ids):
        lost_to: dict[str, float] = {kind: classes.lost[kind][i] for kind in KINDS}
        found["class", str(key)] = _numbers(classes.names[i], classes.boxes[i], classes.AP50[i], lost_to)
    return found


def _numbers(name: str, boxes: int | None, ap50: float, lost: Mapping[str, float]) -> _Numbers:
    return _Numbers(name, boxes, {"AP50": ap50, **lost})


def _from_detections(item: Measured, split: Opener) -> tuple[LostAP, LostParts]:
    """Raises HarnessError in a sentence that says why they are not known."""
    path = item.matches.parent / "detections.json.gz"
    if not path.exists():
        raise HarnessError("an earlier version wrote the record, and its detections are not here")
    if item.record.job.split is not None:
        raise HarnessError("the labels of its split are not public")
    from detector.evaluation.detections import check_detections, read_detections
    from detector.evaluation.errors import errors_of

    index, detections = split(item.record), read_detections(path)
    check_detections(index, detections)
    lost, parts = errors_of(index, detections)
    recorded, classes = item.record.metrics["AP50"], parts.classes.AP50
    if len(classes) < MOST_CLASSES and abs(statistics.fmean(classes or (0.0,)) - (recorded or 0.0)) > AGREE:
        raise HarnessError("the detections beside the run are of another evaluation than the record")
    return lost, parts


def _index(record: Record, data: Path | None, opened: dict[str, CocoIndex]) -> CocoIndex:
    """The test split of a record, opened once. Raises HarnessError where it is not here, or is another one."""
    from detector.data.splits import fingerprint, open_split

    key = record.test_split.sha256
    if key not in opened:
        source = record.job.train.data
        root = data_root(source, data, runs_folder())
        if not root.exists():
            raise HarnessError(f"an earlier version wrote the record, and its data set is not here: {root}")
        index = open_split(source, root, "test")
        if fingerprint(source, root, "test", index) != record.test_split:
            raise HarnessError(f"an earlier version wrote the record, and {root} has another test split")
        opened[key] = index
    return opened[key]
