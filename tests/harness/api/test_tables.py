"""``harness.table`` and ``harness.claims`` on the committed records."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import harness
from detector.errors import UsageError
from harness.planning.selection import Selection
from harness.report.views import judge, table_views
from tests.conftest import PROJECT

METRICS = ["AP", "AP50", "AP75", "APS", "APM", "APL"]


@pytest.fixture(autouse=True)
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


def test_table_has_the_numbers_of_the_command_unrounded() -> None:
    frame = harness.table("table2", profile="tiny")
    (view,) = table_views(Selection("table2", "tiny", [], None))
    assert frame.index.name == "row"
    assert frame.index.tolist() == [row.ref for row in view.rows]
    row = view.rows[5]
    assert frame.loc[row.ref, "AP"] == row.ours["AP"].mean
    assert frame.loc[row.ref, "AP_sd"] == row.ours["AP"].sd
    assert frame.loc[row.ref, ["n", "label", "split"]].tolist() == [3, "L = 6", "minival"]
    assert frame.loc[row.ref, [f"paper_{name}" for name in METRICS]].tolist() == list(row.published.values())
    assert {str(frame[name].dtype) for name in (*METRICS, "APL_sd", "paper_AP")} == {"float64"}
    assert math.isnan(frame.loc[row.ref, "APL"])  # no object of that size
    assert (frame.attrs["profile"], frame.attrs["compared_with_paper"]) == ("tiny", False)
    assert frame.attrs["footnotes"]["table2"] == list(view.footnotes)


def test_table_takes_several_targets_and_has_each_row_once() -> None:
    frame = harness.table(["table3", "table2/L6", "table2", "table3/dr"], profile="tiny")
    assert frame.index.is_unique
    assert len(frame) == 3 + 8
    assert frame.index[3] == "table2/L6"


def test_table_at_the_papers_scale_has_verdicts_and_cited_rows() -> None:
    frame = harness.table("all")
    assert len(frame) == 34
    assert {"AP_difference", "AP_half_width", "AP_verdict"} <= set(frame.columns)
    assert (frame["n"] == 0).all()
    cited = frame[frame["status"] == "cited"]
    assert len(cited)
    assert cited["paper_AP"].notna().all()


def test_claims_have_the_verdicts_of_the_command_by_contrast() -> None:
    frame = harness.claims("all", profile="tiny")
    view = judge(Selection("all", "tiny", [], None))
    paper = view.paper
    assert paper is not None
    assert not frame["own"].any()
    assert list(dict.fromkeys(frame["id"])) == [verdict.claim.id for verdict in paper.claims]
    verdict = next(verdict for verdict in paper.claims if verdict.claim.id == "smooth-beats-focal")
    lines = frame[frame["id"] == "smooth-beats-focal"]
    assert lines["a"].tolist() == [pair.a for pair in verdict.claim.contrasts]
    pair, line = verdict.measured[2], lines.iloc[2]
    assert pair.estimate is not None
    assert [line["a"], line["b"], line["difference"]] == [pair.a, pair.b, pair.value]
    assert (line["high"] - line["low"]) / 2 == pytest.approx(pair.estimate.half_width())
    assert [line["outcome"], line["p"], line["published"]] == [verdict.outcome, verdict.p_value, 0.7]


def test_claims_name_rows_that_have_no_run_and_rows_held_against_a_threshold() -> None:
    unmeasured = harness.claims(profile="small")
    assert unmeasured["n_a"].eq(0).all()
    assert unmeasured["a"].str.contains("/").all()
    assert unmeasured[["difference", "low", "mean_a"]].isna().all(axis=None)
    frame = harness.claims(profile="tiny")
    alone = frame[frame["quantity"] == "a"]
    assert alone["b"].isna().all()
    assert len(alone) == 5
    assert alone["n_a"].eq(3).all()


@pytest.mark.parametrize("name", ["table", "claims", "plan", "curves"])
def test_a_wrong_name_or_no_target_is_one_clear_error(name: str) -> None:
    function = getattr(harness, name)
    with pytest.raises(UsageError, match="Unknown table 'tabel2'. Known: table1"):
        function("tabel2", profile="tiny")
    with pytest.raises(UsageError, match="Unknown profile 'big'. Known:"):
        function("table2", profile="big")
    with pytest.raises(UsageError, match="No target was given"):
        function([], profile="tiny")
