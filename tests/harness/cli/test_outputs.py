"""Every command with an output: what is there stays, byte for byte, unless --force is given; links and pipes always."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from support.workplace import Workplace
from tests.command import error, invoke
from tests.exports import ROW, copy_of, data_root, job

SCRATCH = ("--profile", "tiny")


@pytest.fixture
def place(trained_row: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    with copy_of(trained_row, tmp_path, monkeypatch) as place:
        yield place


def kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def words_of(command: str, place: Workplace, out: Path) -> tuple[str, ...]:
    """A command that writes to ``out``, which is a file or a folder."""
    run, root = place.root / "runs" / job(place).train.id, data_root(place)
    image = next((root / "val2017").iterdir())
    return {
        "schema": ("schema", "table", "--out", str(out)),
        "figure": ("figure", "fig3", *SCRATCH, "--out", str(out)),
        "convert": ("weights", "convert", str(run / "checkpoints/final.pt"), "--to", "harness", "--out", str(out)),
        "card": ("weights", "card", ROW, *SCRATCH, "--out", str(out)),
        "bundle": ("bundle", "export", str(out)),
        "dump": ("dump", ROW, *SCRATCH, "--to", "csv", "--out", str(out)),
        "dump board": ("dump", ROW, *SCRATCH, "--to", "tensorboard", "--out", str(out)),
        "trace": ("trace", ROW, *SCRATCH, "--steps", "1", "--device", "cpu", "--output", str(out)),
        "detect": ("detect", str(image), "--run", str(run), "--device", "cpu", "--out", str(out)),
        "export": ("export", ROW, *SCRATCH, "--device", "cpu", "--out", str(out)),
        "eval": (
            *("eval", "--recipe", "dr-r101-1x", "--weights", str(run / "checkpoints/final.pt"), *SCRATCH),
            *("--data", str(root), "--device", "cpu", "--out", str(out)),
        ),
        "images": ("images", str(run), "--images", "1", "--data", str(root), "--out", str(out)),
        "browse": ("data", "browse", str(root), *SCRATCH, "--images", "1", "--out", str(out)),
        "synth": ("data", "synth", "--train", "2", "--test", "1", "--size", "32", "--out", str(out)),
        "subset": ("data", "subset", str(root), "--images", "2", "--split", "val2017", "--out", str(out)),
        "new table": ("new", "table", "mine", "--out", str(out)),
        "new recipe": ("new", "recipe", "mine", "--out", str(out)),
        "new profile": ("new", "profile", "mine", "--out", str(out)),
        "new cluster": ("new", "cluster", "mine", "--out", str(out)),
        "new loss": ("new", "loss", "my-loss", "--out", str(out)),
    }[command]


FILES = {
    **{"schema": "s.json", "figure": "f.svg", "convert": "w.pth", "bundle": "b.zip", "dump": "d.csv", "card": "c.md"},
    "trace": "t.json",
}
WITH_FORCE = (*FILES, "detect", "export", "eval")
SLOW = pytest.mark.slow
COMMANDS = (
    *("schema", "figure", "convert", "bundle", "detect", "export", "eval", "subset", "images", "browse", "new table"),
    *("new recipe", "new profile", "new cluster", "new loss", "dump", "dump board", "card"),
)


@pytest.mark.parametrize("command", [*COMMANDS, pytest.param("trace", marks=SLOW)])
def test_a_second_time_is_refused_and_changes_nothing(command: str, place: Workplace, tmp_path: Path) -> None:
    out = tmp_path / "out" / FILES.get(command, "")
    out.parent.mkdir(exist_ok=True)
    words = words_of(command, place, out)
    invoke(*words)
    before = kept(tmp_path / "out")
    assert before
    for path in before:  # what is there need not be what the command wrote
        path.write_bytes(b"the user's own")
    message = error(*words)
    assert "overwritten" in message or "wrong" in message or "There is already" in message, message
    assert set(kept(tmp_path / "out")) == set(before)
    assert set(kept(tmp_path / "out").values()) == {b"the user's own"}
    if command in WITH_FORCE:
        invoke(*words, "--force")
        assert b"the user's own" not in kept(tmp_path / "out").values()


def test_synth_leaves_the_same_set_as_it_is_and_refuses_another(place: Workplace, tmp_path: Path) -> None:
    words = words_of("synth", place, tmp_path / "out")
    invoke(*words)
    before = kept(tmp_path / "out")
    invoke(*words)
    assert "holds another generated set" in error(*words, "--seed", "1")
    assert kept(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"mine")
    assert "is not a generated set" in error(*words[:-1], str(tmp_path / "mine"))
    assert kept(tmp_path / "mine") == {tmp_path / "mine" / "photo.png": b"mine"}


def state(path: Path) -> tuple[int, ...]:
    """What a write would change; reading changes the time of the last access."""
    found = path.lstat()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize("command", ["schema", "figure", "convert", "bundle", "dump"])
@pytest.mark.parametrize("what", ["a link", "a named pipe", "a folder"])
def test_what_is_no_file_is_not_replaced_even_with_force(
    command: str, what: str, place: Workplace, tmp_path: Path
) -> None:
    out, own = tmp_path / FILES[command], tmp_path / "own"
    own.write_bytes(b"mine")
    if what == "a link":
        out.symlink_to(own)
    elif what == "a folder":
        out.mkdir()
    else:
        os.mkfifo(out)
    before = state(out)
    for force in ((), ("--force",)):
        assert f"{out} is {what} and is not replaced" in error(*words_of(command, place, out), *force)
    assert state(out) == before
    assert own.read_bytes() == b"mine"


def test_detect_never_replaces_the_images_that_it_is_given(place: Workplace, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 64), "white").save(photo)
    before = photo.read_bytes()
    run = place.root / "runs" / job(place).train.id
    words = ("detect", str(photo), "--run", str(run), "--device", "cpu", "--out", str(tmp_path))
    assert "photo.png exists and is not overwritten" in error(*words)
    assert "is one of the images; its drawing does not replace it" in error(*words, "--force")
    assert photo.read_bytes() == before
    assert not (tmp_path / "detections.json").exists()


def test_a_data_set_is_not_written_through_a_link(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    assert "is a link and is not replaced" in error(*words_of("subset", place, tmp_path / "out"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_table_names_every_command_with_an_output(place: Workplace, tmp_path: Path) -> None:
    """Options that name an output, by what their help says they take; new ones belong into ``words_of``."""
    from typer.main import get_command

    from harness.cli import app

    def outputs(command: object, name: str) -> Iterator[str]:
        for key, value in getattr(command, "commands", {}).items():
            yield from outputs(value, f"{name} {key}".strip())
        for option in getattr(command, "params", []):
            if option.name in ("out", "output"):
                yield name

    listed = {" ".join(words_of(name, place, tmp_path)[:2]) for name in (*COMMANDS, "trace", "synth")}
    listed |= {name.split()[0] for name in listed}
    elsewhere = {"data download", "data fix", "data import", "report"}  # with their own tests
    assert set(outputs(get_command(app), "")) - elsewhere <= listed
