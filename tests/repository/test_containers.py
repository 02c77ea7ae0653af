"""The Dockerfile and the Apptainer definition have the same steps, and the steps give a harness that works.

There is no engine where tests run. The steps are read from the files and done in a fresh folder, with a virtual
environment in place of the image's Python.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).resolve().parents[2]
CONTAINERS = PROJECT / "docs" / "containers"


class Recipe(NamedTuple):
    """Base image, (source, place) of each copy, shell commands, what is run in the end."""

    base: str
    copies: list[tuple[str, str]]
    commands: list[str]
    entry: str


def lines_of(name: str) -> list[str]:
    lines = (line.strip() for line in (CONTAINERS / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_dockerfile() -> Recipe:
    found: dict[str, list[str]] = {}
    for line in lines_of("Dockerfile"):
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest)
    assert found.keys() == {"FROM", "COPY", "RUN", "WORKDIR", "ENTRYPOINT"}
    copies = [(source, target) for source, target in (rest.split() for rest in found["COPY"])]
    return Recipe(found["FROM"][0], copies, found["RUN"], found["ENTRYPOINT"][0].strip('[]"'))


def read_definition() -> Recipe:
    head, *sections = re.split(r"^%", "\n".join(lines_of("drloss-harness.def")), flags=re.MULTILINE)
    found = {name: body.splitlines() for name, _, body in (section.partition("\n") for section in sections)}
    assert found.keys() == {"files", "post", "runscript"}
    base = dict(line.split(": ") for line in head.splitlines())
    assert base["Bootstrap"] == "docker"
    copies = [(source, target) for source, target in (line.split() for line in found["files"])]
    return Recipe(
        base["From"], copies, found["post"], found["runscript"][0].removeprefix("exec ").removesuffix(' "$@"')
    )


def test_both_files_have_the_same_steps() -> None:
    assert read_dockerfile() == read_definition()


def test_the_base_image_has_a_python_that_the_project_takes() -> None:
    match = re.fullmatch(r"python:3\.(\d+)-slim", read_dockerfile().base)
    assert match is not None
    assert 11 <= int(match[1]) <= 13


def test_the_steps_copy_all_that_the_wheel_is_made_of() -> None:
    """And no runs, results or environments of the machine that builds."""
    copied = {source for source, _ in read_dockerfile().copies}
    packages = {"drloss", "detector", "harness", "experiments"}
    assert copied == {*packages, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}


@pytest.mark.slow
def test_the_steps_give_a_harness_that_works(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed: pip would download torch again")
    recipe, image, work = read_dockerfile(), tmp_path / "image", tmp_path / "work"
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HARNESS_", "PYTHON"))}
    environment = {
        **kept,
        "UV_OFFLINE": "1",
        "VIRTUAL_ENV": str(image / "venv"),
        "PATH": f"{image / 'venv' / 'bin'}:/usr/bin:/bin",
    }

    def shell(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    shell(f"{uv} venv --quiet --python {sys.executable} {image / 'venv'}")
    for source, target in recipe.copies:
        place = image / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (PROJECT / source).is_dir() else shutil.copy2
        copy(PROJECT / source, place)
    for command in recipe.commands:
        # uv does what pip does, with the files that 'make install' has fetched already.
        shell(command.replace("python -m pip", f"{uv} pip").replace("/opt/", f"{image}/opt/"))
    assert "Usage: harness" in shell(f"{recipe.entry} --help")
    assert "table2" in shell(f"{recipe.entry} list")
    where = "import harness, harness.folders as f; print(harness.__file__, f.runs_folder(), sep='\\n')"
    package, runs = shell(f'python -c "{where}"').splitlines()
    assert Path(package).is_relative_to(image / "venv")  # installed, not found in this checkout
    assert runs == str(work / "runs")
