"""One flipped bit in one of many records: the file is named, the others are shown."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest

from detector.runs.folder import read_own_record
from harness.store.records import Store
from support.records import results_of_first_format
from tests.command import invoke

COMMITTED = Path(__file__).parents[3] / "results" / "records"


def flip(path: Path, draw: random.Random) -> bytes:
    """Flip one random bit. Returns what the file held."""
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)
    return content


def committed(results: Path) -> list[Path]:
    """A copy of the committed records, each of which has a hash of its content. Returns their files."""
    shutil.copytree(COMMITTED, results / "records")
    return sorted(results.glob("records/*/*.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("empty_folders")
def test_table_names_a_damaged_record_and_shows_the_others(tmp_path: Path) -> None:
    """Every fourth record in turn, to save time."""
    results, draw = tmp_path / "results", random.Random(2)
    paths = committed(results)
    for path in paths[::4]:
        content = flip(path, draw)
        shown = "".join(invoke("table", "all", "--profile", "tiny").output.split())  # notes are wrapped
        assert path.name in shown
        assert "Table4" in shown
        assert len(Store(tmp_path / "runs", results).records) == len(paths) - 1
        path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.usefixtures("empty_folders")
def test_each_record_with_a_flipped_bit_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    """Records of format 2 have a hash: every flip is seen, or leaves the content equal."""
    results = tmp_path / "results"
    paths = committed(results)
    whole = {record.eval_id: record for record in Store(tmp_path / "runs", results).records}
    draw, seen = random.Random(0), 0
    for path in paths:
        content = flip(path, draw)
        store = Store(tmp_path / "runs", results)
        read = {record.eval_id: record for record in store.records}
        assert [item.path for item in store.set_aside] in ([path], [])
        assert read == {name: record for name, record in whole.items() if not (store.set_aside and name == path.stem)}
        seen += len(store.set_aside)
        path.write_bytes(content)
    assert seen > len(paths) // 2  # a third of a record is white space between its fields, whose bits are seen too


@pytest.mark.slow
@pytest.mark.usefixtures("empty_folders")
def test_a_record_without_a_hash_shows_a_flipped_bit_outside_of_its_numbers_and_words(tmp_path: Path) -> None:
    """Format 1 shows all flips but those in a number that stays possible, or in the words of its environment."""
    results = results_of_first_format(COMMITTED.parent, tmp_path / "results")
    paths = sorted(results.glob("records/*/*.json"))
    draw, unseen = random.Random(1), 0
    for path in paths:
        before = msgspec.to_builtins(read_own_record(path))
        content = flip(path, draw)
        store = Store(tmp_path / "runs", results)
        assert len(store.records) + len(store.set_aside) == len(paths)
        if not store.set_aside:
            after = msgspec.to_builtins(read_own_record(path))
            assert {name for name in before if before[name] != after[name]} <= {
                *("metrics", "environment", "code", "finished", "train_seconds", "eval_seconds"),
                *("train_split", "test_split", "notes", "timing"),
            }
            unseen += 1
        path.write_bytes(content)
    assert unseen < len(paths) // 3


@pytest.mark.usefixtures("empty_folders")
def test_table_names_the_damaged_file_and_shows_the_rest(tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(COMMITTED, results / "records")
    path = sorted(results.glob("records/tiny/*.json"))[0]
    path.write_bytes(path.read_bytes().replace(b'"format"', b'"fOrmat"'))
    shown = " ".join(invoke("table", "table2", "--profile", "tiny").stdout.split())  # notes are wrapped
    assert path.name in shown
    assert "cannot be read as Record" in shown
    assert "23." in shown
