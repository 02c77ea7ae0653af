"""The committed evidence, three seeds of tables 1 to 3 at the tiny scale, and files rendered from it without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RENDERED = {
    "tables.md": ("table", "all", "--format", "md"),
    "ablations.md": ("table", "ablations", "--format", "md"),
    "tables.tex": ("table", "all", "--format", "latex"),
    "check.md": ("check", "all", "--format", "md"),
}


def harness(tmp_path: Path, *arguments: str) -> str:
    """The command on the committed records alone, refusing to import torch."""
    code = (
        "import sys; sys.modules['torch'] = None; from harness.cli import main; "
        "sys.argv = ['harness', *sys.argv[1:]]; main()"
    )
    environment = {"HARNESS_RUNS": str(tmp_path), "HARNESS_RESULTS": str(PROJECT / "results"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=PROJECT,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_files_are_those_of_the_committed_records(name: str, tmp_path: Path) -> None:
    text = harness(tmp_path, *RENDERED[name], "--profile", "tiny")
    assert (PROJECT / "results" / "tables" / "tiny" / name).read_text() == text, "make tables"


def test_committed_records_fill_tables_1_to_3_with_three_seeds(tmp_path: Path) -> None:
    tables = json.loads(harness(tmp_path, "table", "all", "--profile", "tiny", "--format", "json"))
    for table in tables[:3]:
        for row in table["rows"]:
            assert row["seeds"] == [0, 1, 2], row["ref"]


def test_all_pairs_do_worst_and_dr_against_neg_only_is_not_decided_at_this_scale(tmp_path: Path) -> None:
    (table,) = json.loads(harness(tmp_path, "table", "table3", "--profile", "tiny", "--format", "json"))
    ap = {row["ref"]: row["ours"]["AP"]["mean"] for row in table["rows"]}
    assert ap["table3/all"] < 0.6 * ap["table3/dr"]
    claims = json.loads(harness(tmp_path, "check", "table3", "--profile", "tiny", "--format", "json"))["claims"]
    outcomes = {claim["id"]: claim["outcome"] for claim in claims}
    assert outcomes["dr-beats-neg-only"] == "not decidable here"
    assert outcomes["neg-only-beats-focal"] == "supported"
