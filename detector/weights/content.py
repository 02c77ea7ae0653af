"""A weights file's content as plain data and tensors, whatever its name says and without running code from it."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch

from detector.errors import WeightsError
from detector.weights.pickles import RefusedGlobalError, read_pickle

_ZIP: Final = b"PK\x03\x04"
# What torch.save wrote first before PyTorch 1.6: its magic number, pickled.
_LEGACY: Final = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
KINDS: Final = "a PyTorch checkpoint (.pth, .pt) or a pickle of numpy arrays (.pkl)"


def read_content(path: Path) -> tuple[Any, str]:
    """What the file holds, and the sha256 of its bytes in hexadecimal.

    Raises WeightsError for a missing, empty or damaged file, for another kind of file, and for one that would run code.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a weights file. Name {KINDS}.")
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Name {KINDS}.")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        head = stream.read(len(_LEGACY))
        if not head:
            raise WeightsError(f"{path} is empty. Copy or download it again.")
        stream.seek(0)
        by_torch = head.startswith(_ZIP) or head == _LEGACY
        return (_read_torch if by_torch else _read_pickle)(stream, path), sha256


def _read_torch(stream: BinaryIO, path: Path) -> Any:
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise _would_run(path, refused[1]) from error
        raise _damaged(path, error) from error


def _read_pickle(stream: BinaryIO, path: Path) -> Any:
    try:
        return read_pickle(stream)
    except RefusedGlobalError as error:
        raise _would_run(path, str(error)) from error
    except Exception as error:  # any byte string is a program to the unpickler, and fails in its own way
        raise _damaged(path, error) from error


def _would_run(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"{path} is refused: it asks for {name}, which is neither a tensor nor plain data and could run code. "
        "Nothing of it was run. Save the tensors alone, as a state dict."
    )


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return WeightsError(f"{path} is damaged or no weights file ({reason}). Expected {KINDS}.")
