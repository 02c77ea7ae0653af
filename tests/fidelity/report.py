"""Comparisons with other codebases as a page: each test measures its largest difference, ``make fidelity`` writes it.

A comparison is one call of the fixture ``fidelity``; the page is made of what one run of the tests measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tabulate import tabulate

PROPERTY = "fidelity"
HEADINGS = ("check", "against", "on", "largest difference", "bound", "test")


class Comparison:
    """Called with a measured difference: fails the test above the bound, else keeps it for the page."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._node = request.node

    def __call__(self, check: str, *, against: str, on: str, difference: float, bound: float, unit: str = "") -> None:
        """check: what is compared, in a few words; against: the peer and its version; on: the input.

        difference: the largest found, 0 for equal to the last bit; bound: the largest allowed; unit: of both, such as
        "px" or "relative".
        """
        shown = {"check": check, "against": against, "on": on, "difference": float(difference), "bound": bound}
        # A NaN is not below the bound.
        assert difference <= bound, f"{check} against {against}: {difference:.3g} {unit} is above {bound:.3g}"
        self._node.user_properties.append((PROPERTY, {**shown, "unit": unit, "test": _place(self._node.nodeid)}))


def _place(node_id: str) -> str:
    """``tests/fidelity/test_x.py::test_y[z]`` -> ``test_x.py::test_y``."""
    return node_id.rsplit("/", 1)[-1].split("[", 1)[0]


def page(reports: Iterable[Any]) -> str:
    """The Markdown table: a line for each check of each test, the largest difference over all its inputs."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for report in reports:
        for name, item in report.user_properties:
            if name == PROPERTY:
                found.setdefault((item["test"], item["check"], item["against"]), []).append(item)
    rows = [
        [
            check,
            against,
            "; ".join(sorted({item["on"] for item in items})),
            _number(max(item["difference"] for item in items), items[0]["unit"]),
            _number(max(item["bound"] for item in items), items[0]["unit"]),
            f"`{test}`",
        ]
        for (test, check, against), items in sorted(found.items())
    ]
    return tabulate(rows, HEADINGS, tablefmt="github", disable_numparse=True)


def _number(value: float, unit: str) -> str:
    return "equal" if value == 0 else f"{value:.1e} {unit}".strip()


def write_page(path: Path, template: Path, reports: Iterable[Any]) -> None:
    """The template with the table in place of its marker."""
    path.write_text(template.read_text(encoding="utf-8").replace("<!-- table -->", page(reports)), encoding="utf-8")
