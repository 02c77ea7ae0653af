"""Which records are believed: numbers that cannot be, other formats, and places that contradict the content."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.findings import (
    KINDS,
    MOST_POINTS,
    OBJECTS,
    SIZES,
    Curves,
    LostAP,
    LostClasses,
    LostParts,
    Part,
    Scores,
)
from detector.runs.folder import RunDir, read_own_record
from detector.runs.record import Record, content_hash, decode_record, read_record
from detector.storage.files import write_json
from detector.storage.reading import read_json
from support.records import first_format

COMMITTED = sorted((Path(__file__).parents[3] / "results" / "records").glob("*/*.json"))
Edit = Callable[[dict[str, Any]], object]
FLIPS = 400


@pytest.fixture
def record() -> Record:
    """Of format 1."""
    return first_format(read_json(COMMITTED[0], Record))


@pytest.fixture
def newest(record: Record) -> Record:
    """The same in format 2, with curves and scores."""
    curves = Curves(iterations=(10, 400), values={"loss": (2.0, 0.5)})
    scores = Scores(positives=(1, 2), negatives=(3, 4), positive_sums=(1.0, 0.5), negative_sums=(2.0, 1.0))
    return sealed(replace(record, format=2, curves=curves, scores=scores, health=()))


def lost_parts() -> LostParts:
    part = Part(boxes=2, AP50=40.0, lost=LostAP(**dict.fromkeys(KINDS, 10.0)))
    classes = LostClasses(
        ids=(1, 5),
        names=("circle", "star"),
        boxes=(1, 1),
        AP50=(40.0, 40.0),
        lost=dict.fromkeys(KINDS, (10.0, 10.0)),
    )
    return LostParts(sizes={"small": part}, objects={"2-4": part}, classes=classes)


@pytest.fixture
def with_parts(newest: Record) -> Record:
    """The same with the AP lost in parts of the test set."""
    return sealed(replace(newest, lost_ap=LostAP(**dict.fromkeys(KINDS, 10.0)), lost_parts=lost_parts()))


def sealed(record: Record) -> Record:
    return replace(record, sha256=content_hash(record))


def edited(record: Record, edit: Edit) -> bytes:
    """The record's file after an edit that also writes the hash that fits."""
    plain = msgspec.to_builtins(record)
    edit(plain)
    if record.format > 1:
        with suppress(msgspec.ValidationError):  # it is no record any more
            plain["sha256"] = content_hash(msgspec.convert(plain, Record))
    return msgspec.json.encode(plain)


def test_all_committed_records_are_believed() -> None:
    assert len(COMMITTED) > 70
    for path in COMMITTED:
        assert read_own_record(path).eval_id == path.stem


def metric(name: str, value: object) -> Edit:
    return lambda plain: plain["metrics"].update({name: value})


IMPOSSIBLE: dict[str, tuple[Edit, str]] = {
    "far too high": (metric("AP", 1e9), "its AP is 1e+09, which is not in 0 .. 100"),
    "below zero": (metric("AP", -50), "its AP is -50, which is not in"),
    "no AP": (metric("AP", None), "it has no AP"),
    "AP left out": (lambda plain: plain["metrics"].pop("AP"), "it has no AP"),
    "AP50 is null": (metric("AP50", None), "its AP50 is null"),
    "AP above AP50": (metric("AP", 99.0), "its AP of 99 is above its AP50 of"),
    "AP75 above AP50": (metric("AP75", 99.0), "its AP75 of 99 is above its AP50 of"),
    "a score above 1": (metric("positive_score", 1.5), "its positive_score is 1.5, which is not in 0 .. 1"),
    "an unknown metric": (metric("AP99", 1.0), "it has a metric 'AP99'. Known: AP, AP50"),
    "negative seconds": (lambda plain: plain.update(train_seconds=-1.0), "its train_seconds is -1"),
    "absurd seconds": (lambda plain: plain.update(eval_seconds=1e300), "its eval_seconds is 1e+300"),
    "a negative count": (lambda plain: plain["test_split"].update(images=-3), "images in the test split is -3"),
    "no time": (lambda plain: plain.update(finished="yesterday"), "its time of finishing is 'yesterday'"),
    "a profile that is a path": (lambda plain: plain.update(profile="../../x"), "its profile '../../x' cannot be part"),
    "another training": (lambda plain: plain.update(train_id="0" * 16), "its job has the ids"),
    "no timed iterations": (
        lambda plain: plain.update(
            timing={"iterations": 0, "seconds": 1.0, "data_seconds": 0.0, "host_seconds": 0.0, "images_per_second": 1.0}
        ),
        "its number of timed iterations is 0",
    ),
    "a newer format": (lambda plain: plain.update(format=999), "written by a newer version: it has format 999"),
    "a newer format with new fields": (
        lambda plain: plain.update(format=999, news=1),
        "written by a newer version: it has format 999; this one reads 1 and 2",
    ),
    "a format that never was": (lambda plain: plain.update(format=0), "it has format 0"),
}


@pytest.mark.parametrize(("edit", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_record_that_cannot_be_is_refused_with_its_file(record: Record, newest: Record, edit: Edit, why: str) -> None:
    for each in (record, newest):
        with pytest.raises(RecordError) as caught:
            decode_record(edited(each, edit), where="some.json")
        assert str(caught.value).startswith("some.json: ")
        assert why in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda plain: plain["scores"].update(positives=[1]), "its scores have other bins"),
        (lambda plain: plain["scores"].update(positives=[-1, 2]), "smallest number of scores in a bin is -1"),
        (lambda plain: plain["curves"].update(iterations=[10]), "its curve of loss has 2 points, not 1"),
        (lambda plain: plain["curves"].update(iterations=[10, 10**9]), "last logged iteration is 1e"),
    ],
)
def test_findings_that_contradict_themselves_are_refused(newest: Record, edit: Edit, why: str) -> None:
    decode_record(edited(newest, lambda plain: None), where="it")
    with pytest.raises(RecordError, match=why):
        decode_record(edited(newest, edit), where="it")


def test_a_record_without_lost_parts_is_written_and_hashed_as_before_there_were_any(newest: Record) -> None:
    plain = msgspec.to_builtins(newest)
    assert "lost_parts" not in plain
    hashed = {name: value for name, value in plain.items() if name != "sha256"}
    assert content_hash(newest) == hashlib.sha256(msgspec.json.encode(hashed, order="sorted")).hexdigest()


def of_parts(*path: str, value: object) -> Edit:
    def edit(plain: dict[str, Any]) -> None:
        inner = plain["lost_parts"]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (of_parts("sizes", "huge", value={}), "cannot be read as Record"),
        (of_parts("objects", "3", value={}), "cannot be read as Record"),
        (of_parts("classes", "lost", "other", value=[1, 2]), "cannot be read as Record"),
        (of_parts("sizes", "small", "AP50", value=101), "its AP50 of size small is 101, which is not in 0 .. 100"),
        (of_parts("sizes", "small", "boxes", value=0), "its number of boxes of size small is 0, which is not in 1 .. "),
        (of_parts("objects", "2-4", "boxes", value=10**9), "of images with objects 2-4 is 1000000000, which is not in"),
        (of_parts("sizes", "small", "lost", "both", value=-1), "its lost AP (both) of size small is -1, which is not"),
        (of_parts("sizes", "small", "lost", "both", value=60.1), "is 60.1, which is not in 0 .. 60, what AP50 leaves"),
        (of_parts("classes", "AP50", value=[40]), "it has 1 AP50 of classes, not 2"),
        (of_parts("classes", "lost", "missed", value=[1, 2, 3]), "it has 3 missed of classes, not 2"),
        (of_parts("classes", "lost", value={}), "its classes have no lost AP of the kind classification, localisation"),
        (of_parts("classes", "ids", value=[5, 1]), "its classes are not in the order of their ids"),
        (of_parts("classes", "ids", value=[1, 1]), "or one is there twice"),
        (of_parts("classes", "names", value=["a" * 81, "b"]), "or a class's name has more than 80 characters"),
        (of_parts("classes", "lost", "missed", value=[1, 99]), "its lost AP (missed) of class 5 is 99"),
        (of_parts("classes", "boxes", value=[300, 10**6]), "which is not in 1 .. "),
        (lambda plain: plain.update(lost_ap=None), "it has lost AP in parts of its test set and none in all"),
    ],
)
def test_lost_parts_that_cannot_be_are_refused(with_parts: Record, edit: Edit, why: str) -> None:
    assert decode_record(edited(with_parts, lambda plain: None), where="it") == with_parts
    with pytest.raises(RecordError, match=re.escape(why)):
        decode_record(edited(with_parts, edit), where="it")


def test_parts_that_have_more_boxes_than_the_test_split_are_refused(with_parts: Record) -> None:
    boxes = with_parts.test_split.boxes

    def edit(plain: dict[str, Any]) -> None:
        plain["lost_parts"]["classes"]["boxes"] = [boxes, 1]

    with pytest.raises(RecordError, match=f"its classes have {boxes + 1} boxes together, the test split has {boxes}"):
        decode_record(edited(with_parts, edit), where="it")


def test_the_first_format_has_no_lost_parts(record: Record) -> None:
    old = replace(record, lost_parts=lost_parts())
    with pytest.raises(RecordError, match="it says that it has format 1, which has no lost_parts"):
        decode_record(msgspec.json.encode(old), where="it")


def test_a_record_of_80_classes_with_full_curves_has_less_than_40_kilobytes(with_parts: Record, tmp_path: Path) -> None:
    numbers = tuple(12.3456 + i / 7 for i in range(MOST_POINTS))
    names = [f"gradient_of_part_{i}" for i in range(12)]
    curves = Curves(
        iterations=tuple(range(0, 450 * MOST_POINTS, 450)),
        values={name: tuple(float(f"{number:.4g}") for number in numbers) for name in names},
    )
    part = replace(lost_parts().sizes["small"], AP50=12.3456)
    eighty = tuple(round(number, 4) for number in numbers[:80])
    classes = LostClasses(
        ids=tuple(range(1, 81)),
        names=("baseball glove",) * 80,
        boxes=(11004,) * 80,
        AP50=eighty,
        lost=dict.fromkeys(KINDS, eighty),
    )
    sizes = dict.fromkeys(SIZES, part)
    full = replace(
        with_parts,
        curves=curves,
        lost_parts=LostParts(sizes=sizes, objects=dict.fromkeys(OBJECTS, part), classes=classes),
    )
    write_json(tmp_path / "record.json", full)
    assert (tmp_path / "record.json").stat().st_size < 40_000


def test_a_record_of_the_newer_format_cannot_pass_as_one_without_a_hash(newest: Record) -> None:
    old = replace(newest, format=1, sha256=None)
    with pytest.raises(RecordError, match="it says that it has format 1, which has no scores, curves"):
        decode_record(msgspec.json.encode(old), where="it")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be read as Record"),
        (b"\xff\xfe", "byte 0xff is not UTF-8"),
        (b"[" * 100_000, "cannot be read as Record"),
        (b'{"format": NaN}', "cannot be read as Record"),
        (b'{"format": ' + b"1" * 100_000 + b"}", "cannot be read as Record"),
    ],
)
def test_bytes_that_are_no_record_give_one_sentence(content: bytes, why: str) -> None:
    with pytest.raises(RecordError, match=why):
        decode_record(content, where="it")


def test_a_key_written_twice_is_refused_where_no_hash_shows_it(record: Record) -> None:
    content = msgspec.json.encode(record).replace(b'"AP":', b'"AP":99.0,"AP":', 1)
    with pytest.raises(RecordError, match="key 'AP' is written twice"):
        decode_record(content, where="it")


def test_a_file_name_or_folder_that_contradicts_the_content_is_named(record: Record, tmp_path: Path) -> None:
    other, run = "0123456789abcdef", RunDir(tmp_path / record.train_id)
    wrong = {
        tmp_path / "records" / "tiny" / f"{other}.json": f"not of tiny/{other}, as its name says",
        tmp_path / "records" / "small" / f"{record.eval_id}.json": "not of small/",
        run.record(other): f"not of {other}, as its folder says",
        RunDir(tmp_path / other).record(record.eval_id): f"a record of the training {record.train_id}, not of {other}",
    }
    for path, why in wrong.items():
        write_json(path, record)
        with pytest.raises(RecordError, match=why) as caught:
            read_own_record(path)
        assert str(path) in str(caught.value)
        assert read_record(path) == record  # wherever a person has copied it
    for path in (run.record(record.eval_id), RunDir(tmp_path / "copy of mine").record(record.eval_id)):
        write_json(path, record)
        assert read_own_record(path) == record


def test_a_flipped_bit_of_a_record_with_a_hash_is_seen_or_changes_nothing(with_parts: Record) -> None:
    content = msgspec.json.format(msgspec.json.encode(with_parts), indent=2)
    draw = random.Random(0)
    for _ in range(FLIPS):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        with suppress(RecordError):
            assert decode_record(bytes(damaged), where="it") == with_parts
