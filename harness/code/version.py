"""Which code runs: its version, its commit, and the edits since."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from detector.runs.code import Code
from harness.code.snapshot import PACKAGES
from harness.folders import checkout

DISTRIBUTION = "drloss-harness"


def current_code(diff: str = "") -> Code:
    """The installed version and, in a checkout, the commit and whether files differ from it. diff: ``difference()``."""
    folder = checkout()
    found = _git(folder, "rev-parse", "--verify", "HEAD") if folder and (folder / ".git").exists() else None
    commit = found.strip() or None if found else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if folder and commit else None
    return Code(
        version=installed_version(),
        commit=commit,
        modified=None if changes is None else bool(changes),
        diff_sha256=hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    )


def installed_version() -> str:
    """The installed version; of sources that are not installed, the one that they declare, marked as such."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        folder = checkout()
        declared = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"] if folder else "unknown"
        return f"{declared} (not installed)"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails. Exit code 1 is no failure: ``git diff --no-index`` means a difference."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode in (0, 1) else None


def difference() -> str:
    """git's diff of the packages from the commit, with new files; "" outside a checkout."""
    folder = checkout()
    if folder is None or not (folder / ".git").exists():
        return ""
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *PACKAGES) or ""
    changed = _git(folder, "diff", "HEAD", "--", *PACKAGES) or ""
    added = [_git(folder, "diff", "--no-index", "--", os.devnull, name) or "" for name in new.split("\0") if name]
    return "".join([changed, *added])
