"""``harness new profile``: a scale for a data set, from a look at it."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.registry.sources import Source, load
from harness.scaffold.choices import CPU, EPOCHS, FEWEST, GPU, Choices, choose, pick_splits
from harness.scaffold.data_set import MEASURED_ROW, DataSet, Matching, labelled_splits, look, match
from harness.scaffold.render import render


@dataclass(frozen=True)
class NewProfile:
    """A profile's text, and what it was made from."""

    text: str
    data: DataSet
    choices: Choices
    matching: Matching


def profile_text(
    registry: Registry,
    name: str,
    root: Path,
    *,
    train_split: str | None = None,
    test_split: str | None = None,
    gpu: bool = False,
    iterations: int | None = None,
) -> NewProfile:
    """Look at the COCO root and write down a scale for it. gpu: for the real ResNet-50 instead of the slim network.

    Raises UsageError where it is unclear which splits are meant, DataError for a root that cannot be trained on.
    """
    splits = pick_splits(labelled_splits(root), train_split, test_split, str(root))
    data = look(root, *splits)
    scale = GPU if gpu else CPU
    choices = choose(data.train, scale, iterations=iterations)
    values: dict[str, Any] = {
        "name": name,
        "title": _title(data, choices),
        "command": _command(name, root, splits, gpu, iterations),
        "needs": f"a COCO root with {splits[0]} and {splits[1]} (--data)",
        "train": data.train,
        "test": data.test,
        "train_split": splits[0],
        "test_split": splits[1],
        "classes": _classes(data),
        "cpu": scale is CPU,
        "scale": scale,
        "c": choices,
        "median_box": data.train.relative_sides[1] * choices.short_side,
        "large_box": data.train.relative_sides[2] * choices.short_side,
        "duration": duration(choices),
        "iterations_reason": _iterations_reason(choices, scale.budget_minutes, given=iterations is not None),
        "matching": None,
    }
    # Once without the ranges: the job that this text resolves to is what the anchors are matched by.
    matching = match(data, _job(registry, name, render("profile_data.yaml", values)))
    return NewProfile(render("profile_data.yaml", values | {"matching": matching}), data, choices, matching)


def shapes_profile_text(name: str) -> str:
    """A scale on generated images, for want of a data set to look at."""
    return render("profile_shapes.yaml", {"name": name})


def _job(registry: Registry, name: str, text: str) -> Any:
    """The training of that row at the profile of that text. Raises RegistryError where the text does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        draft: Source = load(path, Profile)
    registry.profiles[name] = draft
    try:
        return eval_job(resolve(registry, MEASURED_ROW, draft.value), 0).train
    finally:
        del registry.profiles[name]


def duration(choices: Choices) -> str:
    """The estimate for one run, in words."""
    return f"about {choices.minutes:.0f} minutes" if choices.minutes >= 1.5 else "about a minute or less"


def _title(data: DataSet, choices: Choices) -> str:
    size = f"{choices.short_side} px, {choices.backbone}, {choices.iterations:,} iterations"
    return f"{data.root.resolve().name} at {size}"


def _classes(data: DataSet) -> str:
    names = data.train.classes
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    # A line break in a name would end the comment, and YAML takes no control characters at all.
    return f"{class_count(data)}: {''.join(c if c.isprintable() else '?' for c in shown)}"


def class_count(data: DataSet) -> str:
    """How many classes, in words."""
    count = len(data.train.classes)
    return f"{count} classes" if count != 1 else "1 class"


def _iterations_reason(choices: Choices, minutes: float, *, given: bool) -> str:
    seen = f"each image is seen {choices.epochs:.1f} times"
    if given:
        return f"Given by --iterations: {seen}."
    return f"Ours: {seen}. Aimed at are {EPOCHS} times, in at least {FEWEST} iterations, within {minutes:g} minutes."


def _command(name: str, root: Path, splits: tuple[str, str], gpu: bool, iterations: int | None) -> str:
    words = ["harness", "new", "profile", name, "--data", str(root)]
    words += ["--train-split", splits[0], "--test-split", splits[1], "--gpu" if gpu else "--cpu"]
    words += ["--iterations", str(iterations)] if iterations is not None else []
    return " ".join(shlex.join(words).split())
