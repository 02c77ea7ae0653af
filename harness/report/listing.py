"""``harness list``: tables, rows, profiles, recipes and claims, the paper's and the user's own."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from harness.console import layout
from harness.registry.declarations import METRICS, Row, Table
from harness.registry.load import Registry
from harness.registry.sources import Source


def registry_as_data(registry: Registry) -> dict[str, Any]:
    """Every table, row (with its published numbers by metric), profile, recipe and claim.

    ``folder``: the user's own folder that it is from; null for the paper's.
    """
    return {
        "tables": [
            {
                "id": table.id,
                "title": table.title,
                "split": table.split,
                "rows": [
                    row_as_data(table, row) | {"folder": _folder(registry.file_of(f"{table.id}/{row.id}"))}
                    for row in table.rows
                ],
            }
            for table in registry.tables.values()
        ],
        "profiles": [to_builtins(source.value) | {"folder": _folder(source)} for source in registry.profiles.values()],
        "recipes": [
            {
                "name": source.value.name,
                "title": source.value.title,
                "extends": source.value.extends,
                "released": to_builtins(source.value.released),
                "folder": _folder(source),
            }
            for source in registry.recipes.values()
        ],
        "claims": [
            to_builtins(claim) | {"folder": _folder(source)}
            for source in registry.claims_files
            for claim in source.value.claims
        ],
    }


def _folder(source: Source) -> str | None:
    return str(source.own) if source.own is not None else None


def row_as_data(table: Table, row: Row) -> dict[str, Any]:
    """One row with its published numbers by metric."""
    published = dict(zip(METRICS, row.published, strict=True)) if row.published else None
    return {
        "ref": f"{table.id}/{row.id}",
        "label": dict(zip(table.columns, row.cells, strict=True)),
        "recipe": row.recipe,
        "set": row.set,
        "published": published,
        "cited": row.cited,
    }


def registry_as_text(registry: Registry, width: int | None = None) -> str:
    """Tables with their rows and published numbers, then profiles, recipes and claims.

    What is the user's own has its folder in a last column, which is there only where something is. width: of the
    terminal, if it is one.
    """
    blocks = []
    for table in registry.tables.values():
        rows = [[row.id, *row.cells, *(row.published or [""] * 6), row.recipe or "cited"] for row in table.rows]
        files = [registry.file_of(f"{table.id}/{row.id}") for row in table.rows]
        head = f"{table.id}: {table.title} ({table.split})"
        listed = _listed(rows, ["row", *table.columns, *METRICS, "recipe"], files, width, floatfmt=".1f")
        blocks.append(f"{head}\n{listed}")
    profiles = list(registry.profiles.values())
    lines = [[p.value.name, p.value.title, p.value.needs] for p in profiles]
    blocks.append(_listed(lines, ["profile", "scale", "needs"], profiles, width, maxcolwidths=[None, 60, 50]))
    recipes = list(registry.recipes.values())
    lines = [
        [r.value.name, r.value.title, r.value.extends or "", released_as_text(to_builtins(r.value.released))]
        for r in recipes
    ]
    blocks.append(_listed(lines, ["recipe", "what", "extends", "released by the authors as"], recipes, width))
    blocks.append(f"{len(registry.claims)} claims of section 4: harness check")
    for source in registry.claims_files:
        if source.own is not None:
            names = ", ".join(claim.id for claim in source.value.claims)
            blocks.append(f"Claims of your own, from {source.own}: {names}")
    return "\n\n".join(blocks)


def released_as_text(released: dict[str, Any] | None) -> str:
    """The authors' name of a configuration, and what they state for its checkpoint; empty for any other recipe."""
    if released is None:
        return ""
    if released["minival"] is None:
        return f"{released['config']} (no weights, no number)"
    return f"{released['config']} (AP {released['minival']} minival, {released['test_dev']} test-dev)"


def _listed(lines: list[list[Any]], headings: list[str], sources: list[Source], width: int | None, **how: Any) -> str:
    """A table with the folders of the user's own lines, where there are any."""
    if any(source.own is not None for source in sources):
        lines = [[*line, _folder(source) or ""] for line, source in zip(lines, sources, strict=True)]
        headings = [*headings, "your own, from"]
        if "maxcolwidths" in how:
            how["maxcolwidths"] = [*how["maxcolwidths"], None]
    return layout.table(lines, headings, width, **how)
