"""All that the page says, put together from its scales; and its bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detector.storage.shown import shown
from harness.report.evidence.notes import store_notes
from harness.report.formats import render_check, render_tables
from harness.report.page.claims import ClaimPart, claim_parts
from harness.report.page.evidence import RowPart, RunPart, row_parts, run_parts
from harness.report.page.grids import Grid
from harness.report.page.origin import costs_grid, environment_grid, errors_grid, without_later_fields
from harness.report.page.pictures import IMAGE_BYTES, FigurePart, ImagePart, figure_parts, image_parts
from harness.report.page.places import Places
from harness.report.page.scales import Scale
from harness.report.page.settings import LedgerPart, RecipePart, ledger_parts, recipe_parts
from harness.report.page.summary import Summary, summary
from harness.report.page.tables import TablePart, table_parts

GENERATOR = "harness report"


@dataclass(frozen=True)
class Page:
    """The page before it is HTML. ``data``: files that stand beside it, or in it, by name."""

    target: str
    command: str
    summaries: tuple[Summary, ...]
    tables: tuple[TablePart, ...]
    rows: Mapping[str, tuple[RowPart, ...]]  # by table and profile, with a line feed between
    claims: tuple[ClaimPart, ...]
    check_notes: tuple[tuple[str, tuple[str, ...]], ...]
    figures: Mapping[str, Sequence[FigurePart]]
    ledger: tuple[LedgerPart, ...]
    code_differences: tuple[Any, ...]
    recipes: tuple[tuple[str, tuple[RecipePart, ...]], ...]
    images: tuple[tuple[str, tuple[ImagePart, ...], str], ...]
    errors: tuple[tuple[str, Grid | None], ...]
    old_records: tuple[str, ...]
    costs: Grid
    environment: Grid
    runs: tuple[tuple[str, tuple[RunPart, ...]], ...]
    aside: tuple[str, ...]
    again: tuple[str, ...]
    data: Mapping[str, str]
    places: Places


def page_of(scales: Sequence[Scale]) -> Page:
    """What the records of these scales say. Nothing of it depends on the time, the machine or its folders."""
    places = Places(scales)
    selection = scales[0].selection
    figures = figure_parts(scales)
    tables = table_parts(scales)
    return Page(
        target=selection.target,
        command=_command(scales),
        summaries=tuple(summary(scale) for scale in scales),
        tables=tuple(tables),
        rows={f"{view.id}\n{scale.name}": tuple(row_parts(scale, view)) for scale in scales for view in scale.tables},
        claims=tuple(claim_parts(scales)),
        check_notes=tuple((scale.name, _check_notes(scale)) for scale in scales),
        figures=figures,
        ledger=tuple(ledger_parts(scales)),
        code_differences=tuple(selection.registry.ledger.code),
        recipes=tuple((scale.name, tuple(recipe_parts(scale))) for scale in scales),
        images=tuple((scale.name, *image_parts(scale, IMAGE_BYTES // len(scales))) for scale in scales),
        errors=tuple((scale.name, errors_grid(scale)) for scale in scales),
        old_records=tuple(text for scale in scales if (text := without_later_fields(scale))),
        costs=costs_grid(scales),
        environment=environment_grid(scales),
        runs=tuple((scale.name, tuple(run_parts(scale, places))) for scale in scales),
        aside=_aside(scales),
        again=_again(scales),
        data=_data(scales, figures),
        places=places,
    )


def _command(scales: Sequence[Scale]) -> str:
    profiles = " ".join(f"--profile {scale.name}" for scale in scales)
    return f"harness report {scales[0].selection.target} {profiles}"


def _again(scales: Sequence[Scale]) -> tuple[str, ...]:
    """Commands that make the records and the page once more, in order."""
    lines = []
    for scale in scales:
        seeds = max((len(item.kept) for item in scale.chosen.values()), default=1)
        lines.append(f"harness run {scale.selection.target} --profile {scale.name} --seeds {max(1, seeds)}")
    return (*lines, "harness collect", _command(scales))


def _check_notes(scale: Scale) -> tuple[str, ...]:
    parts = [part for part in (scale.check.paper, scale.check.own) if part is not None]
    return tuple(dict.fromkeys(note for part in parts for note in part.notes))


def _aside(scales: Sequence[Scale]) -> tuple[str, ...]:
    """What is wrong with records, of whatever row: each sentence once."""
    found = [
        note
        for scale in scales
        for note in store_notes(scale.selection.row_records(), scale.selection.refs, scale.selection)
    ]
    return tuple(dict.fromkeys(found))


def _data(scales: Sequence[Scale], figures: Mapping[str, Sequence[FigurePart]]) -> dict[str, str]:
    found = {}
    for scale in scales:
        found[f"tables-{scale.name}.csv"] = render_tables(scale.tables, "csv") + "\n"
        found[f"claims-{scale.name}.csv"] = render_check(scale.check, "csv") + "\n"
    for part in (part for parts in figures.values() for part in parts if part.csv):
        found[f"{part.name}{f'-{part.scale}' if part.scale else ''}.csv"] = part.csv
    return found


def html(page: Page, *, whole: bool) -> str:
    """The page as HTML. whole: the data is in it too; else it is linked as files in the folder ``data`` beside it."""
    environment = _environment(page.places)
    script, style = _asset("page.js"), _asset("style.css")
    links = {
        name: f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
        if whole
        else f"data/{name}"
        for name, text in page.data.items()
    }
    return environment.get_template("page.html.j2").render(
        page=page,
        links=links,
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        generator=GENERATOR,
    )


def _environment(places: Places) -> Environment:
    """Everything is escaped, what could turn text around is written out, and a missing value is an error."""

    def final(value: Any) -> Any:
        return shown(places.named(value)) if type(value) is str else value  # not Markup, which is ours

    return Environment(
        loader=PackageLoader("harness.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=final,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _asset(name: str) -> str:
    return files("harness.report.page").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")
