"""A weights file's content as plain data and tensors, whatever its name says and without running code from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from detector.errors import WeightsError
from detector.storage.reading import open_regular
from detector.weights.archives import LEGACY, ZIP, read_archive, read_legacy
from detector.weights.pickles import RefusedGlobalError, read_pickle

KINDS: Final = "a PyTorch checkpoint (.pth, .pt) or a pickle of numpy arrays (.pkl)"
_SHOWN: Final = 200  # letters of what a file says


def read_content(path: Path) -> tuple[Any, str]:
    """What the file holds, and the sha256 of its bytes in hexadecimal.

    Raises WeightsError for a missing, empty or damaged file, for another kind of file, and for one that would run code.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weights file. Name {KINDS}.")
    if not path.exists():
        raise WeightsError(f"There is no weights file {path}. Name {KINDS}.")
    with open_regular(path, raises=WeightsError) as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise WeightsError(f"{path} is empty. Copy or download it again.")
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        head = stream.read(len(LEGACY))
        stream.seek(0)
        return _read(_reader_of(head), stream, size, path), sha256


def _reader_of(head: bytes) -> Callable[[BinaryIO, int], Any]:
    if head.startswith(ZIP):
        return read_archive
    return read_legacy if head == LEGACY else read_pickle


def _read(read: Callable[[BinaryIO, int], Any], stream: BinaryIO, size: int, path: Path) -> Any:
    try:
        return read(stream, size)
    except RefusedGlobalError as error:
        raise _would_run(path, str(error)) from error
    except OSError:  # of the disk: open_regular says so
        raise
    except Exception as error:  # any byte string is a program to the unpickler, and fails in its own way
        raise _damaged(path, error) from error


def _would_run(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"{path} is refused: it asks for {_shown(name)}, which is neither a tensor nor plain data and could run code. "
        "Nothing of it was run. Save the tensors alone, as a state dict."
    )


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = _shown(str(error).strip().rstrip(".")) or type(error).__name__
    return WeightsError(f"{path} is damaged or no weights file ({reason}). Expected {KINDS}.")


def _shown(text: str) -> str:
    """One short line of a text that may be the file's."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text.split("\n")[0][:_SHOWN])
    return line + ("..." if len(text) > _SHOWN else "")
