"""numba's ``njit`` with a cache on disk that several processes, sources and versions of numba may use at once.

numba's own cache has one index per function, which is written before the code that it names. A process that looks in
between takes the code that another source, or another version of numba, left under that name: it computes with old
code, or fails. Here each entry is one file. Its name tells all that it depends on, and it appears at once, and whole.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

import numba
from numba.core import serialize
from numba.core.caching import FunctionCache


def cached_njit(signature: Any = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: ``numba.njit(**options)``, whose compiled code is kept on disk where numba keeps its own.

    signature: of the only arguments that are allowed; the function is then compiled at once. Without a place that can
    be written nothing is kept, and each process compiles for itself.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if dispatcher is function:  # NUMBA_DISABLE_JIT
            return function
        with suppress(RuntimeError, OSError):  # there is no such place, or the source is no file
            dispatcher._cache = _cache_of(function)
        if signature is not None:
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return decorate


def _cache_of(function: Callable[..., Any]) -> Any:
    """numba's cache, with other files."""
    make: Callable[..., Any] = FunctionCache
    cache = make(function)
    cache._cache_file = _Entries(Path(cache.cache_path), cache._impl.filename_base, Path(function.__code__.co_filename))
    return cache


class _Entries:
    """The compiled code of one function: one file for each signature and kind of CPU. numba calls its methods."""

    def __init__(self, folder: Path, function: str, source: Path) -> None:
        self._folder = folder
        self._of_version = f"{function}.{numba.__version__}."
        self._of_source = f"{self._of_version}{_digest(source.read_bytes())}."

    def load(self, key: Any) -> Any:
        """The code for a signature and a kind of CPU; None where there is none that can be read."""
        try:
            found, code = pickle.loads(self._path(key).read_bytes())
        except Exception:  # a file that was cut short can raise anything
            return None
        return code if found == key else None

    def save(self, key: Any, code: Any) -> None:
        """Keep the code, if that is possible, and remove that of other sources."""
        target, content = self._path(key), _dumps((key, code))
        written = target.with_name(f"{target.name}.{uuid4().hex}.tmp")
        with suppress(OSError):
            try:
                written.write_bytes(content)
                written.replace(target)
            finally:
                written.unlink(missing_ok=True)
            self._remove(lambda name: not name.startswith(self._of_source))

    def flush(self) -> None:
        """Remove all entries of this version of numba."""
        self._remove(lambda name: True)

    def _remove(self, chosen: Callable[[str], bool]) -> None:
        for path in self._folder.glob(f"{escape(self._of_version)}*.nbc"):
            if chosen(path.name):
                path.unlink(missing_ok=True)

    def _path(self, key: Any) -> Path:
        return self._folder / f"{self._of_source}{_digest(repr(key).encode())}.nbc"


_dumps: Callable[[Any], bytes] = serialize.dumps  # numba's own types need more than pickle's


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
