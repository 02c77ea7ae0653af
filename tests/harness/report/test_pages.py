"""HTML: whole pages that stand alone, parts of pages, verdicts that are told by more than colour."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from harness.report.markup import TextTable, html_document, html_fragment

PROJECT = Path(__file__).resolve().parents[3]


class Starts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def test_a_page_has_its_charset_its_title_and_both_colour_schemes() -> None:
    page = html_document("A <b> & C", [TextTable("t", ["x"], [["y"]], 1)])
    assert page.startswith("<!DOCTYPE html>")
    assert page.index('<meta charset="utf-8">') < 200
    assert "<title>A &lt;b&gt; &amp; C</title>" in page
    assert "color-scheme:light dark" in page
    assert "prefers-color-scheme:dark" in page
    assert "http" not in page  # nothing is fetched
    starts = Starts()
    starts.feed(page)
    assert "b" not in starts.tags
    assert starts.tags.count("title") == 1


def test_verdicts_are_told_by_a_sign_and_by_their_letters() -> None:
    rows = [["reproduced", "not reproduced (provisional)"], ["supported", "plain"]]
    page = html_fragment(TextTable("t", ["name", "verdict"], rows, 1, verdicts=(1,)))
    assert '<td class="number bad provisional">not reproduced (provisional)</td>' in page
    assert "<td>reproduced</td>" in page  # a label is no verdict
    assert ".harness .bad::before" in page


def test_the_same_records_give_the_same_bytes_in_every_format() -> None:
    code = (
        "import sys; from harness.planning.selection import Selection; from harness.report.views import table_views;"
        "from harness.report.formats import FORMATS, render_tables;"
        "views = table_views(Selection('table1 table2'.split(), 'tiny', [], None));"
        "sys.stdout.buffer.write(chr(0).join(render_tables(views, fmt) for fmt in FORMATS).encode())"
    )
    printed = set()
    for number, locale in (("1", "C"), ("2", "C.UTF-8")):
        environment = {
            **{"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": number, "LC_ALL": locale},
            **{"HARNESS_RUNS": "/nonexistent", "HARNESS_RESULTS": str(PROJECT / "results"), "COLUMNS": f"{number}00"},
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
