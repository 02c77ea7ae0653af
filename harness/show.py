"""What ``list``, ``plan`` and ``explain`` print: as data for --json, and as text for a person."""

from __future__ import annotations

import textwrap
from typing import Any

from msgspec import to_builtins
from tabulate import tabulate

from detector.job import EvalJob
from harness.costs import plan_costs
from harness.declarations import METRICS, ResolvedSettings, Row, Table
from harness.ledger import SILENT, as_data, deviations, plain
from harness.plan import Plan
from harness.registry import Registry
from harness.resolve import eval_job, parse_overrides, resolve
from harness.session import Session, missing
from harness.show_costs import costs_as_data, costs_as_lines
from harness.statistics import resolvable_effect, seeds_needed


def registry_as_data(registry: Registry) -> dict[str, Any]:
    """Every table, row (with its published numbers by metric), profile, recipe and claim."""
    return {
        "tables": [
            {
                "id": table.id,
                "title": table.title,
                "split": table.split,
                "rows": [_row_as_data(table, row) for row in table.rows],
            }
            for table in registry.tables.values()
        ],
        "profiles": [to_builtins(source.value) for source in registry.profiles.values()],
        "recipes": [
            {"name": source.value.name, "title": source.value.title, "extends": source.value.extends}
            for source in registry.recipes.values()
        ],
        "claims": [to_builtins(claim) for claim in registry.claims],
    }


def _row_as_data(table: Table, row: Row) -> dict[str, Any]:
    published = dict(zip(METRICS, row.published, strict=True)) if row.published else None
    return {
        "ref": f"{table.id}/{row.id}",
        "label": dict(zip(table.columns, row.cells, strict=True)),
        "recipe": row.recipe,
        "set": row.set,
        "published": published,
        "cited": row.cited,
    }


def registry_as_text(registry: Registry) -> str:
    """Tables with their rows and published numbers, then profiles and recipes."""
    blocks = []
    for table in registry.tables.values():
        rows = [[row.id, *row.cells, *(row.published or [""] * 6), row.recipe or "cited"] for row in table.rows]
        head = f"{table.id}: {table.title} ({table.split})"
        blocks.append(f"{head}\n{tabulate(rows, ['row', *table.columns, *METRICS, 'recipe'], floatfmt='.1f')}")
    profiles = [[p.value.name, p.value.title, p.value.needs] for p in registry.profiles.values()]
    blocks.append(tabulate(profiles, ["profile", "scale", "needs"], maxcolwidths=[None, 60, 50]))
    recipes = [[r.value.name, r.value.title, r.value.extends or ""] for r in registry.recipes.values()]
    blocks.append(tabulate(recipes, ["recipe", "what", "extends"]))
    blocks.append(f"{len(registry.claims)} claims of section 4: harness check")
    return "\n\n".join(blocks)


def plan_as_data(session: Session, plan: Plan, wall_time: float | None = None) -> dict[str, Any]:
    """Trainings with their rows, state and resolved job, what is to do costs, and what the planned seeds can resolve.

    wall_time: seconds that a start may take, which decides the requeues; None leaves them out.
    """
    to_do = missing(plan, session.store)
    return {
        "target": session.target,
        "profile": plan.profile.name,
        "cells": len(plan.cells),
        "trainings": [
            {
                "id": train_id,
                "rows": plan.refs_of(train_id),
                "seed": job.seed,
                "done": train_id not in to_do,
                "evaluations": [item.id for item in plan.evaluations[train_id]],
                "job": to_builtins(job),
            }
            for train_id, job in plan.trainings.items()
        ],
        "identity_is_open": session.identity_is_open,
        "costs": costs_as_data(plan_costs(plan, session.store, to_do), wall_time),
        "resolution": _resolution(plan, max(cell.seed for cell in plan.cells) + 1),
    }


def plan_as_text(session: Session, plan: Plan, seeds: int, wall_time: float | None = None) -> str:
    """A line a training, what is to do costs, and what the seeds can resolve. wall_time: as ``plan_as_data``."""
    to_do = missing(plan, session.store)
    rows = []
    for train_id, job in plan.trainings.items():
        state = "planned" if session.identity_is_open else ("to do" if train_id in to_do else "done")
        size = f"{job.schedule.iterations:,} x {job.batch.images}"
        rate = f"{job.optimizer.lr:g}"
        rows.append([train_id, job.seed, " = ".join(plan.refs_of(train_id)), job.model.backbone, size, rate, state])
    lines = [
        tabulate(
            rows,
            ["training", "seed", "rows", "backbone", "iterations x images", "learning rate", "state"],
            maxcolwidths=[None, None, 46],
        ),
        "",
        f"{len(plan.cells)} cells -> {len(plan.trainings)} trainings, {len(to_do)} to do "
        f"(profile {plan.profile.name}: {plan.profile.title}).",
    ]
    if session.batch_size is not None:
        lines += _rescaled(plan, session.batch_size)
    if session.identity_is_open:
        lines.append("The data is a folder: with --data DIR the ids above become those of its runs.")
    lines += costs_as_lines(plan_costs(plan, session.store, to_do), wall_time)
    resolution = _resolution(plan, seeds)
    lines.append(
        f"Seed deviation assumed {resolution['assumed_sd']} AP. With {seeds} seed{'s' if seeds > 1 else ''} an arm "
        + (
            f"a difference of {resolution['resolvable']:.2f} AP is seen with 80% power."
            if resolution["resolvable"] is not None
            else "no difference can be tested: one seed decides no claim but that All collapses."
        )
    )
    wanted = ", ".join(f"{effect} AP: {count}" for effect, count in resolution["seeds_needed"].items())
    lines.append(f"Seeds an arm for 80% power (one-sided test, alpha 0.05): {wanted}.")
    return "\n".join(lines)


def _rescaled(plan: Plan, batch_size: int) -> list[str]:
    """The schedules that Remark 2 gives, each once."""
    found = dict.fromkeys((job.optimizer.lr, job.schedule) for job in plan.trainings.values())
    lines = [f"With --batch-size {batch_size}, by Remark 2 of the paper (the same epochs):"]
    for rate, schedule in found:
        milestones = ", ".join(f"{milestone:,}" for milestone in schedule.milestones)
        lines.append(
            f"  learning rate {rate:g}, {schedule.iterations:,} iterations, warm-up {schedule.warmup_iterations:,}, "
            f"milestones {milestones}"
        )
    return [*lines, "Such runs are not the paper's and fill no table's cell."]


def _resolution(plan: Plan, seeds: int) -> dict[str, Any]:
    sd = plan.profile.assumed_sd.get("AP", 1.0)
    return {
        "assumed_sd": sd,
        "seeds": seeds,
        "resolvable": resolvable_effect(seeds, sd) if seeds > 1 else None,
        "seeds_needed": {str(effect): seeds_needed(effect, sd) for effect in (0.2, 0.5, 1.0, 2.0)},
    }


def explanation(ref: str, profile: str, overrides: list[str], batch_size: int | None = None) -> dict[str, Any]:
    """A row's settings with their sources, the runs that it stands for, and its published numbers."""
    session = Session(ref, profile, overrides, None, batch_size)
    table, row = session.registry.row(session.refs[0]) if "/" in ref else (None, None)
    if table is None or row is None:
        from detector.errors import UsageError

        raise UsageError(f"explain takes one row, such as table2/L6; got {ref!r}. Run 'harness list'.")
    resolution = resolve(
        session.registry, ref, session.profile, overrides=parse_overrides(overrides), batch_size=batch_size
    )
    job: EvalJob = eval_job(resolution, 0)
    shared = [
        other
        for other in session.registry.select("all", profile) + session.registry.table("ablations").refs(profile)
        if other != ref and _train_id(session, other) == job.train.id
    ]
    return {
        **_row_as_data(table, row),
        "profile": profile,
        "settings": [
            {"path": path, "value": resolution.get(path), "source": source}
            for path, source in resolution.origins.items()
        ],
        "deviations": as_data(deviations(session.registry, ref, resolution)),
        "code": to_builtins(session.registry.ledger.code),
        "derived": _derived(job),
        "training": None if session.identity_is_open else job.train.id,
        "evaluation": None if session.identity_is_open else job.id,
        "same_training": shared,
    }


def _train_id(session: Session, ref: str) -> str:
    return eval_job(resolve(session.registry, ref, session.profile), 0).train.id


def _derived(job: EvalJob) -> dict[str, float]:
    loss = job.train.loss
    return {name: getattr(loss, name) for name in ("lambda_pos", "lambda_neg") if hasattr(loss, name)}


def explanation_as_text(data: dict[str, Any]) -> str:
    """The explanation as a table, block by block in the recipe's order, then what the sources disagree on."""
    order = ResolvedSettings.__struct_fields__
    settings = sorted(data["settings"], key=lambda item: order.index(item["path"].split(".")[0]))
    rows = [[item["path"], plain(item["value"]), item["source"]] for item in settings]
    label = ", ".join(f"{name} {cell}" for name, cell in data["label"].items())
    lines = [f"{data['ref']}  ({label}), recipe {data['recipe']}, profile {data['profile']}", ""]
    lines.append(tabulate(rows, ["setting", "value", "source"], disable_numparse=True, maxcolwidths=[None, 48, 40]))
    lines.append("")
    lines += _deviations_as_text(data)
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


def _deviations_as_text(data: dict[str, Any]) -> list[str]:
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
            lines += [f"      {line}" for line in textwrap.wrap(item["why"], 110)]
            lines.append(f"      to try another value: harness run {' or '.join(item['ablations'])}")
        lines.append("")
    if data["code"]:
        lines.append("Differences in code, which no setting switches:")
        lines.append("")
        for item in data["code"]:
            says = "; ".join(f"{name} {item[name]}" for name in ("released", "base") if item[name] != SILENT)
            lines += textwrap.wrap(
                f"{item['what']}: {item['used']}  ({says})", 114, initial_indent="  ", subsequent_indent="      "
            )
        lines.append("")
    return lines
