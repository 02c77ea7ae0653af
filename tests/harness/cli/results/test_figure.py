"""``harness figure``: what it writes, says and refuses, from the committed records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import error, invoke

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the committed records."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "no-runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_figure_is_written_with_its_numbers_and_what_holds_of_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = invoke("figure", "fig3", "--profile", "tiny").stdout
    assert text.startswith("wrote fig3.svg, fig3.csv\n")
    assert "holds: The larger L is" in text
    assert "does not hold" not in text
    assert max(map(len, text.splitlines())) <= 80
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert set(before) == {"fig3.svg", "fig3.csv"}
    invoke("figure", "fig3", "--profile", "tiny")  # the same once more is no conflict
    invoke("figure", "fig3", "--profile", "tiny", "--out", "fig3.pdf")  # nor are the same numbers
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.suffix != ".pdf"} == before


def test_nothing_is_written_where_the_numbers_file_is_somebodys(place: Path) -> None:
    (place / "x.csv").write_text("mine")
    words = ("figure", "fig3", "--profile", "tiny", "--out", "x.svg", "--width", "page")
    assert "x.csv exists and is not overwritten" in error(*words)
    assert [path.name for path in place.iterdir()] == ["x.csv"]
    assert (place / "x.csv").read_text() == "mine"
    found = json.loads(invoke(*words, "--force", "--json").stdout)
    assert found[0]["files"] == ["x.svg", "x.csv"]
    assert all(statement["holds"] for statement in found[0]["statements"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fig5",), "Unknown figure 'fig5'. Did you mean fig4? Known: fig2, fig3, fig4, curves"),
        (("fig3,", "--out", "x"), "Unknown figure ''"),
        (("fig3", "--out", "x.jpg"), "x.jpg does not end in a format of figures. Known: .svg, .pdf, .png."),
        (("fig2,fig3", "--out", "x.png"), "Several figures go into a folder, as SVG: got --out x.png."),
        (("fig3", "table9"), "table9"),
        (("cells",), "cells: The numbers of profile tiny"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    words: tuple[str, ...], message: str, place: Path
) -> None:
    assert message in error("figure", *words, "--profile", "tiny")
    assert not list(place.iterdir())


def test_a_figure_that_no_page_has_room_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cli.results.figure.TALLEST", 2.41)
    words = ("figure", "fig3", "--profile", "tiny", "--force")
    told = "fig3 is 3.6 inches high, more than a page of a paper: name fewer rows, or give --width page."
    assert invoke(*words).stderr.strip() == told
    assert not invoke(*words, "--width", "page").stderr


def test_of_several_figures_those_without_data_are_left_out_with_the_reason(place: Path) -> None:
    result = invoke("figure", "fig3,cells", "--profile", "tiny", "--out", "some")
    assert "left out: cells: The numbers of profile tiny" in result.stderr
    assert sorted(path.name for path in (place / "some").iterdir()) == ["fig3.csv", "fig3.svg"]
