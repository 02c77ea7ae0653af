"""The report on the disk: a folder, or one file; what is not ours is never replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from detector.errors import UsageError
from detector.storage.files import write_atomic
from detector.storage.reading import first_bytes
from harness.report.page.page import GENERATOR, Page, html

MARKER: Final = ".harness-report"  # in a folder that we may replace
PAGE: Final = "index.html"
_BEGINNING: Final = f"<!doctype html>\n<!-- made by {GENERATOR} -->\n"


@dataclass(frozen=True)
class Written:
    """The page's file, how many bytes were written in all, and how many files."""

    page: Path
    size: int
    files: int


def check_out(out: Path, *, single_file: bool) -> None:
    """Raises UsageError where ``out`` is there and is not a report of ours, before any work is done for it.

    Also where it cannot be made, and where it is the folder that the command runs in: that one is replaced.
    """
    if single_file:
        _check_file(out)
    else:
        _check_folder(out)
    _check_parent(out)


def _check_file(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"--single-file writes one page: --out must end in .html; got {out}. Such as --out report.html"
        )
    if out.is_dir():
        raise UsageError(f"{out} is a folder, and --single-file writes one page. Choose another name for --out.")
    beginning, there = _BEGINNING.encode(), out.exists() or out.is_symlink()
    if there and first_bytes(out, len(beginning), raises=UsageError) != beginning:
        raise UsageError(f"{out} is not a page of 'harness report', and is not replaced. Choose another --out.")


def _check_folder(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, and a report is a folder. Choose another --out, or add --single-file.")
    if any(out.iterdir()) and not (out / MARKER).is_file():
        raise UsageError(
            f"{out} has files and is not a report of ours (no {MARKER} in it), so that it is not replaced. "
            "Choose a new or an empty folder for --out."
        )
    if Path.cwd().is_relative_to(os.path.realpath(out)):
        raise UsageError(
            f"{out} is the folder that you are in, or around it, and a report replaces its folder as a whole. "
            "Choose another --out, such as --out report."
        )


def _check_parent(out: Path) -> None:
    """The folder beside which ``out`` is made: the nearest that is there."""
    parent = next(folder for folder in Path(os.path.realpath(out)).parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise UsageError(f"{parent} is a file, so that {out} cannot be made in it. Choose another --out.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written in {parent} by this user. Choose another --out than {out}.")


def write(page: Page, out: Path, *, single_file: bool) -> Written:
    """Write the report. What was there stays whole until the new one is. Raises UsageError as ``check_out``."""
    check_out(out, single_file=single_file)
    if single_file:
        content = page_bytes(page, whole=True)
        write_atomic(out, content)
        return Written(out, len(content), 1)
    found: dict[str, bytes] = {PAGE: page_bytes(page, whole=False), MARKER: f"{GENERATOR}\n".encode()}
    found |= {f"data/{name}": text.encode("utf-8", "replace") for name, text in page.data.items()}
    _swap_in(found, Path(os.path.realpath(out)))
    return Written(out / PAGE, sum(map(len, found.values())), len(found) - 1)


def page_bytes(page: Page, *, whole: bool) -> bytes:
    """The page as it is written."""
    text = html(page, whole=whole)
    assert text.startswith(_BEGINNING), "the template begins with the line by which a page is known as ours"
    return text.encode("utf-8", "replace")


def _swap_in(found: Mapping[str, bytes], out: Path) -> None:
    """Write to a new folder beside ``out``, then move: a crash leaves the old one whole, at most under another name."""
    new, old = (out.with_name(f".{out.name}.{kind}-{os.getpid()}") for kind in ("new", "old"))
    try:
        for name, content in found.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        if out.exists():
            out.rename(old)
        new.rename(out)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
