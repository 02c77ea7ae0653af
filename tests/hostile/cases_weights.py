"""Files of weights: of a run, of other projects, damaged, and made to run code or to take all memory."""

from __future__ import annotations

import copy
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from tests.hostile.case import Case, Expected, either, refused, right
from tests.hostile.files import ALARM, NOT_JSON, SPECIAL
from tests.hostile.invariant import Action, command

State = dict[str, Any]
BIAS: Final = "head.classification_head.cls_logits.bias"
_RUNS_CODE: Final = (
    ("posix", "system"),
    ("os", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "apply"),
    ("importlib", "import_module"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("numpy", "load"),
    ("numpy.core.multiarray", "scalar.__class__"),
    ("runpy", "run_path"),
    ("pickle", "loads"),
    ("codecs", "decode.__globals__"),
    ("detector.weights.checkpoint", "load"),
)


@cache
def _job() -> EvalJob:
    from support.micro import micro_job, write_experiments

    with tempfile.TemporaryDirectory() as folder:
        return micro_job(write_experiments(Path(folder) / "experiments"))


@cache
def _own() -> State:
    """What a small training writes."""
    import torch
    from msgspec import to_builtins

    from detector.build import build_model
    from detector.weights.network import network_of

    job = _job().train
    torch.manual_seed(0)
    return {
        "train_id": job.id,
        "model": build_model(job, num_classes=3, test=_job().test).state_dict(),
        "network": to_builtins(network_of(job)),
        "category_ids": [1, 2, 3],
        "category_names": ["a", "b", "c"],
        "executions": [[1, 1]],
        "seconds": 1.0,
    }


@cache
def _bytes(legacy: bool = False) -> bytes:
    return _saved(_own(), legacy=legacy)


def _saved(value: Any, *, legacy: bool = False) -> bytes:
    import torch

    stream = BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


Edit = Callable[[State], object]
Make = Callable[[], bytes]


def _edited(edit: Edit) -> Make:
    def make() -> bytes:
        state = copy.copy(_own())
        state["model"] = dict(state["model"])
        edit(state)
        return _saved(state)

    return make


def _tensor(change: Callable[[Any], Any], name: str = BIAS) -> Make:
    return _edited(lambda state: state["model"].update({name: change(state["model"][name])}))


def _filled(value: float) -> Make:
    import math

    def change(tensor: Any) -> Any:
        found = tensor.clone()
        found.flatten()[-1] = value
        return found

    assert not math.isfinite(value)
    return _tensor(change)


def _own_cases() -> Iterator[tuple[str, Make, Expected]]:
    """A run's final.pt; each is read for the run's job."""
    yield "no fault", _bytes, right()
    yield "without its training", _edited(lambda state: state.pop("train_id")), right()
    yield "NaN", _filled(float("nan")), refused("finite")
    yield "infinity", _filled(float("inf")), refused("finite")
    yield "another training", _edited(lambda state: state.update(train_id="0" * 16)), refused("another training")
    yield "a training of text", _edited(lambda state: state.update(train_id=ALARM)), refused("final.pt")
    yield "a training that is a number", _edited(lambda state: state.update(train_id=7)), refused("train_id")
    yield "a missing tensor", _edited(lambda state: state["model"].pop(BIAS)), refused("lacks", BIAS)
    yield "no tensors", _edited(lambda state: state["model"].clear()), refused("lacks")
    yield "no model", _edited(lambda state: state.pop("model")), refused("model")
    yield "a model that is a list", _edited(lambda state: state.update(model=[])), refused("model")
    yield "a model null", _edited(lambda state: state.update(model=None)), refused("model")
    yield "an extra tensor", _edited(lambda state: state["model"].update(x=state["model"][BIAS])), refused("x")
    yield "a name that acts", _edited(lambda state: state["model"].update({ALARM: state["model"][BIAS]})), refused()
    yield (
        "a name of 100,000 letters",
        _edited(lambda state: state["model"].update({"x" * 100_000: state["model"][BIAS]})),
        refused("xxx"),
    )
    yield "half precision", _tensor(lambda tensor: tensor.half()), refused(BIAS)
    yield "doubles", _tensor(lambda tensor: tensor.double()), refused(BIAS)
    yield "integers", _tensor(lambda tensor: tensor.long()), refused(BIAS)
    yield "another shape", _tensor(lambda tensor: tensor[:-1].clone()), refused(BIAS)
    yield "an empty tensor", _tensor(lambda tensor: tensor[:0].clone()), refused(BIAS)
    yield "a tensor of no dimension", _tensor(lambda tensor: tensor[0].clone()), refused(BIAS)
    yield "a tensor that is text", _tensor(lambda tensor: "tensor"), refused(BIAS)
    yield "a tensor that is null", _tensor(lambda tensor: None), refused(BIAS)
    yield "stride 0", _tensor(lambda tensor: tensor[:1].clone().expand(len(tensor))), either()
    yield "stride 0 of a billion", _tensor(lambda tensor: tensor[:1].clone().expand(2**30)), refused("storage")
    yield "complex numbers", _tensor(lambda tensor: tensor + 0j), refused()
    yield "sparse numbers", _tensor(lambda tensor: tensor.to_sparse()), refused()
    yield "other classes", _edited(lambda state: state.update(category_ids=[1, 2])), refused()
    yield "a class twice", _edited(lambda state: state.update(category_ids=[1, 1, 2])), refused()
    yield "no classes", _edited(lambda state: state.update(category_ids=[], category_names=[])), refused()
    yield "classes null", _edited(lambda state: state.update(category_ids=None)), refused("category_ids")
    yield "ids of text", _edited(lambda state: state.update(category_ids=["a", "b", "c"])), refused("category_ids")
    yield "fewer names", _edited(lambda state: state.update(category_names=["a"])), refused("names")
    yield "names that are numbers", _edited(lambda state: state.update(category_names=[1, 2, 3])), refused("names")
    yield "names that act", _edited(lambda state: state.update(category_names=[ALARM, "b", "c"])), either()
    yield "another network", _edited(lambda state: state["network"].update(unknown=1)), either()
    yield "a network of text", _edited(lambda state: state.update(network="x")), refused("network")
    yield "seconds of text", _edited(lambda state: state.update(seconds="long")), refused("seconds")
    yield "saved before PyTorch 1.6", lambda: _bytes(legacy=True), refused("final.pt")
    yield "one more member", _with_member("archive/x", b"x"), either()
    yield "a member of code", _with_member("archive/code/x.py", b"import os"), either()
    yield "the pickle twice", _with_member(None, b""), refused("twice")
    yield "compressed", _compressed, refused("compressed")
    yield "a bit of a tensor flipped", lambda: _flipped(0.5), refused("final.pt")
    yield "bytes behind the end", lambda: _bytes() + b"x", refused("final.pt")
    yield "bytes before the start", lambda: b"x" * 64 + _bytes(), either()
    yield "two files in one", lambda: _bytes() * 2, either()
    yield "a wrong checksum in the list", lambda: _patched(16, b"\0\0\0\0"), refused("final.pt")
    yield "an encrypted member", lambda: _patched(8, b"\1\0"), refused("final.pt")
    yield "a member of 4 GB", lambda: _patched(20, b"\xf0\xff\xff\xff" * 2), refused("final.pt")
    yield "an unknown compression", lambda: _patched(10, b"\x63\0"), refused("final.pt")
    yield "a member past the end", lambda: _patched(42, b"\0\xff\xff\xff"), refused("final.pt")
    for share in range(20):
        yield (
            f"cut at {share / 20:.0%}",
            lambda share=share: _bytes()[: share * len(_bytes()) // 20],
            refused("final.pt"),
        )  # type: ignore[misc]
    for less in (1, 4, 21, 22, 23, 42, 98, 99):
        yield f"cut {less} bytes before the end", _cut(lambda length, less=less: length - less), refused("final.pt")  # type: ignore[misc]


def _with_member(name: str | None, data: bytes) -> Make:
    """Of the training's own file with one more member; None: its pickle once more."""

    def make() -> bytes:
        import warnings

        stream = BytesIO(_bytes())
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "a") as archive:
            warnings.simplefilter("ignore")
            given = name or next(member for member in archive.namelist() if member.endswith("data.pkl"))
            archive.writestr(given, data or archive.read(given))
        return stream.getvalue()

    return make


def _compressed() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(BytesIO(_bytes())) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    return stream.getvalue()


def _cut(where: Callable[[int], int]) -> Make:
    """The file up to a place, given its length."""
    return lambda: _bytes()[: where(len(_bytes()))]


def _flipped(place: float) -> bytes:
    data = bytearray(_bytes())
    data[int(place * len(data))] ^= 16
    return bytes(data)


def _patched(offset: int, value: bytes) -> bytes:
    """Bytes of the first entry of the zip's list of members replaced."""
    data = bytearray(_bytes())
    start = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[start + 16 : start + 20], "little") + offset
    data[start : start + len(value)] = value
    return bytes(data)


def _any_cases() -> Iterator[tuple[str, Make, Expected]]:
    """Files that any command may be given; none holds a network."""
    from tests.detector.weights import programs

    for module, name in _RUNS_CODE:
        call = b"\x80\x02" + programs.named(module, name) + b"(X\x0b\0\0\0touch ownedtR."
        expected = refused("w.pt")
        yield f"a pickle that calls {module}.{name}", lambda call=call: call, expected  # type: ignore[misc]
        if name in ("system", "eval", "load"):
            yield f"an archive that calls {module}.{name}", lambda call=call: programs.archive_of(call), expected  # type: ignore[misc]
            yield f"an old file that calls {module}.{name}", lambda call=call: programs.legacy_of(call), expected  # type: ignore[misc]
    for name, shape, strides, offset, count in (
        ("stride 0", (5_000_000_000,), (0,), 0, 4),
        ("a shape of 2^62", (2**62,), (1,), 0, 4),
        ("a shape of 2^70", (2**70,), (1,), 0, 4),
        ("a negative shape", (-1,), (1,), 0, 4),
        ("a negative stride", (4,), (-1,), 3, 4),
        ("an offset past the end", (4,), (1,), 100, 4),
        ("a negative offset", (4,), (1,), -4, 4),
        ("more strides than sides", (4,), (1, 1), 0, 4),
        ("a storage of 2^40 numbers", (4,), (1,), 0, 2**40),
        ("a storage of -4 numbers", (4,), (1,), 0, -4),
        ("10,000 sides", (1,) * 10_000, (1,) * 10_000, 0, 4),
    ):
        program = programs.tensor(shape, strides, offset, count=count)
        yield f"{name}, archive", lambda program=program: programs.archive_of(program), refused("w.pt")  # type: ignore[misc]
        yield f"{name}, old file", lambda program=program: programs.legacy_of(program), refused("w.pt")  # type: ignore[misc]
    for name, value in (
        ("a list", [1, 2]),
        ("a number", 7),
        ("text", "x"),
        ("nothing", None),
        ("an empty dict", {}),
        ("a model without tensors", {"model": {}}),
        ("names that are numbers", {1: np.zeros(2)}),
        ("an array of text", {"res2_0_branch2a_w": np.array(["x"])}),
        ("an array of objects", {"res2_0_branch2a_w": np.array([{}], dtype=object)}),
        ("complex numbers", {"res2_0_branch2a_w": np.zeros(2, complex)}),
        ("a name that acts", {ALARM: np.zeros(2)}),
        ("one tensor of a ResNet", {"layer1.0.conv1.weight": np.zeros((2, 2), np.float32)}),
    ):
        yield f"a pickle of {name}", lambda value=value: pickle.dumps(value), refused("w.pt")  # type: ignore[misc]
    yield "lists of ten lists of ten lists", _doubling, refused("w.pt")
    yield "a list that holds itself", lambda: b"\x80\x02]q\0h\0a.", refused("w.pt")
    yield "100,000 lists in one another", lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", refused("w.pt")
    yield "text of 4 GB", lambda: b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.", refused("w.pt")
    yield "bytes of 2^60", lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.", refused("w.pt")
    yield "a frame of 2^60", lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.", refused("w.pt")
    yield "a number of 5,000 digits", lambda: b"\x80\x02L" + b"9" * 5000 + b"L\n.", refused("w.pt")
    yield "a number of 1,000,000 digits", lambda: b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.", refused("w.pt")
    yield "a memo at 2^32 - 1", lambda: b"\x80\x02Nr" + b"\xff" * 4 + b".", refused("w.pt")
    yield "protocol 99", lambda: b"\x80\x63N.", refused("w.pt")
    yield "an extension", lambda: b"\x80\x02\x82\x01.", refused("w.pt")
    yield "a zip without members", lambda: b"PK\x05\x06" + bytes(18), refused("w.pt")
    yield "a zip of others", lambda: _zip("x.txt"), refused("w.pt")
    yield "a zip of many names", lambda: _zip(*(f"archive/data/{i}" for i in range(3000))), refused("w.pt")
    yield "an HDF5 file", lambda: b"\x89HDF\r\n\x1a\n" + bytes(512), refused("w.pt")
    yield "a safetensors file", lambda: struct.pack("<Q", 2) + b"{}", refused("w.pt")
    for name, data in NOT_JSON:
        yield f"a file of {name}", lambda data=data: data, refused("w.pt")  # type: ignore[misc]


def _zip(*names: str) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return stream.getvalue()


def _doubling() -> bytes:
    """A small program for a list of 10^30 entries, all the same."""
    level = b"]q\0"
    for i in range(30):
        level += b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1])
    return b"\x80\x02" + level + b"."


def _of_run(make: Make | Callable[[Path], None]) -> Callable[[Path], Action]:
    from_file = make in [special for _, special in SPECIAL]

    def given(folder: Path) -> Action:
        from detector.weights.final import read_final

        job = _job().train
        run = RunDir(folder / job.id)
        run.final.parent.mkdir(parents=True)
        make(run.final) if from_file else run.final.write_bytes(make())  # type: ignore[call-arg,arg-type]
        return lambda: bool(read_final(run, job))

    return given


def _of_file(make: Make, *, shown: bool) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        from detector.weights.read import read_weights

        path = folder / "w.pt"
        path.write_bytes(make())
        return command("weights", "show", "w.pt") if shown else lambda: read_weights(path)

    return given


def _special(make: Callable[[Path], None], *verb: str) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        make(folder / "w.pt")
        return command(*verb)

    return given


def _cases() -> Iterator[Case]:
    area = "weights"
    for name, make, expected in _own_cases():
        yield Case(area, f"a run's: {name}", _of_run(make), expected)
    for i, (name, make, expected) in enumerate(_any_cases()):
        yield Case(area, name, _of_file(make, shown=i % 3 == 0), expected)
    for name, special in SPECIAL:
        yield Case(area, f"a run's: {name}", _of_run(special), refused("final.pt"))
        yield Case(area, f"{name}, shown", _special(special, "weights", "show", "w.pt"), refused("w.pt"))
        convert = _special(special, "weights", "convert", "w.pt", "--to", "detectron2", "--out", "x.pt")
        yield Case(area, f"{name}, converted", convert, refused("w.pt"))


CASES: Final = tuple(_cases())
