"""``harness explain``: every setting of a row or a recipe, its source, and where the sources disagree."""

from __future__ import annotations

import textwrap
from typing import Any

from msgspec import to_builtins

from detector.errors import UsageError
from detector.runs.job import EvalJob
from harness.console.layout import table, text_width
from harness.planning.selection import Selection
from harness.registry.declarations import ResolvedSettings
from harness.registry.ledger import SILENT, as_data, deviations, plain
from harness.registry.load import Registry
from harness.registry.resolution import Resolution
from harness.registry.resolve import eval_job, parse_overrides, resolve, resolve_recipe
from harness.report.listing import released_as_text, row_as_data


def explanation(ref: str, profile: str, overrides: list[str], batch_size: int | None = None) -> dict[str, Any]:
    """The settings of a row with their sources, the runs that it stands for, and its published numbers.

    ``ref`` may be a recipe instead, which stands for no run and has no published numbers.
    """
    registry = Registry()
    if ref in registry.recipes:
        if batch_size is not None:
            raise UsageError("--batch-size goes with a row, whose schedule follows it; a recipe stands for no run.")
        return _recipe_explanation(registry, ref, profile, overrides)
    selection = Selection(ref, profile, overrides, None, batch_size)
    if "/" not in ref:
        raise UsageError(f"explain takes one row, such as table2/L6, or a recipe; got {ref!r}. Run 'harness list'.")
    listed_in, row = selection.registry.row(ref)
    resolution = resolve(
        selection.registry, ref, selection.profile, overrides=parse_overrides(overrides), batch_size=batch_size
    )
    job: EvalJob = eval_job(resolution, 0)
    shared = [
        other
        for listed in selection.registry.tables.values()
        for other in listed.refs(profile)
        if other != ref and _train_id(selection, other) == job.train.id
    ]
    return {
        **row_as_data(listed_in, row),
        "released": to_builtins(selection.registry.recipes[str(row.recipe)].value.released),
        "profile": profile,
        **_settings(selection.registry, ref, resolution),
        "derived": _derived(job),
        "training": None if selection.identity_is_open else job.train.id,
        "evaluation": None if selection.identity_is_open else job.id,
        "same_training": shared,
    }


def _recipe_explanation(registry: Registry, name: str, profile: str, overrides: list[str]) -> dict[str, Any]:
    resolution = resolve_recipe(registry, name, registry.profile(profile), overrides=parse_overrides(overrides))
    recipe = registry.recipes[name].value
    return {
        "ref": name,
        "label": {},
        "recipe": name,
        "released": to_builtins(recipe.released),
        "published": None,
        "profile": profile,
        **_settings(registry, name, resolution),
        "derived": _derived(eval_job(resolution, 0)),
        "training": None,
        "evaluation": None,
        "same_training": [],
    }


def _settings(registry: Registry, ref: str, resolution: Resolution) -> dict[str, Any]:
    """Every value with its source, and where the sources disagree."""
    return {
        "settings": [
            {"path": path, "value": resolution.get(path), "source": source}
            for path, source in resolution.origins.items()
        ],
        "deviations": as_data(deviations(registry, ref, resolution)),
        "code": to_builtins(registry.ledger.code),
    }


def _train_id(selection: Selection, ref: str) -> str:
    return eval_job(resolve(selection.registry, ref, selection.profile), 0).train.id


def _derived(job: EvalJob) -> dict[str, float]:
    loss = job.train.loss
    return {name: getattr(loss, name) for name in ("lambda_pos", "lambda_neg") if hasattr(loss, name)}


def explanation_as_text(data: dict[str, Any], width: int | None = None) -> str:
    """The explanation as a table, block by block in the recipe's order, then what the sources disagree on.

    width: of the terminal, if it is one.
    """
    order = ResolvedSettings.__struct_fields__
    settings = sorted(data["settings"], key=lambda item: order.index(item["path"].split(".")[0]))
    rows = [[item["path"], plain(item["value"]), item["source"]] for item in settings]
    label = ", ".join(f"{name} {cell}" for name, cell in data["label"].items())
    what = f"{data['ref']}  ({label}), recipe {data['recipe']}" if label else f"recipe {data['recipe']}"
    lines = [f"{what}, profile {data['profile']}"]
    if data["released"]:
        lines.append(f"The recipe is the authors' released configuration {released_as_text(data['released'])}.")
    lines.append("")
    lines.append(table(rows, ["setting", "value", "source"], width, disable_numparse=True, maxcolwidths=[None, 48, 40]))
    lines.append("")
    lines += _deviations_as_text(data, width)
    if data["derived"]:
        derived = ", ".join(f"{name} = {value:.4f}" for name, value in data["derived"].items())
        lines.append(f"derived: {derived} (lambda_pos = 1 / log(h_pos), lambda_neg = 0.1 / log(h_neg))")
    if data["published"]:
        lines.append("published: " + ", ".join(f"{name} {value}" for name, value in data["published"].items()))
    if data["training"]:
        lines.append(f"training {data['training']}, evaluation {data['evaluation']} (seed 0)")
    if data["same_training"]:
        lines.append(f"the same training also fills: {', '.join(data['same_training'])}")
    return "\n".join(lines)


def _deviations_as_text(data: dict[str, Any], width: int | None) -> list[str]:
    lines = []
    if data["deviations"]:
        lines.append("Where the paper, its released configuration, its base codebase and this row are not all equal:")
        lines.append("")
        known = {"path", "used", "paper", "released", "base", "why", "ablations"}
        for item in data["deviations"]:
            others = {name: value for name, value in item.items() if name not in known}
            stated = {name: item[name] for name in ("paper", "released", "base")} | others
            says = "; ".join(f"{name} {plain(value)}" for name, value in stated.items())
            lines.append(f"  {item['path']}: used {plain(item['used'])}  ({says})")
            lines += [
                f"      {line}"
                for line in textwrap.wrap(item["why"], text_width(width, 116) - 6, break_on_hyphens=False)
            ]
            for number, ref in enumerate(item["ablations"]):
                lines.append(f"      {'or' if number else 'to try another value'}: harness run {ref}")
        lines.append("")
    if data["code"]:
        lines.append("Differences in code, which no setting switches:")
        lines.append("")
        for item in data["code"]:
            says = "; ".join(f"{name} {item[name]}" for name in ("released", "base") if item[name] != SILENT)
            lines += textwrap.wrap(
                f"{item['what']}: {item['used']}  ({says})",
                text_width(width, 114),
                initial_indent="  ",
                subsequent_indent="      ",
                break_on_hyphens=False,
            )
        lines.append("")
    return lines
