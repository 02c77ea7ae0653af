"""Paths that code builds from the project's root by names alone: what they name is there, also after a move."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.repository.layers import PACKAGES, PROJECT, modules

MADE = {"runs", ".git", ".fuzz", "docs/_build"}  # by commands


def _names(node: ast.expr) -> list[str] | None:
    """``["a", "b"]`` of ``PROJECT / "a" / "b"``; None of another expression."""
    if isinstance(node, ast.Name) and node.id == "PROJECT":
        return []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
        before = _names(node.left)
        return None if before is None else [*before, str(node.right.value)]
    return None


def _paths(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and (names := _names(node)):
            yield node.lineno, "/".join(names)


def _missing(files: dict[Path, str]) -> list[str]:
    return [
        f"{file.relative_to(PROJECT)}:{line}: {path}"
        for file, source in files.items()
        for line, path in _paths(source)
        if not any(path == made or path.startswith(f"{made}/") for made in MADE) and not (PROJECT / path).exists()
    ]


def test_every_path_from_the_root_is_there() -> None:
    files = {path: path.read_text() for package in PACKAGES for path in modules(package).values()}
    assert _missing(files) == []


def test_a_path_that_is_not_there_is_named() -> None:
    text = 'FILE = PROJECT / "benchmarks" / "moved.py"\nRUNS = PROJECT / "runs" / name / "a"\n'
    assert _missing({PROJECT.joinpath("benchmarks/x.py"): text}) == ["benchmarks/x.py:1: benchmarks/moved.py"]
