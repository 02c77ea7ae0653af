"""Tables, claims and profiles of one's own in the commands: beside the paper's, and never mixed with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detector.errors import HarnessError
from harness.registry.claims import Claim, Contrast
from harness.registry.declarations import METRICS, Profile
from harness.registry.load import Registry
from harness.report.check import CheckView, build_check
from harness.report.formats import FORMATS, render_check
from harness.report.tables import build_table
from harness.verdicts.judge import ClaimVerdict
from harness.verdicts.runs import RowRuns
from tests.command import error, invoke
from tests.own_experiments import own_folder, set_folders, write_own

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The paper's, a table of one's own, rows of one's own in ``ablations``, and a claim."""
    folder = own_folder(tmp_path / "own", "table5")
    for file in ("ablations.yaml", "claims.yaml", "profiles/mine.yaml"):
        write_own(folder, file)
    set_folders(monkeypatch, folder)
    return Registry()


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The committed records and no others."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


def runs(ref: str, *values: float) -> dict[str, RowRuns]:
    """One run per value, each metric the same."""
    metrics = tuple(dict.fromkeys(METRICS, value) for value in values)
    ids = tuple(f"{ref}-{seed}" for seed in range(len(values)))
    return {ref: RowRuns(ref, "r50", tuple(range(len(values))), metrics, ids)}


PAPERS = runs("table3/dr", 37.3, 37.5) | runs("table3/neg-only", 36.9, 37.1)
OWN = runs("table5/low", 10.0, 50.0) | runs("ablations/low", 20.0, 40.0)  # scatter as none of the paper's rows does


def check(
    registry: Registry, target: str, found: dict[str, RowRuns], profile: str = "tiny", more: int = 0
) -> CheckView:
    claims = [*registry.own_claims, *(also(i) for i in range(more))]
    return build_check(
        target,
        registry.select(target, profile),
        list(registry.tables.values()),
        registry.claims,
        registry.profile(profile),
        runs=found,
        own_rows=registry.own_rows,
        own_claims=claims,
    )


def also(number: int) -> Claim:
    contrasts = (Contrast("table5/low", "table5/high"),)
    fields: dict[str, Any] = {"text": "t", "where": "w", "metric": "AP", "kind": "greater", "decidable_in": ("tiny",)}
    return Claim(id=f"also-{number}", contrasts=contrasts, **fields)


def said(view: CheckView) -> tuple[ClaimVerdict, ...]:
    assert view.paper is not None
    return view.paper.claims


# Verdicts


def test_own_runs_and_claims_change_no_verdict_on_the_paper(registry: Registry) -> None:
    without, beside = check(registry, "all", PAPERS), check(registry, "all", PAPERS | OWN, more=9)
    assert said(beside) == said(without)
    assert beside.paper == without.paper
    at_paper = [check(registry, "all", found, "paper").paper for found in (PAPERS, PAPERS | OWN)]
    assert at_paper[0] == at_paper[1]


def test_own_claims_are_corrected_for_their_own_number(registry: Registry) -> None:
    found = PAPERS | runs("table5/low", 30.0, 30.2)
    alone, crowded = check(registry, "all", found), check(registry, "all", found, more=9)
    assert alone.own is not None
    assert crowded.own is not None
    assert (alone.own.family_size, crowded.own.family_size) == (1, 10)
    (one,), (first, *_) = alone.own.claims, crowded.own.claims
    assert one.p_value is not None
    assert first.p_value == pytest.approx(10 * one.p_value)


def test_own_rows_use_the_deviation_of_the_papers_rows(registry: Registry) -> None:
    view = check(registry, "table5", PAPERS | runs("table5/low", 30.0))
    assert view.paper is None
    assert view.own is not None
    (verdict,) = view.own.claims
    assert verdict.measured[0].estimate is not None
    assert verdict.measured[0].estimate.df == 1  # of the difference of the paper's two rows, over two seeds
    assert "one seed of table5/low" in verdict.reason


def test_a_table_with_own_rows_gives_the_papers_rows_the_same_cells(registry: Registry) -> None:
    tiny: Profile = registry.profile("tiny")
    found = PAPERS | OWN | runs("ablations/worst-case", 30.0, 30.4)
    table = registry.tables["ablations"]
    without, beside = (
        build_table(table, tiny, given, own=registry.own_rows)
        for given in ({ref: row for ref, row in found.items() if ref not in OWN}, found)
    )
    assert beside.rows[: len(table.rows) - 2] == without.rows[: len(table.rows) - 2]
    spread = [note for note in without.footnotes if note.startswith("Seed deviation")]
    assert [note for note in beside.footnotes if note.startswith("Seed deviation")] == spread
    assert any(note == "Rows of your own, which no verdict on the paper counts: 0.3, 0.7." for note in beside.footnotes)


@pytest.mark.parametrize("fmt", FORMATS)
def test_check_shows_what_is_ones_own_apart(registry: Registry, fmt: str) -> None:
    text = render_check(check(registry, "all", PAPERS | OWN), fmt)
    plain = render_check(check(registry, "table2", PAPERS), fmt)
    assert "A margin of 0.3 costs AP" in text
    assert "A margin of 0.3 costs AP" not in plain
    if fmt == "json":
        assert [claim["id"] for claim in json.loads(text)["own"]["claims"]] == ["low-is-worse"]
        assert json.loads(plain)["own"] is None
    elif fmt == "csv":
        assert text.splitlines()[0].endswith(",own")
        assert "own" not in plain.splitlines()[0]
    else:
        heading = "Claims of your own" if fmt == "text" else "Your own claims about all"
        assert heading in text
        assert text.rindex("all-pairs-collapse" if fmt == "text" else "Table 3") < text.index(heading)
        assert "your own" not in plain.lower()


def test_strict_fails_on_what_is_shown(registry: Registry) -> None:
    contradicted = PAPERS | runs("table5/low", 90.0, 90.1)
    assert check(registry, "table5", contradicted).failed
    assert not check(registry, "table2", contradicted).failed


# Commands


@pytest.mark.usefixtures("registry", "committed")
def test_a_table_of_ones_own_in_a_folder_of_one_file_goes_through_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_folders(monkeypatch, own_folder(tmp_path / "alone", "table5"))
    assert "table5: Margins (minival)" in invoke("list").stdout
    assert "2 cells -> 2 trainings, 2 to do" in invoke("plan", "table5", "--profile", "tiny").stdout
    text = invoke("table", "table5", "--profile", "tiny").stdout
    assert text.startswith("Table 5. Margins\n")
    assert "A table of your own: no verdict on the paper counts it." in text
    assert "next: harness run table5 --profile tiny" in text
    assert "0.3" in invoke("table", "table5/low", "--profile", "tiny").stdout
    assert "loss.margin" in invoke("explain", "table5/low", "--profile", "tiny").stdout
    assert "Claims of your own, 0 in all" in invoke("check", "table5", "--profile", "tiny").stdout
    assert "table5/low" in invoke("status", "table5", "--profile", "tiny").stdout
    assert "decide no claim about table5" in error("plan", "table5", "--profile", "tiny", "--budget", "5cpuh")


@pytest.mark.usefixtures("committed")
def test_own_folders_leave_the_papers_tables_as_they_are(registry: Registry) -> None:
    def printed() -> list[str]:
        return [invoke(*words, "--profile", "tiny").stdout for words in (("table", "all"), ("check", "table3"))]

    beside = printed()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HARNESS_EXPERIMENTS")
        alone = printed()
    assert beside[0] == alone[0]
    papers, own = beside[1].split("\nYour own; no verdict on the paper counts them:\n")
    assert alone[1].startswith(papers)  # then what its words mean, which comes last
    assert "low-is-worse" in own


@pytest.mark.usefixtures("registry", "committed")
def test_a_profile_of_ones_own_stops_no_command() -> None:
    assert "mine" in invoke("list").stdout
    assert "22 claims of the paper" in invoke("check", "all", "--profile", "tiny").stdout
    assert "Claims decided:" in invoke("plan", "all", "--profile", "tiny", "--budget", "5cpuh").stdout
    claims = json.loads(invoke("check", "all", "--profile", "mine", "--json").stdout)["claims"]
    assert {claim["outcome"] for claim in claims} == {"not decidable here"}
    assert claims[0]["reason"].startswith("nobody has declared it for profile mine (decidable_in or reasons")
    assert "decide no claim about all" in error("plan", "all", "--profile", "mine", "--budget", "5cpuh")


@pytest.mark.usefixtures("registry", "committed")
def test_list_says_from_which_folder_what_is_ones_own_comes(tmp_path: Path) -> None:
    data = json.loads(invoke("list", "--json").stdout)
    folder = str(tmp_path / "own")
    assert {row["ref"] for table in data["tables"] for row in table["rows"] if row["folder"] == folder} == {
        *("table5/low", "table5/high", "ablations/low", "ablations/high"),
    }
    assert [profile["name"] for profile in data["profiles"] if profile["folder"]] == ["mine"]
    assert [claim["id"] for claim in data["claims"] if claim["folder"]] == ["low-is-worse"]
    assert f"Claims of your own, from {folder}: low-is-worse" in invoke("list").stdout


@pytest.mark.usefixtures("registry", "committed")
def test_budget_of_a_table_of_ones_own_is_for_ones_own_claims() -> None:
    own = json.loads(invoke("plan", "table5", "--profile", "tiny", "--budget", "5cpuh", "--json").stdout)
    assert own["impossible"].keys() == {"low-is-worse"}  # it quotes no size of the effect
    papers = json.loads(invoke("plan", "table3", "--profile", "tiny", "--budget", "5cpuh", "--json").stdout)
    assert "low-is-worse" not in {*papers["decided"], *papers["impossible"], *papers["elsewhere"]}


@pytest.mark.usefixtures("committed")
def test_a_wrong_variable_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", "/no/such/folder")
    with pytest.raises(HarnessError, match="HARNESS_EXPERIMENTS names /no/such/folder, which does not exist"):
        invoke("list")
