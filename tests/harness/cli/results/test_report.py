"""``harness report``: what it writes, where, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.figures.images import pictures
from tests.command import error, invoke

TINY = ("--profile", "tiny")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_folders: None) -> None:
    """Without figures and images, which have tests of their own."""
    monkeypatch.setattr("harness.figures.catalogue.FIGURES", ())
    monkeypatch.setattr(pictures, "pictures_of", lambda selection: [])
    monkeypatch.chdir(tmp_path)


def test_report_says_whether_the_paper_holds_and_where_the_page_is(tmp_path: Path) -> None:
    said = invoke("report", "table2", *TINY).stdout
    assert said.splitlines()[0] == "tiny: Not known: no run at profile tiny is finished."
    assert said.splitlines()[1].startswith("report/index.html and 2 files of data beside it: ")
    assert (tmp_path / "report" / "index.html").is_file()


def test_single_file_is_report_html_and_nothing_else(tmp_path: Path) -> None:
    said = invoke("report", "table2", *TINY, "--single-file").stdout
    assert said.splitlines()[1].startswith("report.html: ")
    assert [path.name for path in tmp_path.glob("report*")] == ["report.html"]


def test_profiles_are_those_given_in_their_order(tmp_path: Path) -> None:
    said = invoke("report", "table2", *TINY, "-p", "paper", "-p", "tiny").stdout
    assert [line.split(":")[0] for line in said.splitlines()[:2]] == ["tiny", "paper"]


def test_unknown_names_and_folders_of_others_are_refused_before_any_work(tmp_path: Path) -> None:
    assert "tabel2" in error("report", "tabel2", *TINY)
    assert "tinny" in error("report", "table2", "-p", "tinny")
    (tmp_path / "mine.txt").write_text("x")
    assert "is not a report of ours" in error("report", "tabel2", *TINY, "--out", str(tmp_path))
    assert not (tmp_path / "report").exists()
