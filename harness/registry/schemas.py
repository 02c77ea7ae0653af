"""The JSON Schema of an experiment file, for editors; it knows every loss that is installed."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from harness.registry.declarations import ResolvedSettings

# Structs with settings of a recipe, under this field: any part of them, since they are laid over others.
_PARTIAL = {"RecipeFile": "settings", "Row": "set"}


def file_schema(kind: type[Struct]) -> dict[str, Any]:
    """The schema of a file that holds a ``kind``. Settings of a recipe or row may be given in part."""
    (root,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    _, settings = msgspec.json.schema_components([ResolvedSettings], ref_template="#/$defs/{name}")
    open_fields = [(name, field) for name, field in _PARTIAL.items() if name in parts]
    if open_fields:
        blocks = settings.pop("ResolvedSettings")["properties"]
        parts = {name: _without_required(part) for name, part in settings.items()} | parts
        for name, field in open_fields:
            # A row's keys may also be dotted paths, so that no further key is forbidden there.
            parts[name]["properties"][field] |= {"type": "object", "properties": blocks}
            parts[name]["properties"][field].pop("additionalProperties", None)
    return root | {"$defs": parts}


def _without_required(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "required"}
