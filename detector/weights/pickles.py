"""Pickles read as plain data: nothing that they ask for is run, and they cost no more than their bytes.

A pickle is a program. This reader knows the instructions that build plain data, and gives them nothing to call but the
functions of a table: here those of numpy's arrays (Caffe2's and Detectron2's ``.pkl``), in ``archives`` those of
torch's tensors. Not even numpy's own array and dtype are among them: they can be brought into states that read foreign
memory. A small program can also ask for endless work (a list of ten lists of ten lists ..., all the same one), so
instructions are counted, copies may not outgrow the file, and a part that is named twice is looked at once.
"""

from __future__ import annotations

import math
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# numpy 2 calls them numpy._core; files of either kind are read.
_MULTIARRAY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC: Final = ("numpy.core.numeric", "numpy._core.numeric")
_OLD_NAMES: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's, in protocols up to 2
_NUMBER: Final = re.compile(r"[fiu][1248]|b1")
_DEEPEST: Final = 16
MOST_STEPS: Final = 3_000_000  # a detector's file has some 30,000 instructions
_KEYS: Final = (str, bytes, int, float, bool, type(None))
_LEAVES: Final = (*_KEYS, complex, Tensor, np.ndarray)

# Python's own instructions that are harmless; those that look at what they are given are in _OWN.
_AS_THEY_ARE: Final = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "EMPTY_DICT", "EMPTY_SET"),
    *("GLOBAL", "STACK_GLOBAL", "BINPERSID"),
    *("GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
)


class RefusedGlobalError(pickle.UnpicklingError):
    """The pickle names a function or class that is no plain data; the message is that name."""


def read_pickle(stream: BinaryIO, size: int) -> Any:
    """The plain data in a pickle: dicts, lists, text, numbers, and numpy arrays of numbers.

    size: of the file, in bytes. Raises RefusedGlobalError for anything else that the pickle names. A damaged file
    raises whatever the unpickler does: UnpicklingError, EOFError, ValueError and half a dozen more.
    """
    return plain(_ArrayReader(stream, size).load())


def write_pickle(value: Any) -> bytes:
    """Pickle of ``value`` that every Python 3 reads, with numpy 1 as well as 2."""
    stream = BytesIO()
    pickle.dump(value, stream, protocol=3)
    # numpy 2 names a module that numpy 1 does not have; both have the old name. It is written once, before any
    # array's bytes, and referred to from then on.
    return stream.getvalue().replace(
        b"cnumpy._core.multiarray\n_reconstruct", b"cnumpy.core.multiarray\n_reconstruct", 1
    )


class Call:
    """What a name in a pickle stands for: a function that the pickle may call, and can do nothing else with."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class PlainReader(pickle._Unpickler):
    """Python's own unpickler without the instructions that make objects of classes. It reads one pickle.

    size: of the file, in bytes; copies of its content may take twice that. names: what the pickle may name, by module
    and name, besides the containers.
    """

    # Python's own, of which its type hints do not know.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, stream: BinaryIO, size: int, names: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(_Whole(stream, size), encoding="latin1")
        self.steps, self.left = 0, 2 * size
        self.names = {
            ("collections", "OrderedDict"): Call(self._dict),
            ("_codecs", "encode"): Call(self._encode),
            ("builtins", "complex"): Call(_complex),
            ("builtins", "bytes"): Call(_no_bytes),
            ("builtins", "dict"): Call(self._dict),
            **{("builtins", kind.__name__): Call(self._container(kind)) for kind in (list, tuple, set, frozenset)},
            **names,
        }

    def find_class(self, module: str, name: str) -> Any:
        """What the table has under that name."""
        module = _OLD_NAMES.get(module, module)
        if (module, name) not in self.names:
            raise RefusedGlobalError(f"{module}.{name}")
        return self.names[module, name]

    def step(self) -> None:
        """Count one instruction."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise pickle.UnpicklingError(f"more than {MOST_STEPS:,} instructions")

    def spend(self, count: int) -> None:
        """Count bytes or items that are copied. Raises UnpicklingError before more is copied than the file holds."""
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError("its parts together are larger than the file")

    def build(self, target: Any, state: Any) -> None:
        """Fill ``target``, which a call gave: our stand-ins. What was set on an ordered dict is left out."""
        if isinstance(target, (_Array, _Dtype)):
            target.fill(state, self)
        elif not isinstance(target, OrderedDict):
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")

    def _dict(self, items: Any = ()) -> dict[Any, Any]:
        self.spend(len(items))
        pairs = items.items() if isinstance(items, dict) else items
        return OrderedDict((_key(key), value) for key, value in pairs)

    def _container(self, kind: type) -> Callable[..., Any]:
        def build(items: Any = ()) -> Any:
            self.spend(len(items))
            return kind(map(_key, items) if kind in (set, frozenset) else items)

        return build

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """Bytes as protocol 2 of Python 3 writes them; other codecs would decompress, or import modules by name."""
        if encoding != "latin1":
            raise RefusedGlobalError(f"_codecs.encode to {encoding:.40}")
        self.spend(len(text))
        return text.encode("latin1")

    # The instructions that are not Python's own.

    def _reduce(self) -> None:
        arguments, call = self.stack.pop(), self.stack[-1]
        if not isinstance(call, Call) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError(f"a call of a {type(call).__name__}")
        self.spend(1)
        self.stack[-1] = call.function(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def _setitems(self, items: list[Any]) -> None:
        _mutable(self.stack[-1], dict).update(_pairs(items))

    def _new_dict(self) -> None:
        items = self.pop_mark()  # which changes what append appends to
        self.append(_pairs(items))

    def _new_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    def _bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(count))

    def _additems(self) -> None:
        items = self.pop_mark()
        _mutable(self.stack[-1], set).update(map(_key, items))

    def _extend(self, items: list[Any]) -> None:
        _mutable(self.stack[-1], list).extend(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._setitems([key, value])


_OWN: Final[dict[str, Callable[[PlainReader], None]]] = {
    "REDUCE": PlainReader._reduce,
    "BUILD": PlainReader._build,
    "SETITEM": PlainReader._setitem,
    "SETITEMS": lambda reader: reader._setitems(reader.pop_mark()),
    "DICT": PlainReader._new_dict,
    "ADDITEMS": PlainReader._additems,
    "FROZENSET": PlainReader._new_frozenset,
    "APPEND": lambda reader: reader._extend([reader.stack.pop()]),
    "APPENDS": lambda reader: reader._extend(reader.pop_mark()),
    "BYTEARRAY8": PlainReader._bytearray,
}


def _counted(function: Callable[[Any], None]) -> Callable[[Any], None]:
    def instruction(reader: PlainReader) -> None:
        reader.step()
        function(reader)

    return instruction


class _Instructions(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"instruction {code:#04x}")


def _code(name: str) -> int:
    return int(getattr(pickle, name)[0])


PlainReader.dispatch = _Instructions(
    {_code(name): _counted(pickle._Unpickler.dispatch[_code(name)]) for name in _AS_THEY_ARE}
    | {_code(name): _counted(function) for name, function in _OWN.items()}
)


class _Whole:
    """The stream; it is never asked for more bytes than the file has, since memory is taken before it answers."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size

    def read(self, count: int) -> bytes:
        if count > self.size:
            raise EOFError(f"{count:,} bytes are asked for")
        return self.stream.read(count)

    def readline(self) -> bytes:
        return self.stream.readline()


def _key(value: Any) -> Any:
    """A key of a dict. Of nested tuples, finding the hash may take for ever; of long numbers, many share one."""
    if type(value) not in _KEYS or (type(value) is int and value.bit_length() > 64):
        raise pickle.UnpicklingError(f"a key that is a {type(value).__name__}")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _mutable(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"items for a {type(value).__name__}")
    return value


def _complex(real: float, imaginary: float) -> complex:
    return complex(float(real), float(imaginary))


def _no_bytes() -> bytes:
    return b""


class _ArrayReader(PlainReader):
    """With numpy's arrays, which are put together from their raw bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        names: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): "ndarray",  # named as an argument only
            ("numpy", "dtype"): Call(lambda code, *_: _Dtype(code)),
            **{(part, "_reconstruct"): Call(lambda *_: _Array()) for part in _MULTIARRAY},
            **{(part, "scalar"): Call(self._scalar) for part in _MULTIARRAY},
            **{(part, "_frombuffer"): Call(self._frombuffer) for part in _NUMERIC},
        }
        super().__init__(stream, size, names)

    def _scalar(self, dtype: _Dtype, data: bytes | str) -> Any:
        return _array(data, dtype, (), fortran=False, reader=self).item()

    def _frombuffer(self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
        return _array(data, dtype, shape, fortran=order == "F", reader=self)


class _Dtype:
    """Stands in for ``numpy.dtype``: one number type and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise RefusedGlobalError(f"numpy.dtype {code!r:.40}" if isinstance(code, str) else "numpy.dtype")
        self.code, self.order = code, "="

    def fill(self, state: tuple[Any, ...], reader: PlainReader) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an unknown byte order")
        self.order = state[1]


class _Array:
    """Stands in for ``numpy.ndarray``, which a pickle makes empty and fills later."""

    __slots__ = ("value",)

    def fill(self, state: tuple[Any, ...], reader: PlainReader) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, fortran=bool(fortran), reader=reader)


def _array(
    data: bytes | str, dtype: _Dtype, shape: tuple[int, ...], *, fortran: bool, reader: PlainReader
) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, str)) or not is_shape(shape):
        raise pickle.UnpicklingError("an array of shape, kind or content that is none")
    kind = np.dtype(dtype.order + dtype.code)
    if len(data) != math.prod(shape) * kind.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} in {len(data)} bytes")
    reader.spend(1 + len(data))
    raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes come as text
    found = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")
    return found.astype(kind.newbyteorder("="))


def is_shape(shape: Any) -> bool:
    """Whether ``shape`` can be a tensor's: a few whole numbers, none of them larger than an address."""
    return (
        isinstance(shape, tuple) and len(shape) <= 16 and all(type(side) is int and 0 <= side < 2**48 for side in shape)
    )


def plain(value: Any) -> Any:
    """``value`` with arrays in place of their stand-ins. Raises UnpicklingError for what is no plain data."""
    return _plain(value, 0, {})[0]


def _plain(value: Any, depth: int, seen: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    """The plain value, and how many levels are in it. depth: how deep it is; seen: what was looked at, by id."""
    if isinstance(value, _Array):
        return value.value, 0
    if isinstance(value, _LEAVES):
        return value, 0
    if id(value) not in seen:
        if depth > _DEEPEST:
            raise _too_deep()
        seen[id(value)] = _inside(value, depth, seen)
    if depth + seen[id(value)][1] > _DEEPEST:
        raise _too_deep()
    return seen[id(value)]


def _inside(value: Any, depth: int, seen: dict[int, tuple[Any, int]]) -> tuple[Any, int]:
    def each(items: Iterable[Any]) -> list[tuple[Any, int]]:
        return [_plain(item, depth + 1, seen) for item in items]

    if isinstance(value, dict):
        found = each(value.values())
        result: Any = {key: item for key, (item, _) in zip(value, found, strict=True)}
    elif isinstance(value, (list, tuple)):
        found = each(value)
        result = type(value)(item for item, _ in found)
    elif isinstance(value, (set, frozenset)):  # of keys, which are plain
        found, result = [], value
    else:
        raise pickle.UnpicklingError("a name that stands alone")
    return result, 1 + max((height for _, height in found), default=0)


def _too_deep() -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"data nested more than {_DEEPEST} deep")
