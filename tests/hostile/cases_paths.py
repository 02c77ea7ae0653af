"""Paths and outputs: nothing of the user's is replaced unasked, whatever stands where a result should go."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.hostile.case import RESULTS, Case, Expected, either, refused, right, told
from tests.hostile.cases_bundles import good
from tests.hostile.coco import write_root
from tests.hostile.files import ALARM, dangling, loop, pipe, zeros
from tests.hostile.invariant import Action, command

Make = Callable[[Path], None]
AREA: Final = "paths and outputs"


def _record(folder: Path) -> None:
    """A results folder with one record."""
    for name, data in good().items():
        path = folder / RESULTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _root(folder: Path) -> None:
    write_root(folder)


def _nothing(folder: Path) -> None:
    """The command needs no files."""


# Commands that write one file, and those that write a folder, with OUT in the place of its name.
FILES: Final[tuple[tuple[str, Make], ...]] = (
    ("schema table --out OUT", _nothing),
    ("bundle export OUT", _record),
)
FOLDERS: Final[tuple[tuple[str, Make], ...]] = (
    ("data subset root --out OUT --images 2", _root),
    ("data fix root OUT", _root),
    ("data synth --train 1 --test 1 --size 32 --out OUT", _nothing),
)


def _file(path: Path) -> None:
    path.write_text("the user's own")


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "photo.jpg").write_text("the user's own")


def _empty_folder(path: Path) -> None:
    path.mkdir()


def _link_to_file(path: Path) -> None:
    _file(path.with_name("own"))
    path.symlink_to("own")


def _link_to_folder(path: Path) -> None:
    _full_folder(path.with_name("own"))
    path.symlink_to("own")


def _socket(path: Path) -> None:
    # Its path may not be long, so it is bound by a name relative to the working directory.
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def _hard_link(path: Path) -> None:
    _file(path.with_name("own"))
    os.link(path.with_name("own"), path)


# What stands where the result should go, and may never be replaced.
NEVER: Final[tuple[tuple[str, Make], ...]] = (
    ("a full folder", _full_folder),
    ("a link to a file", _link_to_file),
    ("a link to a folder", _link_to_folder),
    ("a link to nothing", dangling),
    ("a link to itself", loop),
    ("a link to /dev/zero", zeros),
    ("a named pipe", pipe),
    ("a socket", _socket),
)
# Names of results that no file can have, or that lie where nothing can be written.
NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("a name of 300 letters", "x" * 300),
    ("a path of 6,000 letters", "/".join(["x" * 200] * 30)),
    ("a folder of the kernel's", "/proc/nowhere/x"),
    ("a read-only file of the kernel's", "/proc/version"),
    ("a place below a file", "file/x"),
    ("a name with a zero", "a\0b"),
    ("half a surrogate pair", "\ud800"),
)
# Names that are odd and allowed.
ODD: Final = ("a b", "-x", "x\ny", "é", "猫", "a;b", "$HOME", "*", "'", "%s", ALARM, "x" * 200)


def _to(line: str, prepare: Make, name: str, make: Make | None = None) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        prepare(folder)
        _file(folder / "file")
        if make is not None:
            make(folder / name)
        out = str(Path("odd") / name) if name in ODD else name
        return command(*(out if word == "OUT" else word for word in line.split()))

    return given


def _in_place(line: str) -> Callable[[Path], Action]:
    """The result would go into what is read."""

    def given(folder: Path) -> Action:
        write_root(folder)
        _record(folder)
        return command(*line.split())

    return given


def _cases() -> Iterator[Case]:
    for line, prepare in FILES:
        short = " ".join(line.split()[:2])
        yield Case(AREA, f"{short}: nothing is there", _to(line, prepare, "out"), right(), writes=("out",))
        for name, make in (("a file", _file), ("a file of two names", _hard_link)):
            yield Case(AREA, f"{short}: {name}", _to(line, prepare, "out", make), refused("out", "--force"))
            forced = _to(f"{line} --force", prepare, "out", make)
            yield Case(AREA, f"{short} --force: {name}", forced, right(), writes=("out",))
        for name, make in (*NEVER, ("an empty folder", _empty_folder)):
            yield Case(AREA, f"{short}: {name}", _to(line, prepare, "out", make), refused("out"))
            yield Case(AREA, f"{short} --force: {name}", _to(f"{line} --force", prepare, "out", make), refused("out"))
    for line, prepare in FOLDERS:
        short = " ".join(line.split()[:2])
        yield Case(AREA, f"{short}: nothing is there", _to(line, prepare, "out"), right(), writes=("out",))
        empty = _to(line, prepare, "out", _empty_folder)
        yield Case(AREA, f"{short}: an empty folder", empty, right(), writes=("out",))
        for name, make in (*NEVER, ("a file", _file)):
            yield Case(AREA, f"{short}: {name}", _to(line, prepare, "out", make), refused("out"))
    for line, prepare in (*FILES, *FOLDERS[:2]):
        short = " ".join(line.split()[:2])
        for kind, name in NAMES:
            yield Case(AREA, f"{short}: {kind}", _to(line, prepare, name), told(), writes=("x" * 200,))
        for name in ODD:
            written = Expected((0, 1, 2)) if name in (ALARM, "-x") else right()
            yield Case(AREA, f"{short}: named {name[:20]!r}", _to(line, prepare, name), written, writes=("odd",))
        yield Case(AREA, f"{short}: named ..", _to(line, prepare, ".."), refused())
        yield Case(AREA, f"{short}: named .", _to(line, prepare, "."), refused())
    for line in (
        "data subset root --out root",
        "data fix root root",
        "data subset root --out root/annotations",
        "data fix root root/train2017",
        "bundle export results/records/tiny",
        "bundle export root/annotations/instances_val2017.json --force --target nowhere",
    ):
        yield Case(AREA, line, _in_place(line), refused())
    yield Case(AREA, "data fix root root/new", _in_place("data fix root root/new"), either(), writes=("root/new",))


CASES: Final = tuple(_cases())
