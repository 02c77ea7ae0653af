"""In what the sides differ before their numbers do: settings, inputs, and conditions that no id covers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins

from detector.runs.provenance import ImagesDigest
from detector.runs.record import Record
from harness.registry.ledger import plain
from harness.report.compare.operands import Side

UNKNOWN = "unknown"
DIGITS = 12  # of a hash


@dataclass(frozen=True)
class Unequal:
    """Something that is not the same for all sides. values: one per side, in their order."""

    name: str
    values: tuple[str, ...]


def unequal_settings(sides: Sequence[Side]) -> list[Unequal]:
    """Dotted paths of the resolved jobs, without the seed."""
    return _unequal([dict(_leaves(_settings(side))) for side in sides])


def _settings(side: Side) -> dict[str, Any]:
    job: dict[str, Any] = to_builtins(side.job)
    train = {name: value for name, value in job["train"].items() if name != "seed"}
    return train | {"test": job["test"], "split": job["split"]}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(plain(value))


def unequal_inputs(sides: Sequence[Side]) -> list[Unequal]:
    """Of the files that the runs read, by content. A record of format 1 knows the annotations only."""
    return _unequal([_of_all(side, _inputs) for side in sides])


def unequal_conditions(sides: Sequence[Side]) -> list[Unequal]:
    """Code, device and versions, which decide the last bits and the rounding only."""
    return _unequal([_of_all(side, _conditions) for side in sides])


def _inputs(record: Record) -> dict[str, str]:
    found = {}
    for name, split in (("training", record.train_split), ("test", record.test_split)):
        found[f"{name} annotations"] = f"{split.images} images, {split.boxes} boxes, sha256 {split.sha256[:DIGITS]}"
    inputs = record.inputs
    if inputs is None:
        return found | dict.fromkeys(("initial weights", "training images", "test images"), UNKNOWN)
    weights = inputs.weights
    found["initial weights"] = f"{weights.name}, sha256 {weights.sha256[:DIGITS]}" if weights else "random"
    found["training images"] = _digest(inputs.train_images)
    found["test images"] = _digest(inputs.test_images)
    return found


def _digest(digest: ImagesDigest | None) -> str:
    if digest is None:
        return UNKNOWN
    sha256 = digest.content or digest.names_and_sizes
    return f"{digest.images} files, {digest.bytes} bytes, sha256 {sha256[:DIGITS]}"


def _conditions(record: Record) -> dict[str, str]:
    code = f"{(record.code.commit or UNKNOWN)[:DIGITS]}{' and changes' if record.code.modified else ''}"
    return {"commit": code, **record.environment}


def _of_all(side: Side, facts: Callable[[Record], dict[str, str]]) -> dict[str, str]:
    """A side's facts; where its records differ among themselves, all values."""
    if not side.measured:
        return {}
    found = [facts(item.record) for item in side.measured]
    names = dict.fromkeys(name for one in found for name in one)
    return {name: " or ".join(dict.fromkeys(one.get(name, UNKNOWN) for one in found)) for name in names}


def _unequal(sides: Sequence[Mapping[str, str]]) -> list[Unequal]:
    """Only what two sides know and do not agree on, and what only some sides have."""
    names = dict.fromkeys(name for side in sides for name in side)
    rows = [Unequal(name, tuple(side.get(name, "-") for side in sides)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]
