"""YAML 1.2's core schema: values, and what no file may have, each with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.errors import RegistryError, UsageError
from harness.registry.core_schema import parse
from harness.registry.resolve import parse_overrides
from harness.registry.yaml_files import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4:30", "4:30"),  # YAML 1.1: 270
        ("0400", 400),  # YAML 1.1: 256
        ("0o400", 256),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("~", None),
        ("", None),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("-7", -7),
        ("+1.", 1.0),
        ("2026-13-45", "2026-13-45"),
        ("2001-12-14", "2001-12-14"),
        ("<<", "<<"),
        ("=", "="),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!float 3", 3.0),
        ("[1, [2, {a: b}]]", [1, [2, {"a": "b"}]]),
        ("{on: 1, 1: 2}", {"on": 1, "1": 2}),
        ("[&a {x: 1}, *a]", [{"x": 1}, {"x": 1}]),
        ("٣", "٣"),  # an Arabic digit is no number
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(text)[0]
    assert found == value
    assert type(found) is type(value)
    assert parse_overrides([f"a.b={text}"]) == {"a.b": value}


def test_what_an_alias_repeats_is_a_value_of_its_own() -> None:
    first, second = parse("[&a {x: 1}, *a]")[0]
    assert first is not second


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "unknown tag 'tag:yaml.org,2002:python/object"),
        ("a: 1\nb: !mine x\n", 2, "unknown tag '!mine'"),
        ("a: !!binary aGk=\n", 1, "unknown tag"),
        ("a: !!timestamp 2001-12-14\n", 1, "unknown tag"),
        ("a: !!set {x, y}\n", 1, "unknown tag"),
        ("a: !!int 1.5\n", 1, "'1.5' is not what its tag says, int"),
        ("a: 1\n\na: 2\n", 3, r"key 'a' is written twice \(first in line 1\)"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "a key is a list, a mapping or an alias"),
        ("a: &x b\n*x : 2\n", 2, "a key is a list, a mapping or an alias"),
        ("a: 1\n!!int 2: 3\n", 2, "keys are text"),
        ("a: 1\nb: &c [*c]\n", 2, "would contain itself"),
        ("a: 1\nb: &c {d: {e: *c}}\n", 2, "would contain itself"),
        ("a: 1\nb: *c\n", 2, r"\*c repeats something"),
        (BOMB, 6, "more than 100,000 values"),
        ("a:\n  " + "[" * 100_000, 2, "nested more than 100 deep"),
        ("a: " + "{a: " * 5_000, 1, "nested more than 100 deep"),
        ("a: &x " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*x" + "]" * 60, 2, "nested more than 100 deep"),
        ("a: 1\nb: " + "9" * 5_000, 2, "a number of 5,000 digits; at most 400"),
        ("a: 1\nb: 0x" + "f" * 5_000, 2, "digits; at most 400"),
        ("a: 1e999\n", 1, "'1e999' is too large for a number"),
        ("a: 1\nb: .inf\n", 2, "b is inf: not a finite number"),
        ("a: 1\nb: [1, .nan]\n", 2, "b.1 is nan: not a finite number"),
        ("a: 1\nb: x\x00y\n", 2, r"the character U\+0000"),
        ("a: 1\nb: \x1b[31mred\n", 2, r"the character U\+001B"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("%YAML 1.1\n---\na: 1\n", 1, "values are read as YAML 1.2"),
        ("a: 1\nb: [1\n", 3, "not valid YAML"),
        ("a: 1\nb: @x\n", 2, "not valid YAML"),
    ],
)
def test_what_no_file_may_have_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_file_that_is_not_utf8_or_too_large_or_no_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(RegistryError, match=r"file\.yaml:2: byte 0xff is not UTF-8"):
        read(path)
    path.write_bytes(b"# " + b"x" * 5 * 2**20)
    with pytest.raises(RegistryError, match=r"at most 4,194,304 are read"):
        read(path)
    with pytest.raises(RegistryError, match=r"is a folder|Is a directory"):
        read(tmp_path)
    with pytest.raises(RegistryError, match=r"/dev/zero is a device"):
        read(Path("/dev/zero"))


def test_a_byte_order_mark_and_an_empty_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(path).data == {"a": 1}
    path.write_bytes(b"# nothing\n")
    assert read(path).data == {}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["a=!!python/name:os.system"], "--set a: unknown tag"),
        (["a=" + "[" * 1_000_000], "nested more than 100 deep"),
        (["a=" + "9" * 5_000], "a number of 5,000 digits"),
        (["a=[1"], "--set a: not valid YAML"),
        (["a=1", "a=2"], r"--set gives a two values: a=1 and a=2"),
        (["a={b: 1}", "a.b=2"], r"--set gives a.b two values"),
        (["a.b=1", "a=2"], r"--set gives a two values"),
        (["a.b=1", "a.b.c=2"], r"--set gives a.b.c two values"),
    ],
)
def test_a_value_of_set_is_bounded_and_given_once(items: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_overrides(items)
    assert len(str(caught.value)) < 1000


def test_the_same_value_twice_and_two_parts_of_a_block_are_fine() -> None:
    assert parse_overrides(["a=1", "a=1"]) == {"a": 1}
    assert parse_overrides(["a={b: 1}", "a.c=2"]) == {"a": {"b": 1}, "a.c": 2}
