"""Every shipped YAML file, damaged in many ways: it is read, or refused by name, and nothing else happens."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from detector.errors import HarnessError
from harness.folders import experiments_folder
from harness.registry import sources
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe, resolve
from harness.registry.yaml_files import Document, read
from harness.slurm.clusters import read_cluster

MUTANTS = 300
VALUES = [
    *("2026-13-45", "2001-01-01", "4:30", "0400", "0o9", "1e999", "1e308", ".nan", "-.inf", "-1", "0", "1.5", "-0"),
    *("9" * 5000, "99999999999999999999", "true", "~", "null", "''", "[]", "{}", "[[1]]", "{a: {b: c}}", "[1, a, ~]"),
    *("!!python/object:os.system x", "!!binary ab", "!!set {a, b}", "!!int x", "&a [*a]", "*b", "<<: *x", "? [a]: b"),
    *("\x00", "\x1b[31m", "'unclosed", '"\\ud800"', "- - -", "%YAML 1.1", "---", "...", "| x", "\t", "a: b: c", "@x"),
    *("{source: coco}", "{name: dr}", "{name: focal}", "é", "optimizer.lr", "a..b", "../../x"),
]
CHARACTERS = [*"[]{}:,&*!|>'\"%#-?\n \t", *map(chr, (0, 7, 27, 127, 128, 160, 0x2028, 0xFEFF, 0x10FFFF))]


def _cut(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + text[at + rng.randrange(1, 6) :]


def _insert(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice([*VALUES, *CHARACTERS]) + text[at + rng.randrange(2) :]


def _replace_value(text: str, rng: random.Random) -> str:
    found = rng.choice(list(re.finditer(r"(?<=: )[^\n,}]+", text)) or list(re.finditer(r"\w+", text)))
    return text[: found.start()] + rng.choice(VALUES) + text[found.end() :]


def _replace_word(text: str, rng: random.Random) -> str:
    words = list(re.finditer(r"[\w./-]+", text))
    found, other = rng.choice(words), rng.choice(words).group()
    return text[: found.start()] + rng.choice([*VALUES, other]) + text[found.end() :]


def _move_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randrange(len(lines) + 1), "  " * rng.randrange(3) + line)
    return "\n".join(lines)


MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (_cut, _insert, _replace_value, _replace_word, _move_line)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Up to three changes of text; in one of ten files a bit is flipped too."""
    text = content.decode()
    for _ in range(rng.randrange(1, 4)):
        text = rng.choice(MUTATIONS)(text, rng) or "x"
    damaged = bytearray(text.encode("utf-8"))
    if rng.random() < 0.1:
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def use_all(folder: Path) -> None:
    """Read every file as the commands do; each table's first row at every profile becomes a job."""
    registry = Registry(folder)
    _ = registry.claims, registry.own_claims, registry.ledger, registry.speeds
    for name in registry.recipes:
        recipe(registry, name)
    for name in registry.profiles:
        for table in registry.tables.values():
            for ref in table.refs(name)[:2]:
                assert jobs(resolve(registry, ref, registry.profile(name)), seed=0)[0].id


def test_a_damaged_file_of_experiments_is_read_or_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "experiments"
    shutil.copytree(experiments_folder(), folder)
    whole = {path: path.read_bytes() for path in sorted(folder.rglob("*.yaml"))}
    documents = {path: read(path) for path in whole}  # whole files are read once

    def read_or_known(path: Path) -> Document:
        return documents[path] if path.read_bytes() == whole.get(path) else read(path)

    monkeypatch.setattr(sources, "read", read_or_known)
    rng, refused = random.Random(14), list[str]()
    for _ in range(MUTANTS):
        path = rng.choice(list(whole))
        path.write_bytes(mutated(whole[path], rng))
        try:
            read_cluster(path) if path.parent.name == "clusters" else use_all(folder)
        except HarnessError as error:
            refused.append(str(error))
        path.write_bytes(whole[path])
    assert MUTANTS / 4 < len(refused) < MUTANTS
    assert [text for text in refused if ".yaml" not in text] == []
    assert max(map(len, refused)) < 5000
