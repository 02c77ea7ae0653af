"""Reading pickles: what numpy writes comes back, and nothing that a pickle asks for is run."""

from __future__ import annotations

import builtins
import collections
import functools
import io
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.weights import pickles
from detector.weights.pickles import RefusedGlobalError, read_pickle, write_pickle


def read(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data), len(data))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i8", "|b1"])
def test_read_pickle_gives_numpys_arrays_back(protocol: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    value = {"a": array, "b": {"c": [np.asfortranarray(array), np.float32(0.5), 7, "text", None]}}

    found = read(pickle.dumps(value, protocol=protocol))

    assert np.array_equal(found["a"], array)
    assert found["a"].dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(found["b"]["c"][0], array)
    assert found["b"]["c"][1:] == [0.5, 7, "text", None]


def test_read_pickle_reads_what_python_2_wrote() -> None:
    # {"w": array([1, 2], float32)} as Python 2 spells it: text is bytes, and so is the array's content.
    raw = np.array([1, 2], dtype="<f4").tobytes()
    data = (
        b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + raw + b"tbs."
    )

    assert read(data)["w"].tolist() == [1.0, 2.0]


def test_read_pickle_keeps_plain_data() -> None:
    value = {"ordered": collections.OrderedDict(a=1), "list": [1.5, True], "tuple": (1, 2), "set": {3}}

    assert read(pickle.dumps(value)) == {"ordered": {"a": 1}, "list": [1.5, True], "tuple": (1, 2), "set": {3}}


def test_write_pickle_comes_back_and_names_the_module_that_both_numpys_have() -> None:
    arrays = {"x": np.arange(4, dtype=np.float32), "y": np.ones((2, 2), dtype=np.float32)}

    data = write_pickle(arrays)

    assert b"numpy.core.multiarray" in data
    assert b"numpy._core" not in data
    for found in (read(data), pickle.loads(data)):
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


# What must not run. Each attempt would leave a file behind.


class Attempt:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def attempts(marker: Path) -> dict[str, Any]:
    """By the global that must be named in the refusal."""
    write = f"open({str(marker)!r}, 'w').close()"
    inner = pickle.dumps(Attempt(builtins.exec, write))
    return {
        "posix.system": Attempt(os.system, f"touch {marker}"),
        "builtins.eval": Attempt(builtins.eval, write),
        "builtins.exec": Attempt(builtins.exec, write),
        "builtins.open": Attempt(builtins.open, str(marker), "w"),
        "builtins.getattr": Attempt(builtins.getattr, Attempt(builtins.__import__, "os"), "system"),
        "subprocess.Popen": Attempt(subprocess.Popen, ["touch", str(marker)]),
        "functools.partial": Attempt(functools.partial, os.mkdir, str(marker)),
        "_pickle.loads": Attempt(pickle.loads, inner),
        "torch.storage._load_from_bytes": Attempt(torch.storage._load_from_bytes, b"x"),
        "numpy.load": Attempt(np.load, str(marker)),
        "numpy.fromfile": Attempt(np.fromfile, "/dev/null"),
        "numpy.memmap": Attempt(np.memmap, str(marker), "u1", "w+", 0, (1,)),
        "collections.Counter": collections.Counter("a"),
        "pathlib": Path("x"),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", sorted(attempts(Path("x"))))
def test_read_pickle_refuses_every_other_global_and_runs_nothing(name: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps({"model": [attempts(marker)[name]]}, protocol=protocol)

    with pytest.raises(RefusedGlobalError) as refused:
        read(data)

    # Older protocols spell a name's old home (__builtin__), which the reader translates as Python does.
    last = name.rpartition(".")[2]
    assert last in str(refused.value) or str(refused.value) in ("copyreg._reconstructor", "builtins.__import__")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("detector.weights.pickles", "pickle._Unpickler"),
        ("collections", "OrderedDict.__init__"),
        ("builtins", "object"),
        ("builtins", "type"),
        ("builtins", "bytearray"),
        ("numpy", "array"),
    ],
)
def test_read_pickle_refuses_names_reached_through_admitted_ones(module: str, name: str) -> None:
    data = b"\x80\x04" + b"".join(bytes([0x8C, len(text)]) + text.encode() for text in (module, name)) + b"\x93."

    with pytest.raises(RefusedGlobalError, match=f"{module}.{name}"):
        read(data)


def test_read_pickle_refuses_arrays_of_objects_and_of_records() -> None:
    for array in (np.array([{}], dtype=object), np.zeros(2, dtype=[("a", "f4")]), np.array(["text"])):
        with pytest.raises(RefusedGlobalError, match=r"numpy\.dtype"):
            read(pickle.dumps(array))


def test_read_pickle_refuses_codecs_other_than_bytes() -> None:
    with pytest.raises(RefusedGlobalError, match=r"_codecs\.encode to zlib"):
        read(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.")


@pytest.mark.parametrize("shape", [(3,), (2**40,), (-1,)])
def test_read_pickle_refuses_a_shape_that_its_bytes_do_not_fill(shape: tuple[int, ...]) -> None:
    # An honest array of two numbers whose state is changed on the way in; numpy itself would read beyond it.
    class Changed:
        def __reduce__(self) -> Any:
            function, arguments, (version, _, dtype, fortran, data) = np.zeros(2, dtype="f4").__reduce__()
            return function, arguments, (version, shape, dtype, fortran, data)

    with pytest.raises(pickle.UnpicklingError, match="an array of shape"):
        read(pickle.dumps(Changed(), protocol=2))


@pytest.mark.parametrize(
    "target", [b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"]
)
def test_read_pickle_lets_nothing_be_set_on_what_it_gives_out(target: bytes) -> None:
    """BUILD with a slot state is setattr(target, "__call__", 1)."""
    with pytest.raises(pickle.UnpicklingError, match="a state for a"):
        read(b"\x80\x02" + target + b"NN}X\x08\x00\x00\x00__call__K\x01s\x86b.")

    assert read(pickle.dumps(np.ones(2))).tolist() == [1.0, 1.0]


def test_read_pickle_refuses_persistent_objects_and_endless_nesting() -> None:
    with pytest.raises(pickle.UnpicklingError):
        read(b"\x80\x02X\x01\x00\x00\x00aQ.")
    with pytest.raises(pickle.UnpicklingError, match="instruction 0x50"):
        read(b"\x80\x02Pname\n.")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(pickle.UnpicklingError, match="nested"):
        read(pickle.dumps(endless))


# What must not take for ever, or more memory than the file has bytes.


def laughs(kind: type, levels: int, width: int = 10) -> Any:
    """``width`` times the same thing, which is ``width`` times the same thing, ...: 10^levels things."""
    value: Any = "ha"
    for _ in range(levels):
        value = {str(i): value for i in range(width)} if kind is dict else kind([value] * width)
    return value


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_read_pickle_looks_once_at_what_is_named_a_billion_times(kind: type) -> None:
    found = read(pickle.dumps({"model": laughs(kind, 9)}))["model"]

    first, second = (found["0"], found["1"]) if kind is dict else found[:2]
    assert first is second


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_read_pickle_refuses_deep_nesting_however_it_is_put_together(kind: type) -> None:
    with pytest.raises(pickle.UnpicklingError, match="nested more than 16 deep"):
        read(pickle.dumps(laughs(kind, 60)))
    parts = [laughs(list, 10)]
    for _ in range(10):  # each part is flat for itself, and holds the one before
        parts.append([parts[-1]])
    with pytest.raises(pickle.UnpicklingError, match="nested more than 16 deep"):
        read(pickle.dumps(parts))


def test_read_pickle_refuses_keys_whose_hash_takes_for_ever() -> None:
    twice: Any = ()
    for _ in range(200):
        twice = (twice, twice)
    data = pickle.dumps(twice, protocol=4).removesuffix(b".")
    for program in (b"}" + data[2:] + b"Ns.", b"\x8f(" + data[2:] + b"\x90."):
        with pytest.raises(pickle.UnpicklingError, match="a key that is a tuple"):
            read(b"\x80\x04" + program.replace(b"\x95" + data[3:11], b""))


def test_read_pickle_refuses_numbers_of_which_many_share_a_hash() -> None:
    with pytest.raises(pickle.UnpicklingError, match="a key that is a int"):
        read(pickle.dumps({i * (2**61 - 1): 0 for i in range(20)}))


@pytest.mark.parametrize("name", ["list", "tuple", "dict", "set", "frozenset"])
def test_read_pickle_refuses_copies_that_outgrow_the_file(name: str) -> None:
    items = b"(" + b"".join(b"K%c" % i for i in range(200)) + (b"d" if name == "dict" else b"l") + b"q\x00"
    call = f"c__builtin__\n{name}\n".encode() + b"h\x00\x85R"

    assert len(read(b"\x80\x02" + items + b"0" + call + b".")) in (100, 200)
    with pytest.raises(pickle.UnpicklingError, match="its parts together are larger than the file"):
        read(b"\x80\x02" + items + b"(" + call * 100 + b"l.")


def test_read_pickle_refuses_arrays_that_share_bytes_and_outgrow_the_file() -> None:
    raw = bytes(10_000)

    class Shared:
        def __reduce__(self) -> Any:
            function, arguments, (version, _, dtype, fortran, _data) = np.zeros(1, dtype="u1").__reduce__()
            return function, arguments, (version, (len(raw),), dtype, fortran, raw)

    with pytest.raises(pickle.UnpicklingError, match="its parts together are larger than the file"):
        read(pickle.dumps([Shared() for _ in range(100)], protocol=4))


def test_read_pickle_counts_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)

    assert len(read(b"\x80\x02(" + b"N" * 900 + b"l.")) == 900
    with pytest.raises(pickle.UnpicklingError, match="more than 1,000 instructions"):
        read(b"\x80\x02(" + b"N" * 1100 + b"l.")


@pytest.mark.parametrize(
    "program", [b"\x8e" + b"\xff" * 5 + b"\0\0\0", b"B\xff\xff\xff\x7f", b"\x96" + b"\xff" * 5 + b"\0" * 3]
)
def test_read_pickle_takes_no_memory_for_bytes_that_are_not_there(program: bytes) -> None:
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        read(b"\x80\x05" + program + b".")


@pytest.mark.parametrize("shape", [((1, 2), 3), ("a",), (True, 2), [2], (2**70,), (1,) * 30])
def test_read_pickle_refuses_shapes_that_are_none(shape: Any) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            function, arguments, (version, _, dtype, fortran, data) = np.zeros(2, dtype="f4").__reduce__()
            return function, arguments, (version, shape, dtype, fortran, data)

    with pytest.raises(pickle.UnpicklingError, match="an array of shape, kind or content that is none"):
        read(pickle.dumps(Odd(), protocol=2))
