"""The experiments as declared data, read from their folders and validated (``declarations`` says what files hold).

The paper's stand in one folder; folders of your own (``harness.folders``) add tables, rows of ``ablations``, recipes,
profiles, claims and measured speeds. Nothing here trains or computes; ``resolve`` turns a row, a profile and a seed
into jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import RegistryError, UsageError, did_you_mean
from harness.folders import VARIABLE, experiments_folders
from harness.registry.claims import Claim
from harness.registry.core_schema import Keys
from harness.registry.declarations import ClaimsFile, LedgerFile, Profile, RecipeFile, Row, Table
from harness.registry.sources import ABLATIONS, Source, check_same_table, load, read_part, read_tables, twice
from harness.registry.speeds import SpeedsFile
from harness.registry.yaml_files import Document


class Registry:
    """Every experiment of the folders, each file read once, on first use.

    folder: read this one alone; None for those that ``harness.folders.experiments_folders`` finds. new: as there.
    Raises RegistryError with FILE:LINE for anything wrong, and for a name that two folders give.
    """

    def __init__(self, folder: Path | None = None, *, new: Path | None = None) -> None:
        *own, paper = (folder,) if folder is not None else experiments_folders(new=new)
        self.folder: Path = paper
        self.own_folders: tuple[Path, ...] = tuple(own)
        self.folders: tuple[Path, ...] = (paper, *own)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By id: table1..table4, then ablations with your own rows at its end, then tables of your own."""
        tables: dict[str, Table] = {}
        for source in self.table_files:
            table: Table = source.value
            if source.own is not None and table.id == ABLATIONS and ABLATIONS in tables:
                table = msgspec.structs.replace(tables[ABLATIONS], rows=(*tables[ABLATIONS].rows, *table.rows))
            tables[table.id] = table
        return tables

    @cached_property
    def table_files(self) -> tuple[Source, ...]:
        """Every file of a table, the paper's first."""
        found: list[Source] = []
        for source in read_tables(self.folders):
            self._check_table(source)
            before = [other for other in found if other.value.id == source.value.id]
            if before and source.value.id != ABLATIONS:
                raise twice("table", source.value.id, before[0], source, ("id",))
            for other in before:
                check_same_table(other, source)
            found.append(source)
        if not any(source.own is None for source in found):
            raise RegistryError(f"No table*.yaml in {self.folder}. Set {VARIABLE} to a folder that has them.")
        return tuple(found)

    @cached_property
    def own_rows(self) -> frozenset[str]:
        """``table/row`` of every row that a folder of your own adds: no verdict on the paper may rest on them."""
        return frozenset(ref for ref, (source, _) in self._rows.items() if source.own is not None)

    @cached_property
    def _rows(self) -> dict[str, tuple[Source, Keys]]:
        """By ``table/row``, the row's file and where it stands there."""
        return {
            f"{source.value.id}/{row.id}": (source, ("rows", i))
            for source in self.table_files
            for i, row in enumerate(source.value.rows)
        }

    @cached_property
    def recipes(self) -> dict[str, Source]:
        """Recipe files by name (``harness.registry.resolve`` merges what they extend)."""
        return read_part(self.folders, "recipes", RecipeFile)

    @cached_property
    def profiles(self) -> dict[str, Source]:
        """Profiles by name."""
        profiles = read_part(self.folders, "profiles", Profile)
        for source in profiles.values():
            for path in leaves(source.value.settings):
                if path.startswith(Profile.FIXED):
                    keys = ("settings", *path.split("."))
                    raise source.document.error(
                        keys, f"a profile may not set {path!r}: it belongs to what the tables compare."
                    )
        return profiles

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The paper's claims. They speak of the paper's rows; a profile that a claim leaves out cannot decide it."""
        (source,) = [source for source in self.claims_files if source.own is None]
        return tuple(source.value.claims)

    @cached_property
    def own_claims(self) -> tuple[Claim, ...]:
        """Claims of your own, on any rows: a family apart, which no verdict on the paper's claims counts."""
        return tuple(claim for source in self.claims_files if source.own is not None for claim in source.value.claims)

    @cached_property
    def claims_files(self) -> tuple[Source, ...]:
        """Every claims.yaml, the paper's first; every row and profile that the claims name exists."""
        own = [(folder, folder / "claims.yaml") for folder in self.own_folders]
        sources = [load(self.folder / "claims.yaml", ClaimsFile)]
        sources += [load(path, ClaimsFile, folder) for folder, path in own if path.exists()]
        trained = {ref for table in self.tables.values() for ref in table.refs()}
        first: dict[str, Source] = {}
        for source in sources:
            known = trained if source.own is not None else trained - self.own_rows
            for i, claim in enumerate(source.value.claims):
                if claim.id in first:
                    raise twice("claim", claim.id, first[claim.id], source, ("claims", i, "id"))
                first[claim.id] = source
                self._check_claim(source.document, i, claim, known)
        return tuple(sources)

    def _check_claim(self, document: Document, i: int, claim: Claim, known: set[str]) -> None:
        """Raise RegistryError for an unknown row or profile."""
        for ref in claim.refs():
            if ref not in known:
                where = document.find(ref, below=("claims", i))
                raise document.error(where, f"claim {claim.id!r} names the unknown row {ref!r}. {_known(known, ref)}")
        for key, names in (("decidable_in", claim.decidable_in), ("reasons", claim.reasons)):
            for name in names:
                if name not in self.profiles:
                    where = (
                        ("claims", i, key, name) if key == "reasons" else document.find(name, below=("claims", i, key))
                    )
                    raise document.error(
                        where, f"claim {claim.id!r} names the unknown profile {name!r}. {_known(self.profiles, name)}"
                    )

    @cached_property
    def ledger(self) -> LedgerFile:
        """The deviations; every row, recipe and path that they name exists. Empty where the folder has no ledger."""
        path = self.folder / "ledger.yaml"
        if not path.exists():
            return LedgerFile((), ())
        source = load(path, LedgerFile)
        refs = {ref for table in self.tables.values() for ref in table.refs()}
        for i, entry in enumerate(source.value.fields):
            named = [("ablations", entry.ablations, refs), ("rows", entry.rows or (), refs)]
            for key, values, known in [*named, ("recipes", entry.recipes or (), set(self.recipes))]:
                for value in values:
                    if value not in known:
                        raise source.document.error(
                            ("fields", i, key), f"{entry.path}: unknown {key[:-1]} {value!r}. {_known(known, value)}"
                        )
        ledger: LedgerFile = source.value
        return ledger

    @cached_property
    def speeds(self) -> SpeedsFile:
        """Measured speeds: the paper's folder's, then those of your own, which take the place of the same ones."""
        paths = [(folder, folder / "speeds.yaml") for folder in (self.folder, *self.own_folders)]
        found = SpeedsFile()
        for folder, path in paths:
            if path.exists():
                found = found.merged(load(path, SpeedsFile, None if folder == self.folder else folder).value)
        return found

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises UsageError with the known ones."""
        if name not in self.profiles:
            raise UsageError(
                f"Unknown profile {name!r}. Known: {', '.join(self.profiles)}. Run 'harness list'."
                f"{did_you_mean(name, self.profiles)}"
            )
        profile: Profile = self.profiles[name].value
        return profile

    def row(self, ref: str) -> tuple[Table, Row]:
        """The table and row of ``table/row``. Raises UsageError with the valid choices."""
        table_id, _, row_id = ref.partition("/")
        if table_id not in self.tables:
            raise self._unknown_table(table_id, ref)
        table = self.tables[table_id]
        for row in table.rows:
            if row.id == row_id:
                return table, row
        near = did_you_mean(row_id, (row.id for row in table.rows)).replace("mean '", f"mean '{table_id}/")
        raise UsageError(
            f"Unknown row {row_id!r} of {table_id}. Known: {', '.join(row.id for row in table.rows)}. "
            f"Run 'harness list'.{near}"
        )

    def table(self, table_id: str) -> Table:
        """The table of that id. Raises UsageError with the known ones."""
        if table_id not in self.tables:
            raise self._unknown_table(table_id, table_id)
        return self.tables[table_id]

    def _unknown_table(self, table_id: str, target: str) -> UsageError:
        """With what was meant perhaps: another target, the row of some table, or a profile or recipe."""
        refs = [f"{table.id}/{row.id}" for table in self.tables.values() for row in table.rows]
        rows = [ref for ref in refs if ref.partition("/")[2].casefold() == target.casefold()]
        if target in self.profiles:
            meant = f" {target!r} is a profile: --profile {target}."
        elif target in self.recipes:
            meant = f" {target!r} is a recipe: harness explain {target}."
        else:
            meant = did_you_mean(target, ["all", *self.tables, *refs])
            meant = f" Did you mean {' or '.join(map(repr, rows))}?" if rows else meant
        return UsageError(f"Unknown table {table_id!r}. Known: {', '.join(self.tables)}. Run 'harness list'.{meant}")

    def select(self, target: str, profile: str | None = None) -> list[str]:
        """Refs of the rows that ``target`` trains: ``all`` (the paper's tables), a table, or ``table/row``.

        Rows that mean nothing at ``profile`` are left out. Raises UsageError where nothing is left to train.
        """
        if target == "all":
            return [ref for table in self.paper_tables for ref in table.refs(profile)]
        if "/" not in target:
            return self.table(target).refs(profile)
        _, row = self.row(target)
        if profile is not None and row.profiles is not None and profile not in row.profiles:
            raise UsageError(
                f"{target} means nothing at profile {profile}, which itself sets what the row compares. "
                f"Its profiles: {', '.join(row.profiles)}."
            )
        if row.recipe is None:
            raise UsageError(f"{target} is cited from another paper ({row.cited}); there is nothing to train.")
        return [target]

    @property
    def paper_tables(self) -> list[Table]:
        """What the target ``all`` stands for: no ablations, and none of your own."""
        ids = {source.value.id for source in self.table_files if source.own is None} - {ABLATIONS}
        return [table for table in self.tables.values() if table.id in ids]

    def file_of(self, ref: str) -> Source:
        """The file that declares a row."""
        return self._rows[ref][0]

    def source_of(self, ref: str) -> tuple[Document, Keys]:
        """The file of a row and the row's key path in it, for error messages."""
        source, keys = self._rows[ref]
        return source.document, keys

    def _check_table(self, source: Source) -> None:
        table, document = source.value, source.document
        if table.id == "all":
            raise document.error(("id",), "'all' stands for the paper's tables; take another id.")
        seen: set[str] = set()
        for i, row in enumerate(table.rows):
            where = ("rows", i, "id")
            if row.id in seen:
                raise document.error(where, f"row {row.id!r} is there twice.")
            seen.add(row.id)
            if len(row.cells) != len(table.columns):
                raise document.error(
                    ("rows", i, "cells"), f"row {row.id!r} has {len(row.cells)} cells for columns {table.columns}."
                )
            if (row.recipe is None) == (row.cited is None):
                raise document.error(where, f"row {row.id!r} needs either a recipe or a citation ('cited').")
            unknown = set(row.profiles or ()) - set(self.profiles)
            if unknown:
                first = min(unknown)
                raise document.error(
                    ("rows", i, "profiles"), f"unknown profile {first!r}. {_known(self.profiles, first)}"
                )
            if row.recipe is not None and row.recipe not in self.recipes:
                known = _known(self.recipes, row.recipe)
                raise document.error(("rows", i, "recipe"), f"unknown recipe {row.recipe!r}. {known}")


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values that are not mappings (lists are values)."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _known(names: Iterable[str], given: str) -> str:
    names = sorted(names)
    return f"Known: {', '.join(names)}.{did_you_mean(given, names)}"
