"""A command in a real terminal of a given width: what comes out, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def in_terminal(
    arguments: Sequence[str],
    width: int,
    *,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    type_after: tuple[str, bytes] | None = None,
    seconds: float = 240,
) -> tuple[str, int]:
    """``harness`` with these arguments on a terminal of ``width`` columns. Returns its text and its exit code.

    type_after: a text, and what is typed once it has been printed. Raises TimeoutError after ``seconds``.
    """
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", **(variables or {})}
    environment.pop("COLUMNS", None)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        os.execve(sys.executable, [sys.executable, "-m", "harness.cli", *arguments], environment)
    printed, typed, end = b"", False, time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([terminal], [], [], 1.0)
            if not ready:
                continue
            try:
                new = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that the other side has gone
                break
            if not new:
                break
            printed += new
            if type_after is not None and not typed and type_after[0].encode() in printed:
                os.write(terminal, type_after[1])
                typed = True
        else:
            os.kill(process, 9)
            raise TimeoutError(f"{' '.join(arguments)}: not done after {seconds} s: {printed[-500:]!r}")
    finally:
        os.close(terminal)
        _, status = os.waitpid(process, 0)
    return printed.decode(errors="replace").replace("\r\n", "\n"), os.waitstatus_to_exitcode(status)
