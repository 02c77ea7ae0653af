"""Seeds as blocks: values by seed, families apart, the seed's share in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.figures.figure import Width
from harness.figures.rows.shown import shown_rows
from harness.figures.seeds import Family, _heading, by_family, figure, on_axes
from harness.planning.selection import Selection
from harness.verdicts.blocks import Blocks
from tests.harness.figures.drawing import draw, names, texts, titled
from tests.harness.figures.made import made_records, write

WIDTHS: tuple[Width, ...] = ("column", "page")
# Seed 1 is better by 1, whatever the row.
BLOCKS = {
    "table2/L4": {0: 22.0, 1: 23.0},
    "table2/L6": {0: 23.0, 1: 24.0},
    "table2/L8": {0: 22.5, 1: 23.6},
    "table2/focal": {0: 20.0, 1: 20.2},
}


def test_the_values_of_a_seed_are_connected_across_the_rows_of_a_family(results: Path) -> None:
    write(results, made_records("tiny", BLOCKS))
    canvas = draw(figure(Selection("table2", "tiny", [], None)))
    axes = titled(canvas, "AP")
    assert names(axes) == ["focal", "L4", "L6", "L8"]
    drawn = {line.get_label(): list(map(float, line.get_xdata())) for line in axes.lines if len(line.get_xdata()) == 3}
    assert drawn == {"seed 0": [22.0, 23.0, 22.5], "seed 1": [23.0, 24.0, 23.6]}
    relative = titled(canvas, "minus row's mean")
    (first, _) = [list(map(float, line.get_xdata())) for line in relative.lines if len(line.get_xdata()) == 3]
    assert first == pytest.approx([-0.5, -0.5, -0.55])
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["seed 0", "seed 1"]


def test_the_share_of_the_seed_is_that_of_the_blocks(results: Path) -> None:
    write(results, made_records("tiny", BLOCKS))
    selection = Selection("table2", "tiny", [], None)
    families = by_family(selection, shown_rows(selection))
    assert [[row.label for row in family.rows] for family in families] == [["focal"], ["L4", "L6", "L8"]]
    found = families[1].blocks
    assert found is not None
    assert found.share is not None
    assert found.share > 0.9
    said = texts(draw(figure(selection)))
    assert any(text.endswith(f"{found.share:.0%} the seed's") for text in said)
    assert f"deviation {found.total**0.5:.2f} AP" in figure(selection).caption


def test_a_row_of_several_tables_is_shown_once_and_named_by_all(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0, 1: 24.0}}))
    made = figure(Selection("all", "tiny", [], None))
    assert names(draw(made).axes[0]) == ["hp-e_hn-3.5 = L6 = dr"]
    assert {row[0] for row in made.numbers.rows} == {"table1/hp-e_hn-3.5", "table2/L6", "table3/dr"}


def test_one_seed_has_one_panel_and_says_that_there_is_no_deviation(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}, "table2/focal": {0: 20.0}}))
    made = figure(Selection("table2", "tiny", [], None))
    assert [axes.get_title() for axes in draw(made).axes] == ["AP"]
    assert made.caption.endswith("With one seed per row there is no deviation to see.")


def test_a_row_that_collapsed_is_told_in_words_so_that_the_others_can_be_seen(results: Path) -> None:
    write(results, made_records("tiny", BLOCKS | {"table2/L10": {0: 2.0, 1: 4.0}}))
    selection = Selection("table2", "tiny", [], None)
    families = by_family(selection, shown_rows(selection))
    assert families[-1].name == "dr, slim/400, L10 (collapsed)"
    made = figure(selection)
    for width in WIDTHS:
        axes = titled(draw(made, width), "AP")
        assert names(axes) == ["focal", "L4", "L6", "L8"]
        assert axes.get_xlim()[0] > 19
    assert "Not drawn, far below the others, since they collapsed: AP 2.0, 4.0 of L10." in made.caption
    assert ("table2/L10", families[-1].name, 0, 2.0) in [row[:4] for row in made.numbers.rows]


def test_where_all_collapsed_all_are_drawn() -> None:
    one = Family("dr, all (collapsed)", (), None, collapsed=True)
    assert on_axes([one, one]) == [one, one]
    assert on_axes([one, replace(one, collapsed=False)]) == [replace(one, collapsed=False)]


@pytest.mark.parametrize(
    ("letters", "heading"),
    [
        (41, "focal, r50/90000: sd 0.50, 80% the seed's"),
        (40, "focal, r50/90000: sd 0.50"),
        (20, "focal, r50/90000"),
        (10, "focal, r5…"),
    ],
)
def test_headings_are_as_long_as_there_is_room(letters: int, heading: str) -> None:
    blocks = Blocks(total=0.25, residual=0.05, df_within=8, df_seeds=2, df_residual=6, overlap=1.0, num_rows=4)
    assert _heading(Family("focal, r50/90000", (), blocks), letters) == heading


def test_without_a_run_the_next_command_is_told(results: Path) -> None:
    write(results, made_records("small", {"table2/L6": {0: 23.0}}))
    assert figure(Selection("table2", "tiny", [], None)).missing == (
        "No finished run of table2 at profile tiny. Records of other profiles: 1 at small (--profile). "
        "Next: harness run table2 --profile tiny"
    )


def test_many_seeds_have_no_line_each_in_the_legend(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {seed: 23.0 + seed / 10 for seed in range(9)}}))
    made = figure(Selection("table2/L6", "tiny", [], None))
    assert not draw(made).legends
    assert len(made.numbers.rows) == 9
