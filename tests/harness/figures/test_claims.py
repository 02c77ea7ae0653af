"""The forest plot: what is drawn is what the verdicts say, and every claim has a place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from harness.figures.claims import _free_side, figure, panels
from harness.figures.rows.contrasts import JudgedClaim, judged_claims
from harness.planning.selection import Selection
from harness.report.views import judge
from tests.harness.figures.drawing import draw, points, texts
from tests.harness.figures.made import made_records, write

FOCAL_AND_DR = {
    "table2/focal": {0: 20.0, 1: 20.4, 2: 20.2},
    "table2/L6": {0: 22.0, 1: 22.5, 2: 22.1},
    "table1/hp-e_hn-e": {0: 22.1, 1: 22.4, 2: 22.3},
}


def of_claim(found: list[JudgedClaim], name: str) -> JudgedClaim:
    return next(item for item in found if item.claim.id == name)


def test_the_verdicts_and_intervals_are_those_of_check(results: Path) -> None:
    write(results, made_records("tiny", FOCAL_AND_DR))
    selection = Selection("all", "tiny", [], None)
    found, checked = judged_claims(selection), judge(selection)
    assert checked.paper is not None
    assert [item.verdict for item in found] == list(checked.paper.claims)
    (line,) = of_claim(found, "dr-beats-focal").lines
    (measured,) = of_claim(found, "dr-beats-focal").verdict.measured
    assert line.value == pytest.approx(22.2667 - 20.2, abs=1e-3)
    assert measured.estimate is not None
    assert line.low == pytest.approx(measured.value - measured.estimate.half_width())
    assert line.high == pytest.approx(measured.value + measured.estimate.half_width())
    assert line.paper == pytest.approx(1.0)  # 37.1 - 36.1 of the paper's tables


def test_what_is_drawn_stands_at_the_values_with_the_verdict_in_words(results: Path) -> None:
    write(results, made_records("tiny", FOCAL_AND_DR))
    made = figure(Selection("all", "tiny", [], None))
    canvas = draw(made)
    axes = canvas.axes[0]
    ours = [line for line in axes.lines if line.get_label() == "dr-beats-focal"]
    assert [float(line.get_xdata()[0]) for line in ours] == [pytest.approx(22.2667 - 20.2, abs=1e-3)]
    said = texts(canvas)
    assert any(text.endswith("supported") and text.startswith("✓") for text in said)
    assert any(text.endswith("undecided") and text.startswith("?") for text in said)
    assert "no run" in said
    assert any(text.startswith("The margin is less than the deviation between seeds here.") for text in said)
    for item in judged_claims(Selection("all", "tiny", [], None)):
        assert any(item.claim.id in text for text in said), item.claim.id


def test_words_and_arrows_lie_on_nothing_that_is_drawn(results: Path) -> None:
    rows = FOCAL_AND_DR | {"table2/L4": {0: 21.0, 1: 27.0}, "table2/rho0.2": {0: 20.4, 1: 23.9}}
    write(results, made_records("tiny", rows))
    axes = draw(figure(Selection("all", "tiny", [], None)), "column").axes[0]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert any(line.get_marker() == ">" and not line.get_clip_on() for line in marks if line.get_markersize() == 3)
    item = of_claim(judged_claims(Selection("all", "tiny", [], None)), "small-lambda-pos-hurts")
    (line,) = item.lines
    assert (item.above, item.below, line.value, line.paper) == (0.0, None, None, pytest.approx(1.8))
    assert _free_side(item, line, (-1.0, 7.0)) == (0.98, "right")
    assert _free_side(item, line, (-5.0, 2.0)) == (0.02, "left")


def test_a_collapse_a_score_and_a_ratio_have_panels_of_their_own(results: Path) -> None:
    found = panels(judged_claims(Selection("all", "paper", [], None)))
    assert [(name, len(items)) for name, items in found.items()] == [
        ("AP", 12),
        ("collapse", 2),
        ("score", 7),
        ("ratio", 1),
    ]
    collapse = of_claim(found["collapse"], "all-pairs-collapse")
    assert collapse.lines[0].paper == pytest.approx(12.9 - 37.4 / 2)
    assert (collapse.above, collapse.below) == (None, 0.0)
    similar = of_claim(found["AP"], "stable-in-h-neg")
    assert (similar.above, similar.below) == (-0.5, 0.5)
    several = of_claim(found["AP"], "dr-beats-focal-in-large-backbones")
    assert [(line.paper, line.paper_is_least) for line in several.lines] == [(2.3, True), (2.3, True)]


@pytest.mark.parametrize("width", ["column", "page"])
def test_all_claims_fit_without_touching_each_other(results: Path, width: str) -> None:
    made = figure(Selection("all", "paper", [], None))
    canvas = draw(made, width)  # type: ignore[arg-type]
    boxes = [axes.get_position() for axes in canvas.axes]
    assert all(0 <= box.y0 < box.y1 <= 1 and 0 < box.x0 < box.x1 <= 1 for box in boxes)
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
    right = canvas.bbox.width
    for axes in canvas.axes:
        for text in axes.texts:
            extent = text.get_window_extent()
            assert extent.x0 >= -1, text.get_text()
            assert extent.x1 <= right + 1, text.get_text()


def test_an_interval_that_is_too_wide_ends_in_an_arrow_and_is_whole_in_the_numbers(results: Path) -> None:
    write(results, made_records("tiny", {"table2/focal": {0: 20.0}, "table1/hp-e_hn-e": {0: 20.1}}))
    made = figure(Selection("table2/focal", "tiny", [], None))
    columns = made.numbers.columns
    row = next(dict(zip(columns, cells, strict=True)) for cells in made.numbers.rows if cells[0] == "dr-beats-focal")
    low, high = draw(made).axes[0].get_xlim()
    assert row["high"] > high  # type: ignore[operator]
    assert row["low"] < low  # type: ignore[operator]
    assert {"<", ">"} <= {line.get_marker() for line in draw(made).axes[0].lines}


def test_a_target_of_no_claim_says_so(results: Path) -> None:
    made = figure(Selection("ablations/modern-boxes", "tiny", [], None))
    assert made.missing.startswith("No claim names a row of ablations/modern-boxes.")
    assert not made.numbers.rows


def test_the_marks_of_the_paper_are_no_points_of_ours(results: Path) -> None:
    write(results, made_records("tiny", FOCAL_AND_DR))
    canvas = draw(figure(Selection("all", "tiny", [], None)))
    diamonds = {float(line.get_xdata()[0]) for line in canvas.axes[0].lines if line.get_marker() == "D"}
    assert 1.0 in {round(value, 6) for value in diamonds}
    assert points(canvas.axes[0])


def test_where_no_claim_can_be_decided_there_is_nothing_to_draw(results: Path) -> None:
    made = figure(Selection("table2", "small", [], None))
    assert made.missing == (
        "No claim about these rows can be decided at profile small. Why: harness check table2 --profile small"
    )
