"""Bundles: zip files from others. What is not whole, or lies, is refused, and nothing of it is written."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from harness.bundles.format import read_bundle
from tests.hostile.case import RESULTS, RUNS, Case, either, noted, refused, right
from tests.hostile.files import ALARM, NOT_JSON, SPECIAL
from tests.hostile.invariant import Action, command
from tests.hostile.readers import RECORD

Members = dict[str, bytes]
Manifest = dict[str, Any]
_RECORD: Final = json.loads(RECORD.read_text())
_ENTRY: Final = f"records/{_RECORD['profile']}/{RECORD.name}"
_WEIGHTS: Final = f"weights/{_RECORD['train_id']}.pt"


@cache
def good() -> Members:
    """Members of a bundle of one committed record."""
    data = RECORD.read_bytes()
    entry = {key: _RECORD[key] for key in ("eval_id", "train_id", "profile")} | {"sha256": _sum(data)}
    manifest = {"format": 1, "records": [entry], "weights": []}
    return {_ENTRY: data, "manifest.json": json.dumps(manifest).encode()}


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def _packed(change: Callable[[Members], object] = lambda _: None, *more: tuple[str, bytes]) -> bytes:
    members = dict(good())
    change(members)
    return _zip([*members.items(), *more])


def _manifest(edit: Callable[[Manifest], object]) -> bytes:
    def change(members: Members) -> None:
        found = json.loads(members["manifest.json"])
        edit(found)
        members["manifest.json"] = json.dumps(found).encode()

    return _packed(change)


def _entry(**values: Any) -> bytes:
    return _manifest(lambda found: found["records"][0].update(values))


def _record(edit: Callable[[Manifest], object], **values: Any) -> bytes:
    """The record changed, and the manifest's sum with it. values: of the manifest's entry."""

    def change(members: Members) -> None:
        record = json.loads(members.pop(_ENTRY))
        edit(record)
        data = json.dumps(record).encode()
        found = json.loads(members["manifest.json"])
        found["records"][0] |= {"sha256": _sum(data), **values}
        entry = found["records"][0]
        members["manifest.json"] = json.dumps(found).encode()
        members[f"records/{entry['profile']}/{entry['eval_id']}.json"] = data

    return _packed(change)


def _weights(data: bytes, *, stated: str | None = None, train_id: str = _RECORD["train_id"]) -> bytes:
    def change(members: Members) -> None:
        found = json.loads(members["manifest.json"])
        found["weights"].append({"train_id": train_id, "sha256": stated or _sum(data)})
        members["manifest.json"] = json.dumps(found).encode()
        members[f"weights/{train_id}.pt"] = data

    return _packed(change)


def _patched(offset: int, value: bytes, *, directory: bool) -> bytes:
    """Bytes of the first member's header replaced: in the zip's list of members, or before the member itself."""
    data = bytearray(_packed())
    start = data.index(b"PK\x01\x02") if directory else 0
    data[start + offset : start + offset + len(value)] = value
    return bytes(data)


def _flipped(place: float) -> bytes:
    data = bytearray(_packed())
    data[int(place * len(data))] ^= 16
    return bytes(data)


def _bomb() -> bytes:
    return _zip([*good().items(), ("records/tiny/bomb.json", bytes(50_000_000))], zipfile.ZIP_DEFLATED)


def _nested() -> bytes:
    return _zip([("bundle.zip", _packed())])


def _link() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in good().items():
            member = zipfile.ZipInfo(name)
            if name == _ENTRY:
                member.create_system, member.external_attr, data = 3, 0o120777 << 16, b"/etc/passwd"
            archive.writestr(member, data)
    return stream.getvalue()


NAMES: Final = (
    "../x.json",
    "../../../tmp/owned",
    "/tmp/owned",
    "records/../../x.json",
    "records/tiny/../../../x.json",
    "..\\x.json",
    "C:\\x.json",
    "C:x.json",
    "records/tiny/x.json",
    "records/tiny/",
    "x",
    "",
    ".",
    "..",
    "records//tiny/x.json",
    "./manifest.json",
    "manifest.json/x",
    "x\ny",
    ALARM,
    "x" * 60_000,
    "weights/../records/x.pt",
    "\u202egpj.json",
)


def _files() -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of bundles that must be refused."""
    for name in NAMES:
        yield f"a member {name[:40]!r}", _packed(lambda _: None, (name, b"x"))
    yield "the manifest twice", _doubled("manifest.json")
    yield "a record twice", _doubled(_ENTRY)
    yield "a bomb", _bomb()
    yield "compressed members", _zip(list(good().items()), zipfile.ZIP_DEFLATED)
    yield "compressed by bzip2", _zip(list(good().items()), zipfile.ZIP_BZIP2)
    yield "a bundle in a zip", _nested()
    yield "no members", _zip([])
    yield "a record that is a link", _link()
    yield "no manifest", _packed(lambda members: members.pop("manifest.json"))
    yield "no record", _packed(lambda members: members.pop(_ENTRY))
    yield "bytes after a record's end", _packed(lambda members: members.update({_ENTRY: members[_ENTRY] + b"x"}))
    yield "an empty record", _packed(lambda members: members.update({_ENTRY: b""}))
    for name, data in NOT_JSON:
        yield f"a manifest of {name}", _packed(lambda members, data=data: members.update({"manifest.json": data}))  # type: ignore[misc]
        yield f"a file of {name}", data
    yield "format 2", _manifest(lambda found: found.update(format=2))
    yield "format 999999999999999999999", _manifest(lambda found: found.update(format=10**21))
    yield "format of text", _manifest(lambda found: found.update(format="1"))
    yield "format true", _manifest(lambda found: found.update(format=True))
    yield "an unknown field", _manifest(lambda found: found.update(unknown=1))
    yield "records null", _manifest(lambda found: found.update(records=None))
    yield "a record listed twice", _manifest(lambda found: found["records"].append(found["records"][0]))
    yield (
        "a record listed that is not there",
        _manifest(lambda found: found["records"].append(found["records"][0] | {"eval_id": "0" * 16})),
    )
    yield "nothing listed", _manifest(lambda found: found.update(records=[]))
    yield "an id that leaves", _entry(eval_id="../../../../x")
    yield "an id of two lines", _entry(eval_id=_RECORD["eval_id"] + "\n")
    yield "a profile that leaves", _entry(profile="../..")
    yield "a profile that acts", _entry(profile=ALARM)
    yield "a profile of 5,000 letters", _entry(profile="x" * 5000)
    yield "another sum", _entry(sha256="0" * 64)
    yield "a sum that is none", _entry(sha256="x")
    yield "another training", _entry(train_id="0" * 16)
    yield "an AP of 1e9", _record(lambda record: record["metrics"].update(AP=1e9))
    yield "an AP above AP50", _record(lambda record: record["metrics"].update(AP=99.0))
    yield "another learning rate", _record(lambda record: record["job"]["train"]["optimizer"].update(lr=0.5))
    yield "a record of another profile", _record(lambda record: record.update(profile="paper"))
    yield "a record of another id", _record(lambda record: record.update(eval_id="0" * 16), eval_id="0" * 16)
    yield "a record of format 999", _record(lambda record: record.update(format=999))
    yield "weights of another sum", _weights(b"weights", stated="0" * 64)
    yield "weights of no record", _weights(b"weights", train_id="0" * 16)
    yield "weights that are not listed", _packed(lambda _: None, (_WEIGHTS, b"weights"))
    yield "a wrong checksum", _patched(16, b"\x00\x01\x02\x03", directory=True)
    yield "a size of 4 GB", _patched(20, struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0), directory=True)
    yield "a size of 0", _patched(20, struct.pack("<II", 0, 0), directory=True)
    yield "an encrypted member", _patched(8, b"\x01\x00", directory=True)
    yield "an unknown compression", _patched(10, struct.pack("<H", 99), directory=True)
    yield "a version of zip to come", _patched(6, struct.pack("<H", 900), directory=True)
    yield "an offset past the end", _patched(42, struct.pack("<I", 0xFFFFFF00), directory=True)
    yield "another name before the member", _patched(30, b"RECORDS", directory=False)
    yield "zip bytes, 200 times", _packed() * 200 + b"x" * 70_000
    for share in range(1, 10):
        data = _packed()
        yield f"cut at {share / 10:.0%}", data[: share * len(data) // 10]


def _doubled(name: str) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _packed(lambda _: None, (name, good()[name]))


def _import(data: bytes | Callable[[Path], None], *more: str) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        data(folder / "b.zip") if callable(data) else (folder / "b.zip").write_bytes(data)
        return command("bundle", "import", "b.zip", *more)

    return given


def _read(data: bytes) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        (folder / "b.zip").write_bytes(data)
        return lambda: read_bundle(folder / "b.zip")

    return given


def _there(other: bool) -> Callable[[Path], Action]:
    """Imported where the record is already, the same or with other numbers."""

    def given(folder: Path) -> Action:
        path = folder / RESULTS / _ENTRY
        path.parent.mkdir(parents=True)
        record = json.loads(RECORD.read_text())
        record["metrics"]["AP"] += 0.5 if other else 0.0
        path.write_text(json.dumps(record) if other else RECORD.read_text())
        return _import(_packed())(folder)

    return given


def _cases() -> Iterator[Case]:
    area = "bundles"
    yield Case(area, "no fault", _import(_packed()), right(), writes=(RESULTS, RUNS))
    yield Case(area, "no fault, looked at only", _import(_packed(), "--dry-run"), right())
    yield Case(area, "the record is there", _there(other=False), right(), writes=(f"{RESULTS}/.lock", RUNS))
    yield Case(area, "the record is there with other numbers", _there(other=True), noted(), writes=(RUNS,))
    for i, (name, data) in enumerate(_files()):
        yield Case(area, name, _import(data) if i % 2 else _read(data), refused("b.zip"))
    for name, make in SPECIAL:
        yield Case(area, f"that is {name}", _import(make), refused("b.zip"))
    yield Case(area, "weights that are none", _import(_weights(b"weights")), refused("b.zip"))
    for place in range(20):
        yield Case(area, f"a bit flipped at {place / 20:.0%}", _read(_flipped(place / 20)), either())


CASES: Final = tuple(_cases())
