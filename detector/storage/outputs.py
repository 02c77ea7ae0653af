"""Where results may go: nothing that is there is overwritten unasked, and no path comes from a file's content."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from detector.errors import HarnessError, UsageError
from detector.storage.reading import kind_of_file

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def claim_file(path: Path, *, force: bool = False) -> Path:
    """``path``, if a result may be written there. Raises UsageError naming what is there.

    force: the user asked for it; then a regular file may be replaced, and anything else still may not.
    """
    if holds_file(path) and not force:
        raise UsageError(f"{path} exists and is not overwritten. Name another file, or add --force.")
    return path


def claim_folder(path: Path) -> Path:
    """``path``, if it is not there yet or an empty folder. Raises UsageError otherwise."""
    mode = _mode(path)
    if mode is None or (stat.S_ISDIR(mode) and not any(path.iterdir())):
        return path
    if stat.S_ISLNK(mode):
        raise UsageError(f"{path} is a link and is not replaced. Name another folder, or the one that it leads to.")
    raise UsageError(f"{path} exists and is not overwritten. Name a folder that does not exist yet.")


def holds_file(path: Path) -> bool:
    """Whether a regular file is there. Raises UsageError for anything else that is: it is never replaced.

    A rename would put a plain file in the place of a device (as root, of /dev/null), a named pipe or a link.
    """
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else kind_of_file(mode)
        raise UsageError(f"{path} is {what} and is not replaced. Name another file.")
    return mode is not None


def _mode(path: Path) -> int | None:
    """Of what is there itself, not of what a link leads to; None where nothing is."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def path_part(text: str, what: str, *, raises: type[HarnessError] = UsageError) -> str:
    """``text``, if it is a plain name for a file or folder: letters, digits, and ``._+-`` inside it.

    what: of which field it is, for the error.
    """
    if not _PART.fullmatch(text):
        raise raises(f"{what} {text!r} cannot be part of a path: letters, digits and ._+- are allowed.")
    return text


def leaves(root: Path, path: Path) -> bool:
    """Whether ``path``, once its links are followed, is not below ``root``: such a file is not copied out unasked."""
    return not os.path.realpath(path).startswith(os.path.join(os.path.realpath(root), ""))
