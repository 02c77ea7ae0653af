"""What is wrong with merged settings: each by its declared type, and what takes several fields to see."""

from __future__ import annotations

import math

import msgspec

from detector.runs.job import ScheduleSettings
from harness.registry.core_schema import Keys
from harness.registry.declarations import ResolvedSettings
from harness.registry.load import leaves
from harness.registry.resolution import Resolution
from harness.registry.yaml_files import explain

Wrong = tuple[Keys, str]


def wrong_in(resolution: Resolution) -> Wrong | None:
    """The first thing wrong in merged settings, as keys and a message; also what takes several fields to see."""
    try:
        settings = msgspec.convert(resolution.settings, ResolvedSettings)
    except msgspec.ValidationError as error:
        return explain(error, resolution.settings, ResolvedSettings)
    batch, matching = settings.batch, settings.matching
    if batch.images % batch.images_per_group:
        message = f"batch.images is {batch.images}: not a multiple of batch.images_per_group, {batch.images_per_group}."
        return ("batch", "images"), message
    if matching.background_iou > matching.foreground_iou:
        message = f"matching.background_iou is {matching.background_iou}: above foreground_iou."
        return ("matching", "background_iou"), message
    return _wrong_schedule(resolution, settings.schedule) or _wrong_value(resolution)


def _wrong_schedule(resolution: Resolution, schedule: ScheduleSettings) -> Wrong | None:
    """Milestones out of order; those beyond the end only where they were not merely left by a shorter training."""
    keys, milestones = ("schedule", "milestones"), list(schedule.milestones)
    if milestones != sorted(milestones):
        return keys, f"schedule.milestones is {milestones}: out of order."
    end_came_later = resolution.origins.get("schedule.iterations") != resolution.origins.get("schedule.milestones")
    given = resolution.origins.get("schedule.milestones") == "--set" or not end_came_later
    if given and milestones and milestones[-1] > schedule.iterations:
        return keys, f"schedule.milestones is {milestones}: beyond the end, iteration {schedule.iterations}."
    return None


def _wrong_value(resolution: Resolution) -> Wrong | None:
    """An empty list where one value is needed, or a number that is not finite, also inside of a list."""
    for path in leaves(resolution.settings):
        value = resolution.get(path)
        if value == [] and path != "schedule.milestones":
            return tuple(path.split(".")), f"{path} is empty."
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                return tuple(path.split(".")), f"{path} is {value}: not a finite number."
    return None
