"""Bundles that were damaged or tampered with: each is named, refused as a whole, and nothing is written."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.errors import HarnessError, RecordError
from harness.bundles import format as bundle
from harness.bundles.format import read_bundle
from harness.bundles.pack import gather, write_bundle
from tests.command import error
from tests.harness.bundles.sites import (
    change,
    change_manifest,
    forge,
    job_of,
    manifest,
    members,
    place,
    put_run,
    record_of,
    write_members,
)

pytestmark = pytest.mark.usefixtures("empty_folders")

JOBS = (job_of(seed=0), job_of(seed=1))
FIRST = f"{JOBS[0].id}.json"
WEIGHTS = f"{JOBS[0].train.id}.pt"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two records, and the weights of both."""
    store = place(tmp_path / "other")
    for job in JOBS:
        put_run(store, record_of(job), b"weights of seed %d" % job.train.seed)
    path = tmp_path / "bundle.zip"
    write_bundle(path, gather(store, profile=None, eval_ids=None, with_weights=True))
    return path


def add(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    return lambda file: write_members(file, [*members(file), (name, data)])


def drop(name: str) -> Callable[[Path], None]:
    return lambda file: write_members(file, [pair for pair in members(file) if not pair[0].endswith(name)])


def swap_records(file: Path) -> None:
    (a, first), (b, second), *rest = members(file)
    write_members(file, [(a, second), (b, first), *rest])


def swap_records_and_hashes(file: Path) -> None:
    """Each record under the other's name, with the hash that fits."""
    swap_records(file)
    one, two = (entry["sha256"] for entry in manifest(file)["records"])
    change(
        file,
        "manifest.json",
        lambda data: data.replace(one.encode(), b"#").replace(two.encode(), one.encode()).replace(b"#", two.encode()),
    )


def edit_text(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def edited(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new)

    return lambda file: change(file, name, edited)


def edit_manifest(edit: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda file: change_manifest(file, edit)


def recompress(file: Path) -> None:
    write_members(file, members(file), zipfile.ZIP_DEFLATED)


def mark_encrypted(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the first member's flags in the directory
    file.write_bytes(data)


def spoil_name(file: Path) -> None:
    """A name in the directory that claims to be UTF-8 and is not."""
    data = bytearray(file.read_bytes())
    start = data.index(b"PK\x01\x02")
    data[start + 9] |= 8
    data[start + 46] = 0xFF
    file.write_bytes(data)


def point_past_the_end(file: Path) -> None:
    """A local header whose extra field would reach beyond the file."""
    data = bytearray(file.read_bytes())
    start = data.index(b"PK\x03\x04")
    data[start + 28 : start + 30] = b"\xff\xff"
    file.write_bytes(data)


def overlap(file: Path) -> None:
    """Three directory entries that lead to the same local file, as a bomb has them."""
    data = file.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start : data.index(b"PK\x01\x02", start + 1)]
    directory, tail = data[start:end] + entry * 3, bytearray(data[end:])
    count = int.from_bytes(tail[8:10], "little") + 3
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = len(directory).to_bytes(4, "little")
    file.write_bytes(data[:start] + directory + tail)


TAMPERED = {
    "edited metric": (edit_text(FIRST, b"20.0", b"29.0"), rf"{FIRST}' has another sha256"),
    "edited metric and hash, other job": (
        lambda file: forge(file, FIRST, lambda record: record["job"]["train"].update(seed=9)),
        rf"{FIRST}': its job has the ids",
    ),
    "edited metric without the record's own hash": (
        lambda file: forge(file, FIRST, lambda record: record.update(format=2, metrics={"AP": 29.0})),
        rf"{FIRST}': it has no hash of its content",
    ),
    "edited metric beside the record's own hash": (
        lambda file: forge(file, FIRST, lambda record: record.update(format=2, sha256="0" * 64)),
        rf"{FIRST}': its content does not have the hash that it names",
    ),
    "training's id that leads outside": (
        lambda file: forge(file, FIRST, lambda record: record.update(train_id="../../away")),
        rf"{FIRST}': its job has the ids",
    ),
    "another profile": (
        lambda file: forge(file, FIRST, lambda record: record.update(profile="../../away")),
        r"its profile '../../away' cannot be part of a path",
    ),
    "field that no record has": (
        lambda file: forge(file, FIRST, lambda record: record.update(host="mine")),
        rf"{FIRST}' cannot be read as Record",
    ),
    "swapped records": (swap_records, r"has another sha256(.|\n)*has another sha256"),
    "swapped records and hashes": (swap_records_and_hashes, r"is the record of tiny/"),
    "swapped weights": (lambda file: change(file, WEIGHTS, lambda data: b"mine"), rf"{WEIGHTS}' has another sha256"),
    "hash that is another": (edit_manifest(lambda m: m["records"][0].update(sha256="0" * 64)), "has another sha256"),
    "unknown file": (add("notes.txt"), r"'notes.txt' is not in manifest.json"),
    "unknown record": (add("records/tiny/0123456789abcdef.json"), "is not in manifest.json"),
    "folder": (add("records/", b""), "'records/' is not in manifest.json"),
    "parent folder": (add("../records/tiny/x.json"), r"'../records/tiny/x.json' would be written outside"),
    "parent folder inside": (add("records/../../x.json"), "would be written outside"),
    "absolute path": (add("/etc/x"), "'/etc/x' would be written outside"),
    "drive": (add("C:x"), "'C:x' would be written outside"),
    "backslash": (add("..\\x"), "would be written outside"),
    "missing record": (drop(FIRST), rf"{FIRST}' is in manifest.json, but missing"),
    "missing weights": (drop(WEIGHTS), rf"{WEIGHTS}' is in manifest.json, but missing"),
    "missing manifest": (drop("manifest.json"), "has no manifest.json"),
    "member twice": (lambda file: write_members(file, [*members(file), members(file)[0]]), "is in the zip twice"),
    "record listed twice": (edit_manifest(lambda m: m["records"].append(m["records"][0])), "lists record .* twice"),
    "weights listed twice": (edit_manifest(lambda m: m["weights"].append(m["weights"][0])), "lists weights .* twice"),
    "weights of no record": (
        lambda file: (drop(FIRST)(file), change_manifest(file, lambda m: m["records"].pop(_index(m)))),
        rf"{WEIGHTS}' belongs to no packed record",
    ),
    "profile that leads outside": (
        edit_manifest(lambda m: m["records"][0].update(profile="../../away")),
        "manifest.json cannot be read",
    ),
    "profile with a line break": (
        edit_manifest(lambda m: m["records"][0].update(profile="tiny\n")),
        "manifest.json cannot be read",
    ),
    "training that leads outside": (
        edit_manifest(lambda m: m["weights"][0].update(train_id="../" * 5 + "a")),
        "manifest.json cannot be read",
    ),
    "unknown field": (edit_manifest(lambda m: m.update(host="mine")), "manifest.json cannot be read"),
    "later format": (edit_manifest(lambda m: m.update(format=2)), "bundle of format 2; this version reads format 1"),
    "manifest that is a list": (lambda f: change(f, "manifest.json", lambda data: b"[]"), "cannot be read"),
    "manifest that is no JSON": (
        lambda f: change(f, "manifest.json", lambda data: b"\xff{"),
        "byte 0xff is not",
    ),
    "manifest without a bottom": (
        lambda file: change(file, "manifest.json", lambda data: b"[" * 1_000_000),
        "manifest.json is nested more than 100 deep",
    ),
    "compressed": (recompress, "is compressed, as no member of a bundle is"),
    "encrypted": (mark_encrypted, "is encrypted"),
    "large record": (
        lambda file: change(file, FIRST, lambda data: data + b" " * bundle.MAX_RECORD),
        rf"{FIRST}' has 1,\d+,\d+ bytes; at most 1,048,576",
    ),
    "name that is no text": (spoil_name, "not a whole bundle"),
    "data past the end": (point_past_the_end, "not a whole bundle"),
    "overlapping": (overlap, "members overlap"),
    "cut off": (lambda file: file.write_bytes(file.read_bytes()[:-30]), "not a whole bundle"),
    "without its beginning": (lambda file: file.write_bytes(file.read_bytes()[30:]), "not a whole bundle"),
    "empty": (lambda file: file.write_bytes(b""), "not a whole bundle"),
    "no zip": (lambda file: file.write_bytes(b"words" * 100), "not a whole bundle"),
}


def _index(content: dict) -> int:
    return next(i for i, entry in enumerate(content["records"]) if entry["eval_id"] == JOBS[0].id)


@pytest.mark.parametrize("name", TAMPERED)
def test_import_of_a_tampered_bundle_is_refused_by_name_and_writes_nothing(
    name: str, file: Path, tmp_path: Path
) -> None:
    tamper, message = TAMPERED[name]
    before = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    good = tmp_path / "good.zip"
    good.write_bytes(file.read_bytes())
    tamper(file)
    with pytest.raises(RecordError, match=message) as caught:
        read_bundle(file)
    assert str(file) in str(caught.value)
    assert error("bundle", "import", str(good), str(file)) == str(caught.value)
    assert {path for path in tmp_path.rglob("*") if "other" not in path.parts} == before | {good}


def test_import_of_the_same_bundle_untouched_is_taken(file: Path) -> None:
    taken = read_bundle(file)
    assert [item.record.job for item in taken.records] == sorted(JOBS, key=lambda job: job.id)
    assert sorted(taken.weights) == sorted(job.train.id for job in JOBS)
    write_members(file, members(file))  # packed by another program that does not compress: as good
    assert read_bundle(file) == taken


def test_import_of_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    assert "harness bundle export" in error("bundle", "import", str(tmp_path / "none.zip"))
    assert "harness bundle export" in error("bundle", "import", str(tmp_path))


def test_a_message_names_many_faults_and_counts_the_rest(file: Path) -> None:
    extra = [(f"extra-{number:02}", b"") for number in range(15)]
    write_members(file, [*members(file), *extra])
    with pytest.raises(RecordError, match=r"'extra-00' .*(.|\n)*'extra-09' .*\n  and 5 more"):
        read_bundle(file)


def test_weights_over_the_limit_are_refused_before_they_are_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_WEIGHTS", 10)
    with pytest.raises(RecordError, match=rf"{WEIGHTS}' has 17 bytes; at most 10"):
        read_bundle(file)
    monkeypatch.setattr(bundle, "MAX_MANIFEST", 10)
    with pytest.raises(RecordError, match="'manifest.json' has .* bytes; at most 10"):
        read_bundle(file)


def test_any_flipped_byte_is_refused_or_changes_nothing(file: Path) -> None:
    """Bytes that a zip says twice, or that nobody reads, may flip; what is taken is what was packed."""
    data = file.read_bytes()
    directory = data.index(b"PK\x01\x02")
    untouched = read_bundle(file)
    refused = 0
    for place_of_damage in [*range(0, directory, 23), *range(directory, len(data))]:
        damaged = bytearray(data)
        damaged[place_of_damage] ^= 0x41
        file.write_bytes(damaged)
        try:
            assert read_bundle(file) == untouched
        except HarnessError:
            refused += 1
    assert refused > 100


def test_any_cut_is_refused(file: Path) -> None:
    data = file.read_bytes()
    for length in range(0, len(data), 41):
        file.write_bytes(data[:length])
        with pytest.raises(RecordError):
            read_bundle(file)
