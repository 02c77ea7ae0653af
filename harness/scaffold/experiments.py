"""New tables, recipes, profiles and clusters, each in its place in a folder of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.errors import UsageError, did_you_mean
from harness.registry.load import Registry
from harness.scaffold.profile import NewProfile, class_count, duration, profile_text, shapes_profile_text
from harness.scaffold.render import check_unused, checked_name, render, write_new

NOT_TABLES = {
    "all": "it stands for the paper's four tables",
    "claims": "claims.yaml has claims",
    "ledger": "ledger.yaml has deviations",
    "speeds": "speeds.yaml has measured speeds",
}


def new_table(registry: Registry, folder: Path, name: str, recipe: str) -> Path:
    """Write ``NAME.yaml``. Raises UsageError for a name that is taken, and for an unknown recipe."""
    check_unused("table", checked_name(name), registry.tables)
    if name in NOT_TABLES:
        raise UsageError(f"A table cannot be named {name!r}: {NOT_TABLES[name]}. Choose another name.")
    _known_recipe(registry, recipe)
    values = {"name": name, "title": f"{name}: rows of our own", "recipe": recipe}
    return _written(folder / f"{name}.yaml", render("table.yaml", values))


def new_recipe(registry: Registry, folder: Path, name: str, extends: str) -> Path:
    """Write ``recipes/NAME.yaml``. Raises UsageError for a name that is taken, and for an unknown recipe to extend."""
    check_unused("recipe", checked_name(name), registry.recipes)
    _known_recipe(registry, extends)
    values = {"name": name, "title": f"{extends} with another box loss", "extends": extends}
    return _written(folder / "recipes" / f"{name}.yaml", render("recipe.yaml", values))


def new_shapes_profile(registry: Registry, folder: Path, name: str) -> Path:
    """Write ``profiles/NAME.yaml`` for generated images. Raises UsageError for a name that is taken."""
    check_unused("profile", checked_name(name), registry.profiles)
    return _written(folder / "profiles" / f"{name}.yaml", shapes_profile_text(name))


def new_data_profile(
    registry: Registry, folder: Path, name: str, root: Path, **options: Any
) -> tuple[Path, tuple[str, ...]]:
    """Write ``profiles/NAME.yaml`` for a COCO root -> the file, and lines that say what was found and chosen.

    options: those of ``profile_text``. Raises UsageError and DataError as it does, and for a name that is taken.
    """
    check_unused("profile", checked_name(name), registry.profiles)
    made = profile_text(registry, name, root, **options)
    return _written(folder / "profiles" / f"{name}.yaml", made.text), _summary(made)


def new_cluster(folder: Path, name: str, known: set[str]) -> Path:
    """Write ``NAME.yaml``. known: names of clusters that are taken. Raises UsageError for one of them."""
    check_unused("cluster", checked_name(name), known)
    values = {"name": name, "title": f"{name}: one GPU per run, four hours at a time"}
    return _written(folder / f"{name}.yaml", render("cluster.yaml", values))


def _known_recipe(registry: Registry, name: str) -> None:
    if name not in registry.recipes:
        near = did_you_mean(name, registry.recipes)
        raise UsageError(f"Unknown recipe {name!r}. Known: {', '.join(registry.recipes)}.{near}")


def _written(path: Path, text: str) -> Path:
    write_new(path, text)
    return path


def _summary(made: NewProfile) -> tuple[str, ...]:
    train, choices, matching = made.data.train, made.choices, made.matching
    return (
        f"{made.data.train_split}: {train.images:,} images of about {train.widths[1]:.0f} x {train.heights[1]:.0f} "
        f"pixels, {train.num_boxes:,} boxes of {class_count(made.data)}; {made.data.test_split}: "
        f"{made.data.test.images:,} images.",
        f"Chosen: {choices.backbone}, short side {choices.short_side} pixels, {choices.iterations:,} iterations of "
        f"{choices.batch} images, learning rate {choices.lr:.3g}; {duration(choices)} per run.",
        f"Anchors per image: {matching.positives:.1f} positive, {matching.borderline:.1f} borderline.",
    )
