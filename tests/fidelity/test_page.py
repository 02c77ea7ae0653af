"""docs/fidelity.md has the lines of the comparisons that are here, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "fidelity.md"


def comparisons() -> set[str]:
    """``FILE::TEST`` of every test that takes the fixture."""
    return {
        f"{path.name}::{node.name}"
        for path in FOLDER.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and "fidelity" in {argument.arg for argument in node.args.args}
    }


def test_the_page_has_a_line_of_every_comparison_and_no_other() -> None:
    listed = set(re.findall(r"`(test_\w+\.py::test_\w+)`", PAGE.read_text()))
    assert listed == comparisons(), "make fidelity"


def test_the_pages_text_is_the_template() -> None:
    before, after = (FOLDER / "page.md").read_text().split("<!-- table -->")
    text = PAGE.read_text()
    assert text.startswith(before)
    assert text.endswith(after)


def test_every_difference_of_the_page_is_within_its_bound() -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("|") and "::" in line]
    assert len(rows) > 50
    for row in rows:
        found, bound = (0.0 if cell.strip() == "equal" else float(cell.split()[0]) for cell in row[4:6])
        assert found <= bound, row
