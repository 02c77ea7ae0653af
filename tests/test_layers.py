"""Who may import whom, and what stays free of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
# What harness may import of ours at module level: data, errors and files, all free of torch.
TORCH_FREE = {
    "detector.errors",
    "detector.job",
    "detector.patience",
    "detector.probe",
    "detector.probe_checks",
    "detector.record",
    "detector.requeue",
    "detector.rundir",
    "detector.worker",
    "drloss.config",
}


def imports(path: Path, *, top_level_only: bool) -> set[str]:
    """Modules that a file imports; those under ``if TYPE_CHECKING`` do not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def files(package: str) -> list[Path]:
    paths = sorted((PROJECT / package).rglob("*.py"))
    assert paths
    return paths


def test_nothing_imports_harness() -> None:
    for package in ("drloss", "detector", "experiments"):
        for path in files(package):
            assert not any(name.split(".")[0] == "harness" for name in imports(path, top_level_only=False)), path


def test_drloss_imports_nothing_of_ours() -> None:
    for path in files("drloss"):
        ours = {name for name in imports(path, top_level_only=False) if name.split(".")[0] in ("detector", "harness")}
        assert not ours, path


def test_harness_imports_only_torch_free_modules_of_ours_at_module_level() -> None:
    for path in files("harness"):
        ours = {n for n in imports(path, top_level_only=True) if n.split(".")[0] in ("detector", "drloss", "torch")}
        assert ours <= TORCH_FREE, path


@pytest.mark.parametrize(
    "statement",
    [
        "import drloss, detector",
        *(f"import {name}" for name in sorted(TORCH_FREE)),
        "import harness.cli",
        "import harness.session, harness.render, harness.show, harness.launch, harness.prepare",
    ],
)
def test_import_does_not_load_torch(statement: str) -> None:
    code = f"import sys; {statement}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_importing_a_table_does_not_load_pandas_or_scipy_stats() -> None:
    code = (
        "import sys; import harness.session, harness.render; "
        "assert not {'pandas', 'scipy.stats', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)


def test_importing_the_command_does_not_load_what_only_its_work_needs() -> None:
    code = "import sys, harness.cli; assert not {'yaml', 'numpy', 'submitit', 'harness.registry'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
