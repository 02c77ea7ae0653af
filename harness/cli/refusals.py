"""What is said of an error of the operating system: the file, its reason, and what to change."""

from __future__ import annotations

import errno
import os
import sys
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from harness.folders import elsewhere_text, refused_text

# What another folder would mend. A path of no variable's is an argument, which its user sees.
_ELSEWHERE = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ENAMETOOLONG, errno.EFBIG),
        *(errno.ESTALE, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.EMLINK, errno.ENOTSUP, errno.ENOENT),
    )
)


def refusal(error: OSError) -> str:
    """``FILE: what the system says``; two files where it refused to bring one to the place of the other.

    Where it is a matter of permissions, also whose the file is and what to do. Where the file lies in a folder that an
    environment variable or an option (``--out``) names, that name.
    """
    if isinstance(error, PermissionError) and isinstance(error.filename, str | os.PathLike):
        path = os.fspath(error.filename)
        return f"{path}: {error.strerror}. {refused_text(Path(path))}{_another(path)}"
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    files = " to ".join(map(os.fsdecode, names))
    if not error.strerror:
        return str(error)
    if not files and _was_printing(error.__traceback__):
        return f"What this command prints could not be written: {error.strerror}."
    return f"{files}: {error.strerror}{_other_folder(error)}" if files else error.strerror


def _was_printing(trace: TracebackType | None) -> bool:
    """Whether the last call was that which writes to the standard output or to stderr."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_name == "echo"


def _other_folder(error: OSError) -> str:
    """A sentence with the variable that names another folder, where the system refused to write into that one."""
    names = [name for name in (error.filename2, error.filename) if isinstance(name, str | os.PathLike)]
    if error.errno not in _ELSEWHERE:
        return ""
    found = (elsewhere_text(Path(os.fspath(name))) or _another(os.fspath(name)) for name in names)
    elsewhere = next(filter(None, found), "")
    return f".{elsewhere}" if elsewhere else ""


def _another(path: str | bytes) -> str:
    """`` Give another --out.`` for a path that lies in what an option of the command line names, or above it."""
    place = Path(os.path.abspath(os.fsdecode(path)))
    for option, value in pairwise(sys.argv[1:]):
        given = Path(os.path.abspath(value))
        if option.startswith("--out") and (given in (place, *place.parents) or place in given.parents):
            return f" Give another {option}."
    return ""
