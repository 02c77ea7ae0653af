"""``harness list``: tables, rows, profiles, recipes and claims, the paper's and the user's own."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from harness.console import layout
from harness.console.legend import legend
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
        blocks.append(f"{table.id}: {table.title} ({table.split})\n{_table(registry, table, width)}")
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
    text = "\n\n".join(blocks)
    return f"{text}\n\n{legend(text, _WORDS)}"


_WORDS = {
    "cited": "a number of others, which no run of this project fills",
    "h+": "of the positives' regulariser, lambda+ = 1 / log h+",
    "h-": "of the negatives', lambda- = 0.1 / log h-",
    "ρ": "of the quadratic surrogate of the hinge",
    "L =": "of the logistic one",
}


def _table(registry: Registry, table: Table, width: int | None) -> str:
    """Its rows, without columns of published numbers where there are none.

    In a narrow terminal the labels stand below the ids.
    """
    metrics = METRICS if any(row.published for row in table.rows) else ()
    numbers = [list(row.published or [""] * len(METRICS))[: len(metrics)] for row in table.rows]
    recipes = [row.recipe or "cited" for row in table.rows]
    full = [[row.id, *row.cells, *values, r] for row, values, r in zip(table.rows, numbers, recipes, strict=True)]
    below = [
        [f"{row.id}\n  {', '.join((*row.cells, r))}", *values]
        for row, values, r in zip(table.rows, numbers, recipes, strict=True)
    ]
    return _listed(
        full,
        ["row", *table.columns, *metrics, "recipe"],
        [registry.file_of(f"{table.id}/{row.id}") for row in table.rows],
        width,
        narrow=(below, [f"row, {', '.join(table.columns)}, recipe", *metrics]) if metrics else None,
        floatfmt=".1f",
    )


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
        how.pop("narrow", None)  # the folder would have no column in it
        if "maxcolwidths" in how:
            how["maxcolwidths"] = [*how["maxcolwidths"], None]
    return layout.table(lines, headings, width, **how)
