"""The paper as declared data, read from ``experiments/`` and validated (``declarations`` says what files hold).

Nothing here trains or computes; ``resolve`` turns a row, a profile and a seed into jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from detector.errors import RegistryError, UsageError
from harness.folders import experiments_folder
from harness.registry.claims import Claim
from harness.registry.declarations import ClaimsFile, LedgerFile, Profile, RecipeFile, Row, Table
from harness.registry.yaml_files import Document, convert, read


@dataclass(frozen=True)
class Source:
    """A loaded file: the struct and the document that knows its lines."""

    document: Document
    value: Any


class Registry:
    """Every experiment of one folder, read on first use. Raises RegistryError with FILE:LINE for anything wrong."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or experiments_folder()

    @cached_property
    def tables(self) -> dict[str, Table]:
        """By id: table1..table4, then ablations."""
        paths = [*sorted(self.folder.glob("table*.yaml")), self.folder / "ablations.yaml"]
        tables: dict[str, Table] = {}
        for path in paths:
            if path.exists():
                source = self._load(path, Table)
                self._check_table(source)
                tables[source.value.id] = source.value
        if not tables:
            raise RegistryError(f"No table*.yaml in {self.folder}. Set HARNESS_EXPERIMENTS to a folder that has them.")
        return tables

    @cached_property
    def recipes(self) -> dict[str, Source]:
        """Recipe files by name (``harness.registry.resolve`` merges what they extend)."""
        return self._by_name(self.folder / "recipes", RecipeFile)

    @cached_property
    def profiles(self) -> dict[str, Source]:
        """Profiles by name."""
        profiles = self._by_name(self.folder / "profiles", Profile)
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
        """The paper's claims; every row that they name exists and every profile is either decidable or has a reason."""
        source = self._load(self.folder / "claims.yaml", ClaimsFile)
        known = {f"{table.id}/{row.id}" for table in self.tables.values() for row in table.rows if row.recipe}
        for i, claim in enumerate(source.value.claims):
            for ref in claim.refs():
                if ref not in known:
                    where = source.document.find(ref, below=("claims", i))
                    raise source.document.error(
                        where, f"claim {claim.id!r} names the unknown row {ref!r}. {_known(known)}"
                    )
            missing = set(self.profiles) - set(claim.decidable_in) - set(claim.reasons)
            if missing:
                raise source.document.error(
                    ("claims", i), f"claim {claim.id!r} says nothing of the profiles {', '.join(sorted(missing))}."
                )
        return tuple(source.value.claims)

    @cached_property
    def ledger(self) -> LedgerFile:
        """The deviations; every row, recipe and path that they name exists. Empty where the folder has no ledger."""
        path = self.folder / "ledger.yaml"
        if not path.exists():
            return LedgerFile((), ())
        source = self._load(path, LedgerFile)
        refs = {ref for table in self.tables.values() for ref in table.refs()}
        for i, entry in enumerate(source.value.fields):
            named = [("ablations", entry.ablations, refs), ("rows", entry.rows or (), refs)]
            for key, values, known in [*named, ("recipes", entry.recipes or (), set(self.recipes))]:
                for value in values:
                    if value not in known:
                        raise source.document.error(
                            ("fields", i, key), f"{entry.path}: unknown {key[:-1]} {value!r}. {_known(known)}"
                        )
        ledger: LedgerFile = source.value
        return ledger

    def profile(self, name: str) -> Profile:
        """The profile of that name. Raises UsageError with the known ones."""
        if name not in self.profiles:
            raise UsageError(f"Unknown profile {name!r}. Known: {', '.join(self.profiles)}. Run 'harness list'.")
        profile: Profile = self.profiles[name].value
        return profile

    def row(self, ref: str) -> tuple[Table, Row]:
        """The table and row of ``table/row``. Raises UsageError with the valid choices."""
        table_id, _, row_id = ref.partition("/")
        table = self.table(table_id)
        for row in table.rows:
            if row.id == row_id:
                return table, row
        raise UsageError(
            f"Unknown row {row_id!r} of {table_id}. Known: {', '.join(row.id for row in table.rows)}. "
            "Run 'harness list'."
        )

    def table(self, table_id: str) -> Table:
        """The table of that id. Raises UsageError with the known ones."""
        if table_id not in self.tables:
            raise UsageError(f"Unknown table {table_id!r}. Known: {', '.join(self.tables)}. Run 'harness list'.")
        return self.tables[table_id]

    def select(self, target: str, profile: str | None = None) -> list[str]:
        """Refs of the rows that ``target`` trains: ``all`` (the four tables), a table, or ``table/row``.

        Rows that mean nothing at ``profile`` are left out. Raises UsageError where nothing is left to train.
        """
        if target == "all":
            return [ref for table in self.tables.values() if table.id != "ablations" for ref in table.refs(profile)]
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

    def source_of(self, ref: str) -> tuple[Document, tuple[str | int, ...]]:
        """The file of a row and the row's key path in it, for error messages."""
        table, row = self.row(ref)
        name = f"{table.id}.yaml"
        return read(self.folder / name), ("rows", table.rows.index(row))

    def _load(self, path: Path, kind: type[Struct]) -> Source:
        document = read(path)
        return Source(document, convert(document, kind))

    def _by_name(self, folder: Path, kind: type[Struct]) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for path in sorted(folder.glob("*.yaml")):
            source = self._load(path, kind)
            if source.value.name != path.stem:
                raise source.document.error(("name",), f"the name must be the file's: {path.stem!r}.")
            found[path.stem] = source
        return found

    def _check_table(self, source: Source) -> None:
        table, document = source.value, source.document
        if table.id != document.path.stem:
            raise document.error(("id",), f"the id must be the file's name: {document.path.stem!r}.")
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
                raise document.error(
                    ("rows", i, "profiles"), f"unknown profile {sorted(unknown)[0]!r}. {_known(self.profiles)}"
                )
            if row.recipe is not None and row.recipe not in self.recipes:
                raise document.error(("rows", i, "recipe"), f"unknown recipe {row.recipe!r}. {_known(self.recipes)}")


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values that are not mappings (lists are values)."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _known(names: Any) -> str:
    return f"Known: {', '.join(sorted(names))}."
