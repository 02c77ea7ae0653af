"""The loss package of docs/losses.md, installed into a folder of its own without a network."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "losses.md"
FILES = ("pyproject.toml", "running_focal/__init__.py", "running_focal/loss.py", "tests/test_loss.py")
LOSS = "running_focal"


def write_package(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """The files that the page shows, each text of ``changes`` replaced by another."""
    text = PAGE.read_text(encoding="utf-8")
    for name in FILES:
        found = re.search(rf"^```\w+\n# {re.escape(name)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert found, f"{PAGE} shows no {name}"
        content = found.group(1)
        for old, new in (changes or {}).items():
            content = content.replace(old, new)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def install(source: Path, site: Path) -> Path:
    """Build the wheel and unpack it, as pip does; ``site`` is to be on the module path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(source / "dist")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    wheel.unlink()
    return site


def install_package(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """The page's package, changed, in the folder ``folder/site``."""
    return install(write_package(folder / "source", changes), folder / "site")
