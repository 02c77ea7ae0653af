"""The report on the disk: what is not ours stays, and what is ours is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import UsageError
from harness.report.page import folder
from harness.report.page.folder import MARKER, check_out, write
from harness.report.page.page import Page
from tests.harness.report.page.conftest import PROJECT


def names(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_folder_has_the_page_its_data_and_the_mark_and_nothing_stays_beside_it(committed: Page, tmp_path: Path) -> None:
    out = tmp_path / "report"
    written = write(committed, out, single_file=False)
    data = {f"data/{name}" for name in ("tables-tiny.csv", "claims-tiny.csv", "fig3.csv", "claims-tiny.csv")}
    assert names(out) >= data | {"index.html", MARKER}
    assert written.page == out / "index.html"
    assert written.size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    page = (out / "index.html").read_text()
    assert 'href="data/tables-tiny.csv"' in page
    assert "data:text/csv" not in page


def test_earlier_report_is_replaced_with_all_that_was_in_it(committed: Page, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(committed, out, single_file=False)
    before = (out / "index.html").read_bytes()
    (out / "data" / "stale.csv").write_text("old")
    write(committed, out, single_file=False)
    assert (out / "index.html").read_bytes() == before
    assert not (out / "data" / "stale.csv").exists()


def test_empty_folder_and_a_link_to_one_are_used(committed: Page, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "report").symlink_to(tmp_path / "real")
    write(committed, tmp_path / "report", single_file=False)
    assert (tmp_path / "report").is_symlink()
    assert (tmp_path / "real" / "index.html").is_file()


def test_folder_of_somebody_else_is_refused_and_stays(committed: Page, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="has files and is not a report of ours"):
        write(committed, tmp_path, single_file=False)
    assert names(tmp_path) == {"index.html"}


@pytest.mark.parametrize("out", ["page.html", "page.txt"])
def test_file_in_the_place_of_a_folder_is_refused(out: str, tmp_path: Path) -> None:
    (tmp_path / out).write_text("mine")
    with pytest.raises(UsageError, match="is a file, and a report is a folder"):
        check_out(tmp_path / out, single_file=False)


def test_single_file_has_the_data_in_it_and_replaces_its_own_kind_only(committed: Page, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert write(committed, out, single_file=True).files == 1
    assert "data:text/csv" in out.read_text()
    write(committed, out, single_file=True)
    out.write_text("<!doctype html>\n<title>mine</title>")
    with pytest.raises(UsageError, match="is not a page of 'harness report'"):
        write(committed, out, single_file=True)
    with pytest.raises(UsageError, match="must end in .html"):
        check_out(tmp_path / "report", single_file=True)
    (tmp_path / "x.html").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_out(tmp_path / "x.html", single_file=True)


@pytest.mark.parametrize("single_file", [True, False])
def test_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single_file: bool
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file, so that .* cannot be made in it"):
        check_out(tmp_path / "file" / "deep" / "x.html", single_file=single_file)
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match=f"Nothing can be written in {tmp_path} by this user"):
        check_out(tmp_path / "new" / "x.html", single_file=single_file)


def test_folder_that_the_command_runs_in_is_not_replaced(
    committed: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(committed, out, single_file=False)
    for place, name in ((out, "."), (out / "data", "..")):
        monkeypatch.chdir(place)
        with pytest.raises(UsageError, match="is the folder that you are in, or around it"):
            check_out(Path(name), single_file=False)


def test_report_of_make_is_in_a_folder_that_git_does_not_see() -> None:
    assert "--out report\n" in (PROJECT / "Makefile").read_text()
    assert {"/report/", "/report.html"} <= set((PROJECT / ".gitignore").read_text().splitlines())


def test_crash_while_writing_leaves_the_old_report_whole(
    committed: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(committed, out, single_file=False)
    before = {name: (out / name).read_bytes() for name in names(out)}

    def fails(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="No space left"):
        write(committed, out, single_file=False)
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_crash_between_the_two_moves_brings_the_old_report_back(
    committed: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(committed, out, single_file=False)
    before = (out / "index.html").read_bytes()
    moves = Path.rename

    def second_fails(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise KeyboardInterrupt
        return moves(path, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(KeyboardInterrupt):
        folder.write(committed, out, single_file=False)
    assert (out / "index.html").read_bytes() == before
