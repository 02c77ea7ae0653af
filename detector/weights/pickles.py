"""Pickles of numpy arrays (Caffe2's and Detectron2's ``.pkl``), read without running anything that they ask for.

A pickle is a program. This reader gives it nothing to call but the few functions below: not even numpy's own, whose
array and dtype can be brought into states that read foreign memory. Arrays are put together from their raw bytes.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

# numpy 2 calls them numpy._core; files of either kind are read.
_MULTIARRAY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC: Final = ("numpy.core.numeric", "numpy._core.numeric")
_CONTAINERS: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    **{("builtins", kind.__name__): kind for kind in (dict, list, tuple, set, frozenset, complex)},
}
_NUMBER: Final = re.compile(r"[fiu][1248]|b1")
_DEEPEST: Final = 8


class RefusedGlobalError(pickle.UnpicklingError):
    """The pickle names a function or class that is no plain data; the message is that name."""


def read_pickle(stream: BinaryIO) -> Any:
    """The plain data in a pickle: dicts, lists, text, numbers, and numpy arrays of numbers.

    Raises RefusedGlobalError for anything else that the pickle names. A damaged file raises whatever the unpickler
    does: UnpicklingError, EOFError, ValueError and half a dozen more.
    """
    return _plain(_Unpickler(stream, encoding="latin1").load(), depth=0)


def write_pickle(value: Any) -> bytes:
    """Pickle of ``value`` that every Python 3 reads, with numpy 1 as well as 2."""
    stream = BytesIO()
    pickle.dump(value, stream, protocol=3)
    # numpy 2 names a module that numpy 1 does not have; both have the old name. It is written once, before any
    # array's bytes, and referred to from then on.
    return stream.getvalue().replace(
        b"cnumpy._core.multiarray\n_reconstruct", b"cnumpy.core.multiarray\n_reconstruct", 1
    )


class _Unpickler(pickle.Unpickler):
    """Looks every name up among those below. They are bound methods, on which a pickle can set nothing."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): "ndarray",  # named as an argument only
            ("numpy", "dtype"): self._dtype,
            ("_codecs", "encode"): self._encode,
            **{(part, "_reconstruct"): self._reconstruct for part in _MULTIARRAY},
            **{(part, "scalar"): self._scalar for part in _MULTIARRAY},
            **{(part, "_frombuffer"): self._frombuffer for part in _NUMERIC},
            **_CONTAINERS,
        }
        if (module, name) not in known:
            raise RefusedGlobalError(f"{module}.{name}")
        return known[module, name]

    def _reconstruct(self, *_: Any) -> _Array:
        return _Array()

    def _dtype(self, code: str, *_: Any) -> _Dtype:
        return _Dtype(code)

    def _scalar(self, dtype: _Dtype, data: bytes | str) -> Any:
        return _array(data, dtype, (), fortran=False).item()

    def _frombuffer(self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
        return _array(data, dtype, shape, fortran=order == "F")

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Bytes as protocol 2 of Python 3 writes them; other codecs would decompress, or import modules by name."""
        if encoding != "latin1":
            raise RefusedGlobalError(f"_codecs.encode to {encoding}")
        return text.encode("latin1")


class _Dtype:
    """Stands in for ``numpy.dtype``: one number type and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise RefusedGlobalError(f"numpy.dtype {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {state[1]!r}")
        self.order = state[1]


class _Array:
    """Stands in for ``numpy.ndarray``, which a pickle makes empty and fills later."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, fortran=bool(fortran))


def _array(data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], *, fortran: bool) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"an array of shape {shape}")
    kind = np.dtype(dtype.order + dtype.code)
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes come as text
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} in {len(raw)} bytes")
    found = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")
    return found.astype(kind.newbyteorder("="))


def _plain(value: Any, depth: int) -> Any:
    """The value with arrays in place of their stand-ins; depth: how deep it is nested."""
    if depth > _DEEPEST:
        raise pickle.UnpicklingError(f"data nested more than {_DEEPEST} deep")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    return value
