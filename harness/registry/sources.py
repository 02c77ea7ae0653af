"""The files of experiments, the paper's folder first, and what is wrong where two of them give one name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from detector.errors import RegistryError
from harness.registry.core_schema import Keys
from harness.registry.declarations import Table
from harness.registry.yaml_files import Document, convert, read

ABLATIONS = "ablations"  # the table to which folders of your own may add rows
NO_TABLES = ("claims.yaml", "ledger.yaml", "speeds.yaml")  # every other .yaml file beside them is a table


@dataclass(frozen=True)
class Source:
    """A loaded file: the struct, the document that knows its lines, and its folder if that is one of your own."""

    document: Document
    value: Any
    own: Path | None = None


def read_tables(folders: Sequence[Path]) -> Iterator[Source]:
    """Every table of ``folders``, of which the first is the paper's; in each folder ``ablations`` comes last."""
    for folder in folders:
        own = None if folder == folders[0] else folder
        if own is not None and (own / "ledger.yaml").exists():
            raise RegistryError(f"{own / 'ledger.yaml'}: only the folder with the paper's tables has a ledger.")
        paths = [path for path in sorted(folder.glob("*.yaml")) if path.name not in NO_TABLES]
        for path in sorted(paths, key=lambda path: path.stem == ABLATIONS):
            source = load(path, Table, own)
            if source.value.id != path.stem:
                raise source.document.error(("id",), f"the id must be the file's name: {path.stem!r}.")
            yield source


def read_part(folders: Sequence[Path], part: str, kind: type[Struct]) -> dict[str, Source]:
    """The files of ``recipes/`` or ``profiles/`` by name. ``folders``: as ``read_tables``."""
    found: dict[str, Source] = {}
    for folder in folders:
        for path in sorted((folder / part).glob("*.yaml")):
            source = load(path, kind, None if folder == folders[0] else folder)
            if source.value.name != path.stem:
                raise source.document.error(("name",), f"the name must be the file's: {path.stem!r}.")
            if path.stem in found:
                raise twice(part.removesuffix("s"), path.stem, found[path.stem], source, ("name",))
            found[path.stem] = source
    return found


def load(path: Path, kind: type[Struct], own: Path | None = None) -> Source:
    """Read and validate one file."""
    document = read(path)
    if kind is Table and isinstance(document.data, dict) and "rows" not in document.data:
        raise document.error(
            (), "this is no table: it has no 'rows'. Other files belong in profiles/, recipes/ or clusters/."
        )
    return Source(document, convert(document, kind), own)


def check_same_table(first: Source, second: Source) -> None:
    """Raise RegistryError where the rows of two files cannot stand in one table."""
    for key in ("split", "columns"):
        before, given = getattr(first.value, key), getattr(second.value, key)
        if given != before:
            raise second.document.error(
                (key,), f"{key} is {given!r}; its rows go below those of {first.document.path}, where it is {before!r}."
            )
    ids = {row.id for row in first.value.rows}
    for i, row in enumerate(second.value.rows):
        if row.id in ids:
            raise twice(f"row of {first.value.id}", row.id, first, second, ("rows", i, "id"))


def twice(kind: str, name: str, first: Source, second: Source, where: Keys) -> RegistryError:
    """The error of a name that two files give; ``where``: the key path of the second."""
    return second.document.error(
        where,
        f"the {kind} {name!r} is in {first.document.path} already. Rename one of them. (A folder takes the installed "
        "one's place only if it has recipes, profiles and table1.yaml to table4.yaml.)",
    )
