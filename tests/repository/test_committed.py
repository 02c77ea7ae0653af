"""The committed evidence, three seeds of tables 1 to 3 at the tiny scale, and files rendered from it without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.figures import catalogue
from harness.figures.figure import Figure
from harness.figures.output import files
from harness.planning.selection import Selection
from harness.report.plan import COMMON_AT_TINY
from harness.verdicts.runs import ProfileRuns

PROJECT = Path(__file__).resolve().parents[2]
RENDERED = {
    "tables.md": ("table", "all", "--format", "md"),
    "ablations.md": ("table", "ablations", "--format", "md"),
    "tables.tex": ("table", "all", "--format", "latex"),
    "check.md": ("check", "all", "--format", "md"),
}


# One process for all commands, as each start takes seconds: every command in turn, with no torch to import.
ALL_COMMANDS = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from harness.cli import main
texts = []
for arguments in json.load(sys.stdin):
    sys.argv = ["harness", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            main()
        except SystemExit as end:
            assert not end.code, (arguments, end.code)
    texts.append(text.getvalue())
json.dump(texts, sys.stdout)
"""
DATA = {
    "tables": ("table", "all", "--format", "json"),
    "table3": ("table", "table3", "--format", "json"),
    "check": ("check", "table3", "--format", "json"),
}


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands print of the committed records alone."""
    asked = RENDERED | DATA
    runs = tmp_path_factory.mktemp("no-runs")
    environment = {"HARNESS_RUNS": str(runs), "HARNESS_RESULTS": str(PROJECT / "results"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", ALL_COMMANDS],
        input=json.dumps([[*arguments, "--profile", "tiny"] for arguments in asked.values()]),
        capture_output=True,
        text=True,
        env=environment,
        cwd=PROJECT,
        check=True,
    )
    return dict(zip(asked, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_files_are_those_of_the_committed_records(name: str, printed: dict[str, str]) -> None:
    assert (PROJECT / "results" / "tables" / "tiny" / name).read_text() == printed[name], "make tables"


FIGURES = PROJECT / "results" / "figures" / "tiny"


@pytest.fixture
def selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Selection:
    """The committed records alone."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    return Selection("all", "tiny", [], None)


def stale(figure: Figure) -> list[str]:
    """The committed files of a figure that are not what the records give."""
    wanted = files(figure, FIGURES / f"{figure.name}.svg", "column") if not figure.missing else {}
    found = {path for path in FIGURES.iterdir() if path.stem == figure.name}
    return [path.name for path in found | set(wanted) if path not in found or path.read_bytes() != wanted.get(path)]


def test_drawn_figures_are_those_of_the_committed_records(selection: Selection) -> None:
    assert {path.stem for path in FIGURES.iterdir()} <= set(catalogue.FIGURES)
    for name in set(catalogue.FIGURES) - {"fig2"}:
        assert not stale(catalogue.build(name, selection)), "make figures"


@pytest.mark.slow
def test_figure_2_of_ten_million_points_is_the_committed_one(selection: Selection) -> None:
    assert not stale(catalogue.build("fig2", selection)), "make figures"


def test_committed_records_fill_tables_1_to_3_with_three_seeds(printed: dict[str, str]) -> None:
    tables = json.loads(printed["tables"])
    for table in tables[:3]:
        for row in table["rows"]:
            assert row["seeds"] == [0, 1, 2], row["ref"]


def test_all_pairs_do_worst_and_dr_against_neg_only_is_not_decided_at_this_scale(printed: dict[str, str]) -> None:
    (table,) = json.loads(printed["table3"])
    ap = {row["ref"]: row["ours"]["AP"]["mean"] for row in table["rows"]}
    assert ap["table3/all"] < 0.6 * ap["table3/dr"]
    claims = json.loads(printed["check"])["claims"]
    outcomes = {claim["id"]: claim["outcome"] for claim in claims}
    assert outcomes["dr-beats-neg-only"] == "not decidable here"
    assert outcomes["neg-only-beats-focal"] == "supported"


def test_the_share_of_the_seed_that_plans_name_is_that_of_the_committed_records(selection: Selection) -> None:
    found = ProfileRuns(selection.runs(), selection.profile.assumed_sd).blocks("table3/dr", "AP")
    assert found is not None
    assert round(found.share or 0.0, 1) == COMMON_AT_TINY
