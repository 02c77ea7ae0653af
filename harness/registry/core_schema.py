"""YAML 1.2's core schema, read from libyaml's events: null, booleans, numbers and text; nothing else exists.

PyYAML composes recursively and knows YAML 1.1, in which 4:30 is 270, 0400 is 256 and ``on`` is true. Its events come
one by one, so that depth, aliases and numbers are bounded before anything is built.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml import events

from detector.storage.reading import DEPTH, DIGITS

Keys = tuple[str | int, ...]

NODES: Final = 100_000  # values of one file, each alias counted with all that it repeats
_SHOWN: Final = 60  # characters of a value in a message
_CORE: Final = "tag:yaml.org,2002:"
_NULL = ("", "~", "null", "Null", "NULL")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL, _HEXADECIMAL = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE, _NAN = re.compile(r"[-+]?\.(inf|Inf|INF)"), (".nan", ".NaN", ".NAN")
# What YAML does not allow in a file (section 5.1): control characters, lone surrogates, two that are no characters.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """What is wrong, and ``line`` (from 1)."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass
class _Open:
    """A list or mapping whose end has not come yet."""

    value: Any
    keys: Keys
    line: int
    anchor: str | None
    nodes_before: int
    key: str | None = None  # of a mapping: the key whose value comes next
    depth_inside: int = 0  # of the deepest value


@dataclass
class _Anchored:
    value: Any
    nodes: int
    depth: int  # of lists and mappings in one another, its own included


@dataclass
class _Reader:
    lines: dict[Keys, int] = field(default_factory=dict)
    anchors: dict[str, _Anchored | None] = field(default_factory=dict)  # None: its value is not whole yet
    stack: list[_Open] = field(default_factory=list)
    nodes: int = 0
    root: Any = None

    def take(self, event: Any) -> None:
        """One event. Raises YamlError."""
        line = event.start_mark.line + 1
        if isinstance(event, events.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, events.AliasEvent):
            self._alias(str(event.anchor), line)
        elif isinstance(event, events.CollectionStartEvent):
            self._begin(event, line)
        elif isinstance(event, events.CollectionEndEvent):
            self._end()

    def _scalar(self, event: Any, line: int) -> None:
        inside = self.stack[-1] if self.stack else None
        if inside is not None and isinstance(inside.value, dict) and inside.key is None:
            self._key(inside, event, line)
            return
        value = _value(event.value, event.tag, plain=event.implicit[0], line=line)
        self._count(1, line)
        self._put(value, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, 1, 0)

    def _key(self, inside: _Open, event: Any, line: int) -> None:
        # A key is the text as written: ``on``, ``no`` and ``1`` are names like any other.
        key = event.value
        if event.tag not in (None, "!", f"{_CORE}str"):
            raise YamlError(line, f"a key has the tag {_cut(event.tag)}; keys are text")
        if event.anchor is not None:
            raise YamlError(line, f"the key {_cut(key)} has an anchor; only values may be repeated")
        keys = (*inside.keys, key)
        if key in inside.value:
            raise YamlError(line, f"key {_cut(key)} is written twice (first in line {self.lines[keys]})")
        self.lines[keys] = line
        inside.value[key] = None  # so that the order is the file's
        inside.key = key

    def _begin(self, event: Any, line: int) -> None:
        kind: type = dict if isinstance(event, events.MappingStartEvent) else list
        expected = f"{_CORE}{'map' if kind is dict else 'seq'}"
        if event.tag not in (None, "!", expected):
            raise YamlError(line, f"unknown tag {_cut(event.tag)}; the values of YAML 1.2 need none")
        if len(self.stack) >= DEPTH:
            raise YamlError(line, f"lists and mappings are nested more than {DEPTH} deep")
        value, keys = kind(), self._place(line)
        self.lines.setdefault(keys, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Open(value, keys, line, event.anchor, self.nodes))
        self._count(1, line)

    def _end(self) -> None:
        ended = self.stack.pop()
        depth = ended.depth_inside + 1
        if ended.anchor is not None:
            self.anchors[ended.anchor] = _Anchored(ended.value, self.nodes - ended.nodes_before, depth)
        self._put(ended.value, ended.line, depth=depth)

    def _alias(self, name: str, line: int) -> None:
        if name not in self.anchors:
            raise YamlError(line, f"*{name} repeats something that no &{name} before it names")
        found = self.anchors[name]
        if found is None:
            raise YamlError(line, f"*{name} stands inside of &{name}, which would contain itself")
        if len(self.stack) + found.depth > DEPTH:
            raise YamlError(line, f"*{name} makes lists and mappings that are nested more than {DEPTH} deep")
        self._place(line)
        self._count(found.nodes, line)
        self._put(copy.deepcopy(found.value), line, depth=found.depth)

    def _place(self, line: int) -> Keys:
        """Where the next value goes. Raises YamlError where it would be a key."""
        if not self.stack:
            return ()
        inside = self.stack[-1]
        if isinstance(inside.value, list):
            return (*inside.keys, len(inside.value))
        if inside.key is None:
            raise YamlError(line, "a key is a list, a mapping or an alias; keys are text")
        return (*inside.keys, inside.key)

    def _put(self, value: Any, line: int, *, depth: int = 0) -> None:
        self.lines.setdefault(self._place(line), line)
        if not self.stack:
            self.root = value
            return
        inside = self.stack[-1]
        inside.depth_inside = max(inside.depth_inside, depth)
        if isinstance(inside.value, list):
            inside.value.append(value)
        else:
            inside.value[inside.key] = value
            inside.key = None

    def _count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > NODES:
            raise YamlError(line, f"more than {NODES:,} values, each alias counted with all that it repeats")


def parse(text: str) -> tuple[Any, dict[Keys, int]]:
    """One document as plain data, and the line of every key path; an empty one is None. Raises YamlError."""
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise YamlError(line, f"the character U+{ord(bad.group()):04X}, which no YAML file may have")
    reader, documents = _Reader(), 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, events.DocumentStartEvent):
                documents += 1
                _check_start(event, documents)
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 1, f"not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise YamlError(1, f"not valid YAML: {error}") from error
    except RecursionError as error:  # of a parser without libyaml
        raise YamlError(1, f"lists and mappings are nested more than {DEPTH} deep") from error
    return reader.root, reader.lines


def _check_start(event: Any, documents: int) -> None:
    line = event.start_mark.line + 1
    if documents > 1:
        raise YamlError(line, "a second document ('---') begins; one is read")
    if event.version is not None and tuple(event.version) != (1, 2):
        raise YamlError(line, f"%YAML {'.'.join(map(str, event.version))}; values are read as YAML 1.2 has them")


def _value(text: str, tag: str | None, *, plain: bool, line: int) -> Any:
    """A scalar's value: by the core schema where it is plain, by its tag where it has one, else text."""
    if tag is None:
        return _resolved(text, line) if plain else text
    if tag in ("!", f"{_CORE}str"):
        return text
    kinds: dict[str, tuple[type, ...]] = {"null": (type(None),), "bool": (bool,), "int": (int,), "float": (int, float)}
    wanted = kinds.get(tag.removeprefix(_CORE)) if tag.startswith(_CORE) else None
    if wanted is None:
        raise YamlError(line, f"unknown tag {_cut(tag)}; the values of YAML 1.2 need none")
    value = _resolved(text, line)
    if type(value) not in wanted:
        raise YamlError(line, f"{_cut(text)} is not what its tag says, {tag.removeprefix(_CORE)}")
    return float(value) if tag == f"{_CORE}float" else value


def _resolved(text: str, line: int) -> Any:
    """Plain text as the core schema reads it (YAML 1.2, section 10.3.2)."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text[0] not in "+-.0123456789":
        return text
    if text in _NAN:
        return math.nan
    if _INFINITE.fullmatch(text):
        return -math.inf if text[0] == "-" else math.inf
    bases = ((_INT, 10), (_OCTAL, 8), (_HEXADECIMAL, 16))
    base = next((base for pattern, base in bases if pattern.fullmatch(text)), None)
    if base is None and not _FLOAT.fullmatch(text):
        return text
    if len(text) > DIGITS:
        raise YamlError(line, f"a number of {len(text):,} digits; at most {DIGITS} are read")
    if base is not None:
        return int(text if base == 10 else text[2:], base)
    value = float(text)
    if math.isinf(value):
        raise YamlError(line, f"{_cut(text)} is too large for a number")
    return value


def _cut(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
