"""Processes of a training that stop at a word, as under a lock that never opens: no Python of theirs runs any more.

A folder on PYTHONPATH has a ``sitecustomize`` that waits for a file and then holds the interpreter's lock for ever. The
file is removed first, so the process hangs in one start only.
"""

from __future__ import annotations

from pathlib import Path

_SITECUSTOMIZE = """\
import os
import sys
import threading

FOLDER = {folder!r}
NAME = "hang-%s-%s" % (
    os.environ.get("SLURM_ARRAY_TASK_ID", "0"), os.environ.get("SLURM_PROCID", os.environ.get("RANK", "0"))
)


def wait_and_hang():
    import ctypes
    import signal
    import time

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    path = os.path.join(FOLDER, NAME)
    while not os.path.exists(path):
        time.sleep(0.02)
    os.unlink(path)
    ctypes.PyDLL(None).sleep(100000)


if {modules!r} & set(sys.orig_argv):
    threading.Thread(target=wait_and_hang, name="hang", daemon=True).start()
"""


def write_hang(folder: Path, *modules: str) -> None:
    """Prepare a folder that is to stand on PYTHONPATH. modules: processes of ``python -m MODULE`` look for the word."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(folder=str(folder), modules=set(modules)))


def hang(folder: Path, rank: int, *, index: int = 0) -> Path:
    """Let the process of that rank hang. index: of the job in its array. Returns the file, which is gone then."""
    path = folder / f"hang-{index}-{rank}"
    path.touch()
    return path
