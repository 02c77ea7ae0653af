"""A row resolved at a scale: every setting, and where its value comes from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Resolution:
    """Merged settings as plain data, and per dotted path where the value comes from."""

    settings: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def copy(self) -> Resolution:
        """An independent copy."""
        return Resolution(copy.deepcopy(self.settings), dict(self.origins))

    def put(self, path: str, value: Any, origin: str) -> None:
        """Set one dotted path; a mapping is merged unless its tag (``name``, ``source``) differs."""
        *parents, key = path.split(".")
        node = self.settings
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                node[parent] = {}  # a value in the place of a block: what the block then lacks is named
            node = node[parent]
        before = node.get(key)
        if isinstance(value, Mapping):
            if not isinstance(before, dict) or _tag(before) != _tag(value):
                self._forget(path)
                node[key] = {}
            for inner, inner_value in value.items():
                self.put(f"{path}.{inner}", inner_value, origin)
        else:
            node[key] = list(value) if isinstance(value, (list, tuple)) else value
            self.origins[path] = origin

    def get(self, path: str) -> Any:
        """The value at a dotted path, or None."""
        node: Any = self.settings
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def _forget(self, path: str) -> None:
        for other in [name for name in self.origins if name.startswith(f"{path}.")]:
            del self.origins[other]


def _tag(mapping: Mapping[str, Any]) -> Any:
    return mapping.get("name", mapping.get("source"))
