"""What pages, comments and docstrings name exists: files, modules, commands, options, variables, rooms."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from harness.cli import app
from tests.repository.layers import ORDER, PROJECT, known

DOCS = PROJECT / "docs"
OURS = (*ORDER, "support", "benchmarks", "tests")
NAMES = "|".join(OURS)
FILE = re.compile(rf"(?<![\w./$<{{-])(?:{NAMES}|experiments|docs|results)/[\w./*{{}},-]*[\w*}}/]")
DOTTED = re.compile(rf"(?<![\w./'-])(?:{NAMES})(?:\.[A-Za-z_]\w*)+")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#([\w-]+))?\)")
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Made by a command, an example of a name, or a file of a package that a user writes (ours have a folder per room).
NOT_COMMITTED = re.compile(r"docs/_build|.*(?:DEVICE|NAME|_x)\.\w+$|tests/test_\w+\.py$")
ENTRY_POINTS = {"drloss.losses"}


def pages() -> list[Path]:
    """Every page that is written for people."""
    tops = [PROJECT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
    return [
        *tops,
        *sorted(DOCS.glob("*.md")),
        PROJECT / "tests" / "data" / "README.md",
        PROJECT / "tests/fidelity/page.md",
    ]


def other_files() -> list[Path]:
    """Code, experiments, build files: what else names files in words."""
    folders = [PROJECT / name for name in (*OURS, "experiments", "docs")]
    found = [path for folder in folders for suffix in ("py", "yaml") for path in folder.rglob(f"*.{suffix}")]
    return [*found, *(PROJECT / name for name in ("Makefile", ".ci/run", "pyproject.toml"))]


def as_parameters(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(PROJECT))) for path in paths]


def spelled_out(name: str) -> list[str]:
    """``a_{r50,r101}.json`` names two files."""
    choice = re.search(r"\{([^{}]+,[^{}]+)\}", name)
    if choice is None:
        return [name]
    return [one for part in choice[1].split(",") for one in spelled_out(name.replace(choice[0], part, 1))]


def is_there(name: str) -> bool:
    if NOT_COMMITTED.match(name) or "{" in name:  # a template's field
        return True
    return any(PROJECT.glob(name)) if "*" in name else (PROJECT / name).exists()


def missing_files(text: str) -> list[str]:
    return [name for found in FILE.findall(text) for name in spelled_out(found) if not is_there(name)]


def unknown_modules(text: str) -> list[str]:
    """Dotted names below our packages that are neither a module nor something in one."""
    return [name for name in DOTTED.findall(text) if name not in ENTRY_POINTS and not _is_importable(name)]


@cache
def _is_importable(name: str) -> bool:
    parts = name.split(".")
    if parts[1] in ("py", "yaml"):  # a file's name
        return True
    length = max(n for n in range(1, len(parts) + 1) if n == 1 or ".".join(parts[:n]) in known())
    found: Any = import_module(".".join(parts[:length])) if length < len(parts) else None
    for part in parts[length:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def without_history(page: Path) -> str:
    """The page, less the table of what things were called before."""
    lines = page.read_text().splitlines()
    return "\n".join(line for line in lines if page.name != "CHANGELOG.md" or not line.startswith("|"))


@pytest.mark.parametrize("page", as_parameters(pages()))
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    text = without_history(page)
    assert missing_files(text) == []
    assert unknown_modules(text) == []


def words_of(path: Path) -> str:
    """Comments and docstrings of Python; the whole of any other file."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, with_docstring)]
    return "\n".join([*comments, *(ast.get_docstring(node) or "" for node in nodes)])


def test_files_and_modules_that_comments_and_docstrings_name_exist() -> None:
    wrong = {}
    for path in other_files():
        words = words_of(path)
        if found := [*missing_files(words), *unknown_modules(words)]:
            wrong[str(path.relative_to(PROJECT))] = found
    assert wrong == {}


def test_a_file_or_module_that_is_gone_would_be_seen() -> None:
    assert missing_files("see `harness/claim_power.py` and harness/verdicts/") == ["harness/claim_power.py"]
    assert missing_files("tests/data/names_detectron2_{r50,r102}.json") == ["tests/data/names_detectron2_r102.json"]
    assert unknown_modules("`detector.canary`, drloss.DRLoss, detector.runs.job.TrainJob") == ["detector.canary"]


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, as code hosts and MyST call them."""
    heads = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", as_parameters(pages()))
def test_links_lead_to_files_and_their_headings(page: Path) -> None:
    for target, heading in LINK.findall(page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target
            assert not heading or heading in anchors(page.parent / target), f"{target}#{heading}"


@cache
def commands() -> dict[str, Any]:
    """Every command by its words, without those that only hold others."""

    def below(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from below(child, f"{words} {name}".strip())
        if not hasattr(command, "commands"):
            yield words, command

    return dict(below(typer.main.get_command(app), ""))


def named_commands(text: str) -> list[str]:
    """What is typed: ``harness ...`` at the start of a line of a block, or of a piece of code in a sentence."""
    blocks = FENCED.findall(text)
    typed = [line.strip() for block in blocks for line in block.splitlines()]
    typed += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    return [line.removeprefix("$ ") for line in typed if re.match(r"(\$ )?harness [a-z]", line)]


def unknown_words(typed: str) -> list[str]:
    """Of one command: its name if there is none of it, else the options that it does not have."""
    words = re.split(r"\s{2,}|;|\s#", typed)[0].split()[1:]
    first = words[0]
    if any(name.startswith(f"{first} ") for name in commands()):  # such as data, which has commands of its own
        choices = [f"{first} {second}" for second in words[1].split("|")] if len(words) > 1 else []
    else:
        choices = [first]
    if unknown := [choice for choice in choices if choice not in commands()]:
        return unknown
    options = {
        text for choice in choices for one in commands()[choice].params for text in (*one.opts, *one.secondary_opts)
    }
    given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    return sorted(given - options - {"--help"})


@pytest.mark.parametrize("page", as_parameters(pages()))
def test_commands_and_options_that_a_page_names_exist(page: Path) -> None:
    wrong = {typed: found for typed in named_commands(page.read_text()) if (found := unknown_words(typed))}
    assert wrong == {}


def test_a_command_or_option_that_is_not_there_would_be_seen() -> None:
    page = (
        "`harness trane table2`\n\n```\nharness run table2 --fast    quickly\nharness data verify COCO --quick\n```\n"
    )
    assert [unknown_words(typed) for typed in named_commands(page)] == [["--fast"], [], ["trane"]]


def test_the_guide_names_every_command() -> None:
    text = (DOCS / "guide.md").read_text()
    assert [name for name in commands() if f"`harness {name}" not in text] == []


def test_the_guide_names_every_variable_that_the_code_reads() -> None:
    texts = [path.read_text() for name in ("detector", "harness") for path in (PROJECT / name).rglob("*.py")]
    read = {name for text in texts for name in re.findall(r"\"(HARNESS_[A-Z]+)\"", text)}
    assert len(read) > 5
    assert read - set(re.findall(r"HARNESS_[A-Z]+", (DOCS / "guide.md").read_text())) == set()


def test_the_design_page_has_the_table_of_imports_and_every_room() -> None:
    text = " ".join((DOCS / "design.md").read_text().split())
    for package, floors in ORDER.items():
        order = " > ".join(", ".join(level) for level in floors[1:])
        assert f"{package}: {order}" in text
        rooms = text.partition(f"### {package}:")[2].partition("###")[0]
        assert [name for level in floors[1:] for name in level if f"`{name}`" not in rooms] == []


def test_every_page_is_in_the_table_of_contents_of_the_site() -> None:
    text = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or re.search(rf"^({page.stem}|.+<{page.stem}>)$", text, re.MULTILINE), page.name


def test_the_reference_documents_each_package_and_its_public_names() -> None:
    text = (DOCS / "api.md").read_text()
    for name in (*ORDER, "drloss.functional", "detector.errors"):
        assert f".. automodule:: {name}\n   :members:\n" in text
    for name in (*ORDER, "drloss.functional"):  # Sphinx leaves out what cannot be imported, without a warning
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            assert getattr(module, public).__doc__, public


def test_the_readme_is_short_and_names_both_commands() -> None:
    text = (PROJECT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "\nmake quickstart" in text
    assert "\nmake test" in text


def test_the_citation_names_the_software_and_the_paper() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license"}
    assert f'version = "{citation["version"]}"' in (PROJECT / "pyproject.toml").read_text()
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Qian", "Chen", "Li", "Jin"]
    assert (paper["type"], paper["year"]) == ("conference-paper", 2020)


def test_the_changelog_gives_new_paths_that_are_modules() -> None:
    rows = [
        line.split("|")[2] for line in (PROJECT / "CHANGELOG.md").read_text().splitlines() if line.startswith("| `")
    ]
    new = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(new) > 20
    assert [name for name in new if name not in known()] == []
