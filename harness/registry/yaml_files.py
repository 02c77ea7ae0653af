"""Experiment files: YAML 1.2 read safely, with the line of every key, and validated strictly into structs.

``read`` rejects duplicate keys. ``convert`` turns msgspec's path (``$.rows[3].set``) into ``FILE:LINE`` and adds the
valid choices.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from detector.errors import RegistryError, did_you_mean
from detector.storage.reading import read_text
from drloss.plugins import why_unknown
from harness.registry.claims import ONE_LINE
from harness.registry.core_schema import Keys, YamlError, parse

T = TypeVar("T")

MOST: Final = 4 * 2**20  # bytes of a file; the longest of ours has 30,000
_SHOWN: Final = 200  # characters of a wrong value in a message


@dataclass(frozen=True)
class Document:
    """A parsed file: plain data and the line (from 1) of every key path."""

    path: Path
    data: Any
    lines: dict[Keys, int] = field(repr=False)

    def line(self, keys: Keys) -> int:
        """Line of ``keys``, or of its nearest ancestor in the file."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def find(self, value: Any, *, below: Keys) -> Keys:
        """The first key path under ``below`` that holds ``value``; ``below`` itself where none does."""
        paths = (keys for keys in self.lines if keys[: len(below)] == below and _at(self.data, keys) == value)
        return next(paths, below)

    def error(self, keys: Keys, message: str) -> RegistryError:
        """An error that begins with ``FILE:LINE``."""
        return RegistryError(f"{self.path}:{self.line(keys)}: {message}")


def read(path: Path) -> Document:
    """Parse one YAML file.

    Raises RegistryError (file, line) for bad syntax, a key written twice, a number that is not finite, and whatever
    YAML 1.2's core schema does not have.
    """
    text = read_text(path, most=MOST, raises=RegistryError)
    try:
        data, lines = parse(text)
    except YamlError as error:
        raise RegistryError(f"{path}:{error.line}: {error.problem}.") from error
    document = Document(path, {} if data is None else data, lines)
    for keys in lines:
        value = _at(data, keys)
        if isinstance(value, float) and not math.isfinite(value):
            raise document.error(keys, f"{_name(keys)} is {value}: not a finite number.")
    return document


def read_value(text: str) -> Any:
    """One value as an experiment file would give it. Raises YamlError for what such a file may not have."""
    if len(text) > MOST:
        raise YamlError(1, f"a value of {len(text):,} characters; at most {MOST:,} are read")
    return parse(text)[0]


def convert(document: Document, kind: type[T]) -> T:
    """The document as a struct of type ``kind``. Raises RegistryError with file, line, value and valid choices."""
    try:
        return msgspec.convert(document.data, kind)
    except msgspec.ValidationError as error:
        keys, message = explain(error, document.data, kind)
        raise document.error(keys, message) from error


def explain(error: msgspec.ValidationError, data: Any, kind: Any) -> tuple[Keys, str]:
    """Where msgspec found fault (a key path) and a sentence with the offending value and the valid choices."""
    text = str(error)
    match = re.search(r" - at `(key in )?\$([^`]*)`$", text)
    keys = _named(_parse_path(match.group(2)), data, kind) if match else ()
    problem = text[: match.start()] if match else text
    parent = _at(data, keys)
    unknown = re.match(r"Object contains unknown field `(.*)`", problem)
    if unknown:
        choices = sorted(_fields(inspect.type_info(kind), data, keys))
        listed = f"unknown key {unknown.group(1)!r}. {_listing('Known keys', choices)}"
        return (*keys, unknown.group(1)), listed + did_you_mean(unknown.group(1), choices)
    missing = re.match(r"Object missing required field `(.*)`", problem)
    if missing:
        return keys, f"{_name(keys)} lacks the required key {missing.group(1)!r}."
    problem = problem.replace(f"matching regex {ONE_LINE!r}", "of one line")
    choices = _values(_node_type(inspect.type_info(kind), data, keys))
    where = f"{_name(keys)} is {shown(parent)}: " if keys else ""
    hint = why_unknown(parent) if keys[-2:] == ("loss", "name") else ""
    message = f"{where}{problem[0].lower()}{problem[1:]}."
    return keys, " ".join(filter(None, [message, _listing("Valid", choices), hint]))


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _listing(title: str, choices: list[str]) -> str:
    return f"{title}: {', '.join(choices)}." if choices else ""


def _name(keys: Keys) -> str:
    return ".".join(str(key) for key in keys) or "the file"


def _parse_path(text: str) -> tuple[str | int | None, ...]:
    """``.rows[3].set[...]`` as ("rows", 3, "set", None). None: some key of a mapping, which msgspec does not name."""
    parts = re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", text)
    return tuple(name or (None if index == "..." else int(index)) for name, index in parts)


def _named(path: tuple[str | int | None, ...], data: Any, kind: Any) -> Keys:
    """The path with the names of its keys: where msgspec names none, the first with which alone there is a fault."""
    keys: Keys = ()
    for part in path:
        if part is not None:
            keys = (*keys, part)
            continue
        entries = _at(data, keys)
        for name, value in entries.items() if isinstance(entries, dict) else ():
            alone = _with(data, keys, {name: value})
            try:
                msgspec.convert(alone, kind)
            except msgspec.ValidationError:
                data, keys = alone, (*keys, name)
                break
        else:
            return keys
    return keys


def _with(data: Any, keys: Keys, value: Any) -> Any:
    """The data with another value at a path that exists."""
    if not keys:
        return value
    changed = data.copy()
    changed[keys[0]] = _with(data[keys[0]], keys[1:], value)
    return changed


def _at(data: Any, keys: Keys) -> Any:
    for key in keys:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _node_type(info: Any, data: Any, keys: Keys) -> Any:
    """The declared type at ``keys``; in a union of tagged structs the tag in the data decides."""
    for key in keys:
        info = _choose(info, data)
        if isinstance(info, inspect.StructType):
            found = [item.type for item in info.fields if item.encode_name == key]
            if not found:
                # The tag itself: its valid values are those of the whole union.
                return info
            info = found[0]
        elif isinstance(info, inspect.DictType):
            info = info.value_type
        elif isinstance(info, inspect.ListType | inspect.VarTupleType):
            info = info.item_type
        elif isinstance(info, inspect.TupleType) and isinstance(key, int):
            info = info.item_types[min(key, len(info.item_types) - 1)]
        data = _at(data, (key,))
    return info


def _choose(info: Any, data: Any) -> Any:
    if isinstance(info, inspect.Metadata):
        return _choose(info.type, data)
    if not isinstance(info, inspect.UnionType):
        return info
    structs = [item for item in info.types if isinstance(item, inspect.StructType)]
    for item in structs:
        if isinstance(data, dict) and item.tag_field and data.get(item.tag_field) == item.tag:
            return item
    return structs[0] if len(structs) == 1 else info


def _fields(info: Any, data: Any, keys: Keys) -> set[str]:
    info = _choose(_node_type(info, data, keys), _at(data, keys))
    if not isinstance(info, inspect.StructType):
        return set()
    return {item.encode_name for item in info.fields} | ({info.tag_field} if info.tag_field else set())


def _values(info: Any) -> list[str]:
    """The literal values or tags that a type admits; empty where they cannot be listed."""
    if isinstance(info, inspect.Metadata):
        return _values(info.type)
    if isinstance(info, inspect.LiteralType):
        return [repr(value) for value in info.values]
    if isinstance(info, inspect.UnionType):
        return [value for item in info.types for value in _values(item)]
    if isinstance(info, inspect.StructType) and info.tag_field:
        return [f"{info.tag_field}: {info.tag}"]
    return []
