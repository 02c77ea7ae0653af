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
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(pickle.UnpicklingError, match="nested"):
        read(pickle.dumps(endless))
