"""Records in the results folder, run folders, and bundles: what is broken is named, and the rest is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from detector.runs.folder import RunDir, read_train_job
from detector.runs.record import Record, read_record
from harness.store.curves import read_curve
from support.records import first_format
from tests.hostile.case import Case, Expected, either, refused, right
from tests.hostile.files import ALARM, NOT_JSON, SPECIAL
from tests.hostile.invariant import PROJECT, Action, command

Content = dict[str, Any]
Edit = Callable[[Content], object]
COMMITTED: Final = PROJECT / "results" / "records" / "tiny"


@cache
def _texts() -> tuple[tuple[str, str], ...]:
    """(file name, text) of three committed records, in the first format: no hash shows that one was changed."""
    paths = sorted(COMMITTED.glob("*.json"))[:3]
    return tuple((path.name, _text(first_format(read_record(path)))) for path in paths)


def _text(record: Record) -> str:
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2).decode()


def _metrics(**values: Any) -> Edit:
    return lambda data: data["metrics"].update(values)


def _fields(**values: Any) -> Edit:
    return lambda data: data.update(values)


def _in(*keys: str, value: Any) -> Edit:
    def edit(data: Content) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return edit


OTHER_FOLDER: Final = "another folder's profile"
# Each makes a record that is not what it says, or cannot be.
FALSE: tuple[tuple[str, Edit], ...] = (
    ("AP 1e9", _metrics(AP=1e9)),
    ("AP -50", _metrics(AP=-50.0)),
    ("AP 100.1", _metrics(AP=100.1)),
    ("AP null", _metrics(AP=None)),
    ("AP of text", _metrics(AP="high")),
    ("AP true", _metrics(AP=True)),
    ("AP above AP50", _metrics(AP=90.0, AP50=50.0)),
    ("AP75 above AP50", _metrics(AP75=90.0, AP50=50.0)),
    ("an unknown metric", _metrics(BP=5.0)),
    ("no metrics", _fields(metrics={})),
    ("metrics a list", _fields(metrics=[])),
    ("a score of 7", _metrics(positive_score=7.0)),
    ("format 999", _fields(format=999)),
    ("format 0", _fields(format=0)),
    ("format -1", _fields(format=-1)),
    ("format of text", _fields(format="1")),
    ("another evaluation's id", _fields(eval_id="0" * 16)),
    ("another training's id", _fields(train_id="0" * 16)),
    ("an id that leaves", _fields(eval_id="../../x")),
    ("a training's id that leaves", _fields(train_id="../../x")),
    ("a profile that leaves", _fields(profile="../../x")),
    ("an absolute profile", _fields(profile="/tmp/x")),
    ("an empty profile", _fields(profile="")),
    ("a profile that acts", _fields(profile=ALARM)),
    (OTHER_FOLDER, _fields(profile="paper")),
    ("negative seconds", _fields(train_seconds=-1.0)),
    ("seconds of 1e308", _fields(train_seconds=1e308)),
    ("an unknown field", _fields(unknown=1)),
    ("an unknown field of the job", _in("job", "train", "unknown", value=1)),
    ("another seed", _in("job", "train", "seed", value=77)),
    ("a seed of 2^64", _in("job", "train", "seed", value=2**64)),
    ("another learning rate", _in("job", "train", "optimizer", "lr", value=0.5)),
    ("an unknown loss", _in("job", "train", "loss", "name", value="nowhere")),
    ("negative images", _in("test_split", "images", value=-5)),
    ("a sum that is none", _fields(sha256="0" * 64)),
    ("no job", lambda data: data.pop("job")),
    ("a job null", _fields(job=None)),
    ("a time that is none", _fields(finished="yesterday")),
)


def _results(folder: Path, change: Callable[[Path], object]) -> Path:
    """Three true records, of which the first is changed; returns its file."""
    tiny = folder / "results" / "records" / "tiny"
    tiny.mkdir(parents=True)
    for name, text in _texts():
        (tiny / name).write_text(text)
    path = tiny / _texts()[0][0]
    change(path)
    return path


def _edited(edit: Edit) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        data = json.loads(path.read_text())
        edit(data)
        path.write_text(json.dumps(data))

    return change


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _renamed(path: Path) -> None:
    path.rename(path.with_name("0123456789abcdef.json"))


def _moved(path: Path) -> None:
    other = path.parents[1] / "paper" / path.name
    other.parent.mkdir()
    path.rename(other)


def _flipped(place: float) -> Callable[[Path], object]:
    """One bit flipped at a share of the file's length."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 4
        path.write_bytes(bytes(data))

    return change


def _hashed(path: Path) -> None:
    """An AP changed by little in the committed file, which has a hash."""
    data = json.loads((COMMITTED / path.name).read_text())
    data["metrics"]["AP"] += 0.001
    path.write_text(json.dumps(data))


def _twice(path: Path) -> None:
    data = json.loads(path.read_text())
    data["metrics"]["AP"] += 1
    path.with_name("copy.json").write_text(json.dumps(data))


def _table(change: Callable[[Path], object], *verb: str, profile: str = "tiny") -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        _results(folder, change)
        return command(*verb, "table2", "--profile", profile)

    return given


def _read(change: Callable[[Path], object]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        path = _results(folder, change)
        return lambda: read_record(path)

    return given


def _record_cases() -> Iterator[Case]:
    area, file = "records", _texts()[0][0]
    changes = [(name, _edited(edit)) for name, edit in FALSE]
    changes += [(f"file of {name}", _bytes(data)) for name, data in NOT_JSON]
    changes += list(SPECIAL)
    changes += [("a key twice", lambda path: path.write_text(path.read_text().replace("{", '{"format": 1, ', 1)))]
    changes += [("NaN", lambda path: path.write_text(path.read_text().replace('"AP": ', '"AP": NaN, "x": ', 1)))]
    changes += [("1e999", lambda path: path.write_text(path.read_text().replace('"AP": ', '"AP": 1e999, "x": ', 1)))]
    changes += [("another AP beside the hash", _hashed)]
    changes += [("cut in the middle", lambda path: path.write_text(path.read_text()[:500]))]
    for name, change in changes:
        yield Case(area, f"{name}, in a table", _table(change, "table"), right(file))
        # A record alone does not say in which folder it belongs.
        yield Case(area, f"{name}, read", _read(change), right() if name == OTHER_FOLDER else refused(file))
    for name, change, said in (
        ("another file name", _renamed, "0123456789abcdef.json"),
        ("one evaluation twice", _twice, "copy.json"),
    ):
        yield Case(area, f"{name}, in a table", _table(change, "table"), right(said))
    yield Case(area, "another folder, in a table", _table(_moved, "table", profile="paper"), right(file))
    for i in range(20):
        yield Case(area, f"a bit flipped at {i / 20:.0%}, in a table", _table(_flipped(i / 20), "table"), either())
    for verb in ("check", "plan", "audit", "status"):
        for name, change in changes[:3] + changes[-8:]:
            yield Case(area, f"{name}, {verb}", _table(change, verb), Expected((0, 1, 2)))


# Status files: broken ones are named, and say nothing.
_STATUS: Final = {"phase": "training", "time": 1.0, "pid": 1, "iteration": 5, "iterations": 10, "loss": 1.0}
STATUS: tuple[tuple[str, Content], ...] = (
    ("no fault", {}),
    ("an unknown phase", {"phase": "sleeping"}),
    ("time of 1e308", {"time": 1e308}),
    ("time of -1e308", {"time": -1e308}),
    ("time of text", {"time": "now"}),
    ("iterations of 0", {"iterations": 0}),
    ("iterations of -1", {"iterations": -1}),
    ("iteration of 2^64", {"iteration": 2**64}),
    ("more iterations than there are", {"iteration": 10**9}),
    ("a message that acts", {"phase": "failed", "message": ALARM}),
    ("a message of 1 MB", {"phase": "failed", "message": "x" * 10**6}),
    ("a message of many lines", {"phase": "failed", "message": "a\nb\r\nc"}),
    ("half a surrogate pair", {"phase": "failed", "message": "\ud800"}),
    ("a note that acts", {"note": ALARM}),
    ("progress of 1e308", {"phase": "evaluating", "progress": 1e308}),
    ("health that acts", {"health": [ALARM]}),
    ("a loss of 1e308", {"loss": 1e308}),
    ("seconds of 0", {"seconds_per_iteration": 0.0}),
    ("seconds of -1", {"seconds_per_iteration": -1.0}),
    ("seconds of 1e308", {"seconds_per_iteration": 1e308}),
    ("a pid of 0", {"pid": 0}),
    ("a pid of -1", {"pid": -1}),
    ("a job that acts", {"job": ALARM}),
)


def _run(folder: Path, file: str, data: bytes | Callable[[Path], None]) -> RunDir:
    """A run folder of Table 2 that has begun, with one file as given, and a second that is whole."""
    for name, text in _texts()[:2]:
        record = json.loads(text)
        run = RunDir(folder / "runs" / record["train_id"])
        run.root.mkdir(parents=True)
        run.job.write_text(json.dumps(record["job"]["train"]))
        run.status.write_text(json.dumps(_STATUS))
        run.metrics.write_text('{"iteration": 5, "loss": 1.0, "lr": 0.1}\n')
        if name == _texts()[0][0]:
            changed = run.root / file
            data(changed) if callable(data) else changed.write_bytes(data)
            first = run
    return first


def _status(file: str, data: bytes | Callable[[Path], None], *verb: str) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        _run(folder, file, data)
        return command(*verb)

    return given


def _reader(file: str, data: bytes | Callable[[Path], None], read: Callable[[RunDir], Any]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        run = _run(folder, file, data)
        return lambda: read(run)

    return given


def _run_cases() -> Iterator[Case]:
    area, all_runs = "run folders", ("status", "all", "--profile", "tiny")
    for name, fields in STATUS:
        data = json.dumps(_STATUS | fields).encode()
        yield Case(area, f"a status with {name}", _status("status.json", data, *all_runs), right())
        yield Case(area, f"a failure with {name}", _status("failure-1.json", data, *all_runs), right())
    broken: list[tuple[str, bytes | Callable[[Path], None]]] = [(f"of {name}", data) for name, data in NOT_JSON]
    broken += [(f"that is {name}", make) for name, make in SPECIAL]
    for file in ("job.json", "status.json", "failure-1.json", "inputs.json"):
        for name, given in broken:
            yield Case(area, f"a {file} {name}", _status(file, given, *all_runs), right())
    reading: tuple[tuple[str, Callable[[RunDir], Any]], ...] = (
        ("job.json", read_train_job),
        ("metrics.jsonl", read_curve),
    )
    for file, read in reading:
        for name, given in broken:
            empty = file == "metrics.jsonl" and isinstance(given, bytes)
            yield Case(area, f"a {file} {name}, read", _reader(file, given, read), either() if empty else refused(file))
    for line in (
        b"{",
        b"[]",
        b'{"iteration": "x"}',
        b'{"iteration": 1e999}',
        b'{"iteration": NaN}',
        b'{"loss": 1}',
        b'{"iteration": 1, "loss": [1]}',
        b"\xff",
        b'{"iteration": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ):
        whole = b'{"iteration": 5, "loss": 1.0}\n' + line + b"\n"
        yield Case(
            area,
            f"a line {line[:30]!r} of metrics",
            _reader("metrics.jsonl", whole, read_curve),
            refused("metrics.jsonl:2"),
        )


CASES: Final = (*_record_cases(), *_run_cases())
