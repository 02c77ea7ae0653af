"""What a record says of the training, as the final weights have it: no evaluation changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import ValidationError, convert
from msgspec.structs import replace

from detector.errors import WeightsError
from detector.runs.code import Code
from detector.runs.findings import Health
from detector.runs.origin.conditions import UNKNOWN, execution_notes, recorded_starts, starts_of
from detector.runs.origin.loss_package import recorded_source, source_notes
from detector.runs.provenance import Inputs, Start
from detector.runs.record import SplitFingerprint

UNNAMED: Final = "the weights do not say of which training they are: an earlier version wrote them"


@dataclass(frozen=True)
class TrainingPart:
    """Fields of a record. environment, code: of the last start. split, health: None from older weights."""

    starts: tuple[Start, ...]
    environment: dict[str, str]
    code: Code
    inputs: Inputs
    split: SplitFingerprint | None
    health: tuple[Health, ...] | None
    notes: tuple[str, ...]


def training_part(final: Mapping[str, Any], precision: str) -> TrainingPart:
    """From what ``RunDir.final`` holds; what older ones lack is unknown. precision: the job's.

    Raises WeightsError where it is not as any version wrote it.
    """
    try:
        return _training_part(final, precision)
    except (ValidationError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"The final weights do not say how they were trained: {error!r:.200}.") from error


def _training_part(final: Mapping[str, Any], precision: str) -> TrainingPart:
    starts = starts_of(final, precision)
    last = starts[-1] if starts else None
    code = last.code if last is not None else Code(version=UNKNOWN, commit=None, modified=None)
    sources = final.get("loss_sources", [])
    return TrainingPart(
        starts=recorded_starts(starts),
        environment=last.environment if last is not None else {},
        code=replace(code, loss_sha256=recorded_source(sources)),
        inputs=convert(final.get("inputs", {}), Inputs),
        split=convert(final.get("train_split"), SplitFingerprint | None),
        health=convert(final.get("health"), tuple[Health, ...] | None),
        notes=(*execution_notes(starts), *source_notes(sources), *(() if "train_id" in final else (UNNAMED,))),
    )


def joined_health(trained: tuple[Health, ...] | None, found: tuple[Health, ...]) -> tuple[Health, ...] | None:
    """Of a training and its evaluation; None where the training's is not known and the evaluation shows nothing."""
    return found or None if trained is None else (*trained, *found)
