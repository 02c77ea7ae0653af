"""Which code runs: version, commit, and what was edited since."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

from detector.runs.record import Code
from harness.code.snapshot import PACKAGES
from harness.folders import checkout

DISTRIBUTION = "drloss-harness"


def current_code(diff: str = "") -> Code:
    """The version that is installed and, in a checkout, the commit and what differs from it."""
    folder = checkout()
    found = _git(folder, "rev-parse", "--verify", "HEAD") if folder and (folder / ".git").exists() else None
    commit = found.strip() or None if found else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if folder and commit else None
    return Code(
        version=version(DISTRIBUTION),
        commit=commit,
        modified=None if changes is None else bool(changes),
        diff_sha256=hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    )


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it cannot. A difference is no error, although git then exits with 1."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode in (0, 1) else None


def difference() -> str:
    """In what git says that the packages differ from the commit, new files too; "" outside a checkout."""
    folder = checkout()
    if folder is None or not (folder / ".git").exists():
        return ""
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *PACKAGES) or ""
    changed = _git(folder, "diff", "HEAD", "--", *PACKAGES) or ""
    added = [_git(folder, "diff", "--no-index", "--", os.devnull, name) or "" for name in new.split("\0") if name]
    return "".join([changed, *added])
