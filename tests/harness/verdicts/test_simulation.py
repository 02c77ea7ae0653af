"""The tables of docs/statistics.md are what the simulation makes, and keep what the page promises."""

from __future__ import annotations

import re

import pytest

from harness.report.noise import LOOKING_AGAIN
from tests.harness.verdicts import simulation
from tests.harness.verdicts.simulation import World, counted, places

PAGE = simulation.PAGE.read_text(encoding="utf-8")


def columns(table: str) -> list[dict[str, float]]:
    """Lines of a table of numbers."""
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(head, map(float, line), strict=True)) for line in lines]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.mark.slow
def test_the_page_has_the_tables_that_the_simulation_makes() -> None:
    shown = places(PAGE)
    made = simulation.tables()
    assert shown.keys() == made.keys(), "python -m tests.harness.verdicts.simulation"
    for name, table in made.items():
        # A processor that rounds otherwise may turn a draw or two of 500.
        assert numbers(shown[name]) == pytest.approx(numbers(table), abs=0.4), name


@pytest.mark.parametrize("line", columns(places(PAGE)["cells"]), ids=str)
def test_cells_are_seldom_wrong(line: dict[str, float]) -> None:
    assert line["95% interval covers"] >= 92.1
    assert max(line["reproduced, false"], line["not reproduced, false"]) <= 7.9


@pytest.mark.parametrize("line", columns(places(PAGE)["errors"]), ids=str)
def test_claims_are_seldom_wrong(line: dict[str, float]) -> None:
    """Of 500 draws a rate of 5% is seen within 2.1 and 7.9, three of its standard errors."""
    assert min(line["covers, same loss"], line["covers, two losses"]) >= 92.1
    wrong = ("supported, same loss", "contradicted, same loss", "supported, two losses", "contradicted, two losses")
    assert max(line[key] for key in (*wrong, "similar", "any of six")) <= 7.9
    if line["seeds"] >= 3:
        assert line["collapse"] <= 7.9
    if line["seeds"] == 1:
        assert max(line[key] for key in wrong) == 0


def test_one_draw_of_the_page_is_made_again() -> None:
    """A tenth of a second of the slow test, at the extremes."""
    seen = counted(World(0.8, 3), 60)
    assert seen["same loss covered"] >= 52
    assert seen["same loss, true supported"] >= 50  # independent samples would see half of them
    assert seen["two losses supported"] <= 9


def test_what_check_says_of_looking_again_is_on_the_page() -> None:
    (rates,) = columns(places(PAGE)["looks"])
    until_five, until_ten, ruled = rates.values()
    assert f"{until_five:.0f}%" == LOOKING_AGAIN
    assert until_ten > until_five
    assert ruled <= 5.5
