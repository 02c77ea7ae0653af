"""From declared data to jobs: recipe, row, profile and overrides merged, each value with the source it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import to_builtins

from detector.errors import UsageError, did_you_mean
from detector.runs.job import UNIT_RGB, EvalJob, TestSettings, TrainJob
from drloss.plugins import package_of
from harness.registry.batch_rule import rescale
from harness.registry.consistency import wrong_in
from harness.registry.core_schema import YamlError
from harness.registry.declarations import Profile, RecipeFile, ResolvedSettings, Row
from harness.registry.load import Registry, leaves
from harness.registry.resolution import Resolution
from harness.registry.sources import Source
from harness.registry.yaml_files import explain, read_value, shown

# The scale of the recipes; profiles scale it down.
MOST_NAMED = 10  # recipes of a circle
PAPER_ITERATIONS = 90_000
PAPER_SHORT_SIDE, PAPER_LONG_SIDE = 800, 1333
# Training from scratch (weights: none): nothing is frozen, group norm, since there are no statistics to freeze, and
# inputs at unit scale, which random weights expect.
FROM_SCRATCH: dict[str, Any] = {
    "model.weights": "none",
    "model.norm": "group",
    "model.frozen_stages": 0,
    "model.pixels": to_builtins(UNIT_RGB),
}


def recipe(registry: Registry, name: str) -> Resolution:
    """The recipe in full. Raises RegistryError (file, line) for a bad value or a value without a source."""
    merged = Resolution({})
    for one in reversed(_extended(registry, name)):
        _lay_over(merged, registry.recipes[one])
    return merged


def _extended(registry: Registry, name: str) -> list[str]:
    """The recipe, the one that it extends, and so on. Raises RegistryError for an unknown one, and for a circle."""
    names = [name]
    while (extends := registry.recipes[names[-1]].value.extends) is not None:
        document = registry.recipes[names[-1]].document
        if extends not in registry.recipes:
            raise document.error(
                ("extends",),
                f"unknown recipe {extends!r}. Known: {', '.join(sorted(registry.recipes))}."
                f"{did_you_mean(extends, registry.recipes)}",
            )
        if extends in names:
            circle = " -> ".join([*names[names.index(extends) :][:MOST_NAMED], extends])
            raise document.error(("extends",), f"the recipes extend one another in a circle: {circle}.")
        names.append(extends)
    return names


def _lay_over(merged: Resolution, loaded: Source) -> None:
    """The settings of one recipe over those that it extends, with its sources. Raises as ``recipe``."""
    document, value = loaded.document, loaded.value
    sources = _sources(document, value)
    for path in leaves(value.settings):
        source = next((block for block in _blocks(path) if block in sources), None)
        if source is None:
            raise document.error(
                ("settings", *path.split(".")),
                f"{path} has no source: name it under 'sources' (paper §..., ours, ...).",
            )
        sources[source][1].add(path)
    for block, block_value in value.settings.items():
        merged.put(block, block_value, "")
    for source, (label, covered) in sources.items():
        if not covered:
            raise document.error(("sources", label), f"source given for {source!r}, which this recipe does not set.")
        for path in covered:
            merged.origins[path] = label
    try:
        msgspec.convert(merged.settings, ResolvedSettings)
    except msgspec.ValidationError as error:
        keys, message = explain(error, merged.settings, ResolvedSettings)
        raise document.error(("settings", *keys), message) from error


def _sources(document: Any, value: RecipeFile) -> dict[str, tuple[str, set[str]]]:
    sources: dict[str, tuple[str, set[str]]] = {}
    for label, paths in value.sources.items():
        for path in paths:
            if path in sources:
                raise document.error(("sources", label), f"{path} has two sources: {sources[path][0]} and {label}.")
            sources[path] = (label, set())
    return sources


def _blocks(path: str) -> Iterator[str]:
    """The path, then each block around it: a.b.c, a.b, a."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def resolve(
    registry: Registry,
    ref: str,
    profile: Profile,
    *,
    overrides: Mapping[str, Any] | None = None,
    from_scratch: bool = False,
    batch_size: int | None = None,
) -> Resolution:
    """Row ``table/row`` at a profile's scale: recipe, row, profile, batch size, ``--set``, each over the one before.

    Raises RegistryError (file, line) where the row or the profile is wrong, UsageError for a wrong override.
    """
    _, row = registry.row(ref)
    assert row.recipe is not None, f"{ref} is cited"
    resolution = recipe(registry, row.recipe)
    compared = _apply_row(registry, ref, row, resolution)
    _apply_profile(registry, profile, resolution, compared, ref)
    if from_scratch and resolution.get("model.weights") != "none":
        for path, value in FROM_SCRATCH.items():
            resolution.put(path, value, "ours: no ImageNet weights here")
    _require_right(registry, resolution, profile, ref)
    if batch_size is not None:
        rescale(resolution, batch_size, profile)
        if (wrong := wrong_in(resolution)) is not None:
            raise UsageError(f"--batch-size {batch_size}: {wrong[1]}")
    _override(resolution, overrides or {})
    return resolution


def resolve_recipe(
    registry: Registry, name: str, profile: Profile, *, overrides: Mapping[str, Any] | None = None
) -> Resolution:
    """A recipe alone, without a row: for weights that were trained elsewhere.

    Raises as ``resolve``, and UsageError for an unknown name.
    """
    if name not in registry.recipes:
        raise UsageError(
            f"Unknown recipe {name!r}. Known: {', '.join(sorted(registry.recipes))}."
            f"{did_you_mean(name, registry.recipes)}"
        )
    resolution = recipe(registry, name)
    _apply_profile(registry, profile, resolution, set(), f"recipe {name}")
    _require_right(registry, resolution, profile, f"recipe {name}")
    _override(resolution, overrides or {})
    return resolution


def _require_right(registry: Registry, resolution: Resolution, profile: Profile, ref: str) -> None:
    """Raises RegistryError (file, line of the profile) where the settings so far cannot be trained with."""
    if (wrong := wrong_in(resolution)) is not None:
        keys, message = wrong
        document = registry.profiles[profile.name].document
        raise document.error(("settings", *keys), f"{ref} at profile {profile.name}: {message}")


def _override(resolution: Resolution, overrides: Mapping[str, Any]) -> None:
    for path, value in overrides.items():
        if path not in resolution.origins and resolution.get(path) is None:
            raise UsageError(f"--set: unknown setting {path!r}. {_known_settings(path, resolution.origins)}")
        resolution.put(path, value, "--set")
    wrong = wrong_in(resolution) if overrides else None
    if wrong is not None:
        raise UsageError(f"--set: {wrong[1]}")


def _known_settings(given: str, paths: Iterable[str]) -> str:
    """The settings beside the one that was given, or the first parts of all, and which one was meant perhaps."""
    known = sorted(paths)
    block = given.partition(".")[0]
    beside = [path for path in known if path.startswith(f"{block}.")]
    shown = beside or dict.fromkeys(path.partition(".")[0] for path in known)
    rest = "" if beside else " All of a row, with what is below these: harness explain TABLE/ROW."
    return f"Known: {', '.join(shown)}.{rest}{did_you_mean(given, known)}"


def _apply_row(registry: Registry, ref: str, row: Row, resolution: Resolution) -> set[str]:
    """Apply the row's difference; returns the paths that it sets."""
    before = set(resolution.origins)
    for path, value in row.set.items():
        if resolution.get(path) is None:
            document, keys = registry.source_of(ref)
            raise document.error((*keys, "set", path), f"unknown setting {path!r}. {_known_settings(path, before)}")
        resolution.put(path, value, f"row {ref}")
    try:
        msgspec.convert(resolution.settings, ResolvedSettings)
    except msgspec.ValidationError as error:
        document, keys = registry.source_of(ref)
        where, message = explain(error, resolution.settings, ResolvedSettings)
        dotted = ".".join(map(str, where))
        path = next((block for block in _blocks(dotted) if block in row.set), "")
        raise document.error((*keys, "set", path), message) from error
    return {path for path, origin in resolution.origins.items() if origin == f"row {ref}"}


def _apply_profile(registry: Registry, profile: Profile, resolution: Resolution, compared: set[str], ref: str) -> None:
    origin = f"profile {profile.name}"
    if profile.iterations_1x is not None:
        factor = profile.iterations_1x / PAPER_ITERATIONS
        iterations = resolution.get("schedule.iterations")
        resolution.put("schedule.iterations", max(1, round(iterations * factor)), origin)
        milestones = [max(1, round(milestone * factor)) for milestone in resolution.get("schedule.milestones")]
        resolution.put("schedule.milestones", milestones, origin)
    if profile.short_side_800 is not None:
        factor = profile.short_side_800 / PAPER_SHORT_SIDE
        long_factor = factor if profile.long_side_1333 is None else profile.long_side_1333 / PAPER_LONG_SIDE
        for block in ("augmentation", "test"):
            sides = [round(side * factor) for side in resolution.get(f"{block}.short_sides")]
            resolution.put(f"{block}.short_sides", sides, origin)
            resolution.put(f"{block}.max_size", round(resolution.get(f"{block}.max_size") * long_factor), origin)
    backbone = resolution.get("model.backbone")
    if profile.backbones.get(backbone, backbone) != backbone:
        resolution.put("model.backbone", profile.backbones[backbone], origin)
    document = registry.profiles[profile.name].document
    for path in leaves(profile.settings):
        keys = ("settings", *path.split("."))
        if path in compared:
            raise document.error(keys, f"profile {profile.name} sets {path}, which the row {ref} compares.")
        block = path.split(".")[0]
        if block != "data" and resolution.get(path) is None:
            raise document.error(keys, f"unknown setting {path!r}. {_known_settings(path, resolution.origins)}")
    for block, value in profile.settings.items():
        resolution.put(block, value, origin)


def jobs(resolution: Resolution, seed: int) -> tuple[TrainJob, TestSettings]:
    """The training and its test settings for one seed."""
    settings = msgspec.convert(resolution.settings, ResolvedSettings)
    fields = {name: getattr(settings, name) for name in ResolvedSettings.__struct_fields__ if name != "test"}
    return TrainJob(seed=seed, loss_package=package_of(settings.loss), **fields), settings.test


def eval_job(resolution: Resolution, seed: int, split: str | None = None) -> EvalJob:
    """The evaluation that fills a cell: the training's own test split, or another."""
    train, test = jobs(resolution, seed)
    return EvalJob(train=train, test=test, split=split)


def require_test_settings(command: str, items: list[str] | None) -> None:
    """Raises UsageError where ``--set`` names anything that a training depends on."""
    other = [path for path in parse_overrides(items or []) if not path.startswith("test.")]
    if other:
        raise UsageError(
            f"{command} takes other test settings only, not {', '.join(other)}. To train with others: harness run."
        )


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """``--set path=value`` arguments; the value is YAML.

    Raises UsageError for a missing '=', and for a setting that is given two values.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise UsageError(f"--set takes PATH=VALUE, such as --set optimizer.lr=0.005; got {item!r}.")
        try:
            value = read_value(text)
        except YamlError as error:
            raise UsageError(f"--set {path}: {error.problem}; the value is YAML.") from error
        for other, before in overrides.items():
            _refuse_two_values(path, value, other, before)
        overrides[path] = value
    return overrides


def _refuse_two_values(path: str, value: Any, other: str, before: Any) -> None:
    """Raises UsageError where two ``--set`` give one setting different values: the same path, or one inside a block."""
    first, second = dict(_flat(other, before)), dict(_flat(path, value))
    for one in first:
        for two in second:
            nested = one.startswith(f"{two}.") or two.startswith(f"{one}.")
            if nested or (one == two and first[one] != second[two]):
                raise UsageError(
                    f"--set gives {two} two values: {other}={shown(before)} and {path}={shown(value)}. "
                    "Give one of them."
                )


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value sets: itself, or each value inside of a mapping by its dotted path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    else:
        yield path, value
