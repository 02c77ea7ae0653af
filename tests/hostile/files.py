"""Special files, and content that is bad in the same way for every reader of JSON or of any file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ALARM = "\x1b]0;owned\x07\r\x08"  # sets a terminal's title, goes back, deletes


def pipe(path: Path) -> None:
    """A named pipe, for which a plain open waits for ever."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path) -> None:
    """A folder where a file is expected."""
    path.unlink(missing_ok=True)
    path.mkdir()


def zeros(path: Path) -> None:
    """A link to a device that never ends."""
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    """A link to itself."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    """A link to nothing."""
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


SPECIAL: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("a named pipe", pipe),
    ("a folder", folder),
    ("a link to /dev/zero", zeros),
    ("a link to itself", loop),
)
# Bytes that are no JSON object of any kind, or bad as JSON whatever it should hold.
NOT_JSON: tuple[tuple[str, bytes], ...] = (
    ("an empty file", b""),
    ("zero bytes", bytes(512)),
    ("text", b"not json"),
    ("HTML", b"<!DOCTYPE html><html>404</html>"),
    ("bytes that are not UTF-8", b'{"a": "\xff\xfe"}'),
    ("an open bracket", b"{"),
    ("100,000 brackets", b"[" * 100_000),
    ("100,000 objects in one another", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("a number of 200,000 digits", b'{"a": ' + b"9" * 200_000 + b"}"),
    ("half a surrogate pair as a key", b'{"\\ud800": 1}'),
    ("a number alone", b"7"),
    ("null", b"null"),
    ("a list of nulls", b"[null, null]"),
    ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00"),
    ("UTF-16", "{}".encode("utf-16")),
    ("a control sequence", b"\x1b]0;owned\x07"),
)
