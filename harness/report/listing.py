"""``harness list``: tables, rows, profiles and recipes."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins
from tabulate import tabulate

from harness.registry.declarations import METRICS, Row, Table
from harness.registry.load import Registry


def registry_as_data(registry: Registry) -> dict[str, Any]:
    """Every table, row (with its published numbers by metric), profile, recipe and claim."""
    return {
        "tables": [
            {
                "id": table.id,
                "title": table.title,
                "split": table.split,
                "rows": [row_as_data(table, row) for row in table.rows],
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


def row_as_data(table: Table, row: Row) -> dict[str, Any]:
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
