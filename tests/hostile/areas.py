"""All cases, by area."""

from __future__ import annotations

from typing import Final

from tests.hostile import (
    cases_annotations,
    cases_bundles,
    cases_detections,
    cases_images,
    cases_options,
    cases_paths,
    cases_records,
    cases_text,
    cases_weights,
)
from tests.hostile.case import Case

CASES: Final[tuple[Case, ...]] = (
    *cases_annotations.CASES,
    *cases_images.CASES,
    *cases_detections.CASES,
    *cases_records.CASES,
    *cases_text.CASES,
    *cases_weights.CASES,
    *cases_bundles.CASES,
    *cases_options.CASES,
    *cases_paths.CASES,
)
AREAS: Final = tuple(dict.fromkeys(case.area for case in CASES))
