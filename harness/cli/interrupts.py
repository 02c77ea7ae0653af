"""Ctrl-C from the first moment on: exit code 130, and no traceback. Imports nothing that is slow.

An interruption that Python raises amid an import ends in a traceback, or is swallowed: libraries in C take it for a
failed import of another library and go on. So while modules are loaded the process ends at once.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

CODE = 130  # as shells give it
_IMPORTING = "<frozen importlib._bootstrap"
_SHOW_CURSOR = b"\x1b[?25h"  # a bar hides it


def listen() -> None:
    """Handle Ctrl-C here, unless somebody else does already. In another thread than the main one nothing changes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _handle_with(_interrupted)


def run(command: Callable[[], object]) -> NoReturn:
    """Run the command and exit: with 130 where Ctrl-C ends it and it has no answer of its own."""
    listen()
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(CODE)
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupted:
            _handle_with(_end)  # what is left is Python's own end
    sys.exit(0)


def _handle_with(handler: Callable[[int, FrameType | None], object]) -> None:
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # this is not the main thread
        return


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Children must be told to stop, which is for those who started them.
    if _is_importing(frame) and not _has_children():
        _end(number, frame)
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> NoReturn:
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _SHOW_CURSOR + b"\n")
    os._exit(CODE)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # ChildProcessError: there is none
        return False
    return True
