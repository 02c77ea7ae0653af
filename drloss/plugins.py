"""Losses from other packages: the entry points of the group ``drloss.losses``, each a ``LossSpec``. Free of torch.

``LossConfig`` is the type that msgspec validates: the built-in losses and those of installed packages. A package whose
loss cannot be used is set aside with one sentence that says why; it never stops a command that does not ask for it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from msgspec import Struct

from drloss import config as built_in
from drloss.config import LossSpec

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP: Final = "drloss.losses"


@dataclass(frozen=True)
class Plugin:
    """One loss of an installed package. ``spec`` is None where it cannot be used; ``problem`` says why."""

    name: str
    package: str  # of the distribution, as pip names it
    version: str
    spec: LossSpec | None
    problem: str
    distribution: Distribution | None = None

    @property
    def release(self) -> str:
        """``name==version`` of the package, which is part of a run's id."""
        return f"{self.package}=={self.version}"


@cache
def plugins() -> tuple[Plugin, ...]:
    """Every plug-in loss that is installed, usable or not, in the order of their names."""
    found = [(distribution, entry) for distribution in _distributions() for entry in _entries(distribution)]
    number = Counter(entry.name for _, entry in found)
    loaded = [_load(distribution, entry, number[entry.name]) for distribution, entry in found]
    return tuple(sorted(loaded, key=lambda plugin: (plugin.name, plugin.package)))


def plugin_of(config: Struct) -> Plugin | None:
    """The plug-in whose loss ``config`` is; None for a built-in loss."""
    return next((plugin for plugin in plugins() if plugin.spec and type(config) is plugin.spec.config), None)


def package_of(config: Struct) -> str | None:
    """``name==version`` of the package that a loss comes from; None for a built-in loss."""
    plugin = plugin_of(config)
    return plugin.release if plugin else None


def why_unknown(name: object) -> str:
    """Why the loss ``name`` cannot be used although a package declares it; empty where none does."""
    return " ".join(_sentence(plugin) for plugin in plugins() if plugin.name == name and plugin.problem)


def source_sha256(config: Struct) -> str | None:
    """The sha256 of the source of the package that a loss comes from; None for a built-in loss.

    Its Python files, in the order of their names: all of the distribution or, where it is installed in editable mode,
    those of the loss's top-level module.
    """
    plugin = plugin_of(config)
    return _source_sha256(plugin) if plugin else None


def _sentence(plugin: Plugin) -> str:
    return f"The loss {plugin.name!r} of {plugin.release} cannot be used: {plugin.problem}."


def _distributions() -> Iterator[Distribution]:
    """Installed packages that have losses.

    importlib.metadata takes 30 ms to import, so it is imported only where a file on the path mentions the group.
    """
    if not any(map(_mentions_group, sys.path)):
        return
    from importlib.metadata import distributions

    seen = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        # Of two versions on the path, Python imports the first.
        if name not in seen and any(True for _ in _entries(distribution)):
            seen.add(name)
            yield distribution


def _mentions_group(folder: str) -> bool:
    """Whether the metadata of a package in ``folder`` names the group. Plain calls: every command waits for this."""
    try:
        names = os.listdir(folder or ".")
    except OSError:  # a zip file, or a folder that is not there
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            with suppress(OSError), open(f"{folder or '.'}/{name}/entry_points.txt", "rb") as file:
                if GROUP.encode() in file.read():
                    return True
    return False


def _entries(distribution: Distribution) -> Iterator[EntryPoint]:
    return (entry for entry in distribution.entry_points if entry.group == GROUP)


def _load(distribution: Distribution, entry: EntryPoint, number: int) -> Plugin:
    """Import the spec and look at it. Whatever goes wrong in another package is its problem, not the command's."""
    spec: Any = None
    try:
        if number > 1:
            problem = f"{number} installed packages declare it"
        elif entry.name in _built_in_names():
            problem = "a built-in loss has this name"
        else:
            spec = entry.load()
            problem = _problem(entry, spec)
    except Exception as error:
        problem = f"{entry.value} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
    usable = None if problem else spec
    return Plugin(entry.name, distribution.metadata["Name"], distribution.version, usable, problem, distribution)


def _built_in_names() -> set[object]:
    return {kind.__struct_config__.tag for kind in get_args(built_in.LossConfig)}


def _problem(entry: EntryPoint, spec: Any) -> str:
    """What is wrong with a spec, or an empty text."""
    if not isinstance(spec, LossSpec):
        return f"{entry.value} is a {type(spec).__name__}, not a drloss.config.LossSpec"
    if spec.name != entry.name:
        return f"its LossSpec has the name {spec.name!r}, its entry point {entry.name!r}; they must be equal"
    kind = spec.config
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return f"its config is {kind!r}, not a msgspec Struct"
    settings = kind.__struct_config__
    if not (settings.frozen and settings.forbid_unknown_fields):
        return f"{kind.__name__} must be declared with frozen=True and forbid_unknown_fields=True"
    if settings.tag_field != "name" or settings.tag != spec.name:
        return f'{kind.__name__} must be declared with tag_field="name" and tag="{spec.name}"'
    msgspec.json.schema(built_in.LossConfig | kind)  # raises where the types of its fields cannot be validated
    return ""


def _union(kinds: Iterable[type[Struct]]) -> Any:
    return reduce(or_, kinds, built_in.LossConfig)


@cache
def _source_sha256(plugin: Plugin) -> str:
    import hashlib

    assert plugin.spec is not None
    assert plugin.distribution is not None
    root = sys.modules[plugin.spec.config.__module__.partition(".")[0]]
    digest = hashlib.sha256()
    for name, path in sorted(_sources(plugin.distribution, root)):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(distribution: Distribution, root: ModuleType) -> list[tuple[str, Path]]:
    """Name and path of each Python file of a distribution, or of its module ``root`` where that lies elsewhere."""
    listed = [(file.as_posix(), Path(str(file.locate()))) for file in distribution.files or () if file.suffix == ".py"]
    sources = [(name, path) for name, path in listed if path.is_file()]
    file = Path(str(root.__file__)).resolve()
    if any(path.resolve() == file for _, path in sources):
        return sources
    if file.name != "__init__.py":
        return [(file.name, file)]
    return [(path.relative_to(file.parents[1]).as_posix(), path) for path in file.parent.rglob("*.py")]


if TYPE_CHECKING:
    LossConfig = built_in.LossConfig
else:
    LossConfig = _union(plugin.spec.config for plugin in plugins() if plugin.spec)
