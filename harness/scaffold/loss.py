"""``harness new loss``: a small package that adds a loss through the entry-point group ``drloss.losses``."""

from __future__ import annotations

import keyword
import os
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from detector.errors import UsageError
from detector.storage.staging import staged_folder
from drloss.config import LossConfig
from harness.scaffold.render import checked_name, render, write_new

GROUP = "drloss.losses"  # of entry points
FILES = {
    "pyproject.toml": "loss_pyproject.toml",
    "{module}/__init__.py": "loss_init.py",
    "{module}/loss.py": "loss_module.py",
    "tests/test_{module}.py": "loss_test.py",
}


def new_loss(parent: Path, name: str) -> Path:
    """Write the package's folder ``parent/NAME``, whole or not at all.

    Raises UsageError for a name that cannot be a module's or that is taken: by a folder, a loss or a module.
    """
    module = module_name(name)
    folder = parent / name
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists, and nothing is overwritten. Choose another name, or --out DIR.")
    values = {"name": name, "module": module, "class_name": "".join(part.capitalize() for part in name.split("-"))}
    with staged_folder(folder) as staging:
        for path, template in FILES.items():
            write_new(staging / path.format(module=module), render(template, values))
    return folder


def module_name(name: str) -> str:
    """The Python name of the package and the recipe's name of its loss. Raises UsageError as ``new_loss``."""
    module = checked_name(name).lower().replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageError(f"{name!r} cannot be a Python package's name: begin it with a letter, such as my-{name}.")
    if module in _loss_names() or find_spec(module) is not None:
        raise UsageError(f"{name!r} is the name of another loss or package. Choose another one, such as my-{name}.")
    return module


def row_of(name: str) -> str:
    """A row of a table that trains with the loss, as it is written below ``rows:``."""
    return render("loss_row.yaml", {"name": name, "module": module_name(name)}).rstrip("\n")


def _loss_names() -> set[str]:
    """Names of losses that are known here: the built-in ones, and those of other packages."""
    from importlib.metadata import entry_points

    return {kind.__struct_config__.tag for kind in get_args(LossConfig)} | entry_points(group=GROUP).names
