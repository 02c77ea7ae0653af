"""Templates filled in, and files that are written once: nothing is ever overwritten."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from detector.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


def checked_name(name: str) -> str:
    """The name, where it is one. Raises UsageError: it becomes a file's name and a word of commands."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a name: letters, digits and single dashes between them, such as my-name-2."
        )
    return name


def check_unused(kind: str, name: str, known: Mapping[str, object] | set[str]) -> None:
    """Raises UsageError for a name that is taken."""
    if name in known:
        raise UsageError(f"There is already a {kind} {name!r}. Taken: {', '.join(sorted(known))}. Choose another name.")


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of ``templates/<template>.j2``; a value that the template names and nobody gives is an error."""
    return _environment().get_template(f"{template}.j2").render(values)


def write_new(path: Path, text: str) -> None:
    """Write a file that was not there. Raises UsageError where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists, and nothing is overwritten. Choose another name, or --out DIR.") from None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("harness.scaffold"),
        undefined=StrictUndefined,
        autoescape=False,  # YAML and Python, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    environment.filters["number"] = _number
    environment.filters["spread"] = lambda values: ", ".join(map(_number, values))
    return environment


def _quoted(text: str) -> str:
    """One line in double quotes, which YAML, TOML and Python read back as it was."""
    return json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    """A number as a person writes it: 120 and 0.0125, not 120.0 or 0.012500000000000001."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
