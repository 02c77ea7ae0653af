"""Rendered tables and verdicts: what a reader sees, in each format."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections import deque
from html.parser import HTMLParser
from pathlib import Path

import pytest

from detector.errors import UsageError
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.report.check import CheckView, build_check
from harness.report.formats import FORMATS, render_check, render_tables
from harness.report.markup import TextTable, html_fragment, markdown
from harness.report.tables import TableView, build_table
from harness.report.typeset.symbols import latex_text
from harness.verdicts.runs import RowRuns

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(EXPERIMENTS)


@pytest.fixture(scope="module")
def runs(registry: Registry) -> dict[str, RowRuns]:
    """Three seeds of every row but table2/L8, each metric 0.1, 0.2 and 0.3 above the paper's in turn."""
    found = {}
    for table in registry.tables.values():
        for row in table.rows:
            ref = f"{table.id}/{row.id}"
            if row.recipe and ref != "table2/L8":
                numbers = row.published or (36.0,) * 6
                shifts = deque((0.1, 0.2, 0.3))
                shifts.rotate(len(found))
                metrics = [dict(zip(METRICS, (x + shift for x in numbers), strict=True)) for shift in shifts]
                ids = tuple(f"{row.recipe} {row.set} {seed}" for seed in range(3))
                found[ref] = RowRuns(ref, row.recipe, (0, 1, 2), tuple(metrics), ids)
    return found


def view_of(registry: Registry, runs: dict[str, RowRuns], table: str, profile: str) -> TableView:
    return build_table(registry.tables[table], registry.profile(profile), runs)


def check_of(registry: Registry, runs: dict[str, RowRuns], profile: str) -> CheckView:
    tables = [registry.tables[name] for name in ("table1", "table2", "table3", "table4")]
    refs = [ref for table in tables for ref in table.refs()]
    return build_check("all", refs, tables, registry.claims, registry.profile(profile), runs=runs)


# Text


@pytest.mark.parametrize("profile", ["paper", "tiny"])
def test_render_text_fits_a_terminal_of_120_columns(registry: Registry, runs: dict[str, RowRuns], profile: str) -> None:
    views = [view_of(registry, runs, table, profile) for table in registry.tables]
    text = render_tables(views, "text") + "\n" + render_check(check_of(registry, runs, profile), "text")
    assert [line for line in text.splitlines() if len(line) > 120] == []


def test_render_text_puts_the_papers_number_below_ours(registry: Registry, runs: dict[str, RowRuns]) -> None:
    lines = render_tables([view_of(registry, runs, "table3", "paper")], "text").splitlines()
    ours = next(line for line in lines if line.startswith("DR"))
    paper, diff, verdict = lines[lines.index(ours) + 1 :][:3]
    assert ours.split()[:5] == ["DR", "ours", "3", "37.6", "±0.1"]
    assert ours.index("37.6") == paper.index("37.4")
    assert diff.split()[:3] == ["diff", "+0.2", "±0.2"]  # t(0.975, 28) sqrt(0.01 * 4/3 + 0.01/12) = 2.05 * 0.119
    assert verdict.strip() == "AP reproduced"  # 0.2 + 1.70 * 0.119 = 0.40 < 0.5


def test_render_text_sets_another_scale_apart(registry: Registry, runs: dict[str, RowRuns]) -> None:
    text = render_tables([view_of(registry, runs, "table3", "tiny")], "text")
    assert "(37.4)" in text
    assert "another scale; not comparable" in text
    assert "diff" not in text


def test_render_text_names_pending_awaiting_and_cited_rows(registry: Registry, runs: dict[str, RowRuns]) -> None:
    table2 = render_tables([view_of(registry, runs, "table2", "paper")], "text")
    assert re.search(r"^L = 8 +ours +0 +pending$", table2, re.MULTILINE)
    assert "next: harness run table2 --profile paper" in table2
    table4 = render_tables([view_of(registry, runs, "table4", "paper")], "text")
    assert re.search(r"^Mask R-CNN +ResNet-101-FPN +cited +38\.2 +60\.3", table4, re.MULTILINE)
    assert table4.count("awaiting server") == 4


# Data


def test_render_json_keeps_numbers_unrounded(registry: Registry, runs: dict[str, RowRuns]) -> None:
    (table,) = json.loads(render_tables([view_of(registry, runs, "table3", "paper")], "json"))
    row = table["rows"][2]
    assert row["ours"]["AP"]["mean"] == pytest.approx(37.6, abs=1e-12)
    assert (row["published"]["AP"], row["n"], row["seeds"]) == (37.4, 3, [0, 1, 2])
    assert row["verdicts"]["AP"]["outcome"] == "reproduced"
    assert table["footnotes"]


def test_render_csv_reads_back(registry: Registry, runs: dict[str, RowRuns]) -> None:
    views = [view_of(registry, runs, table, "paper") for table in ("table1", "table2", "table3", "table4")]
    lines = list(csv.DictReader(io.StringIO(render_tables(views, "csv"))))
    assert len(lines) == 34
    dr = next(line for line in lines if line["ref"] == "table3/dr")
    assert (dr["label"], dr["n"], dr["paper AP"], dr["AP verdict"]) == ("DR", "3", "37.4", "reproduced")
    assert float(dr["AP"]) == pytest.approx(37.6)


def test_render_check_json_has_every_claim_with_its_measurement(registry: Registry, runs: dict[str, RowRuns]) -> None:
    data = json.loads(render_check(check_of(registry, runs, "paper"), "json"))
    claims = {claim["id"]: claim for claim in data["claims"]}
    assert list(claims) == [claim.id for claim in registry.claims]
    assert claims["dr-beats-neg-only"]["measured"][0]["value"] == pytest.approx(0.4)
    assert claims["smooth-beats-hinge"]["reason"].startswith("no run of table2/L8")
    assert len(data["cells"]) == 21


def test_render_check_csv_has_a_line_a_contrast(registry: Registry, runs: dict[str, RowRuns]) -> None:
    lines = list(csv.DictReader(io.StringIO(render_check(check_of(registry, runs, "tiny"), "csv"))))
    assert sum(line["id"] == "smooth-beats-focal" for line in lines) == 5  # table2/L8 has no run
    assert {line["id"] for line in lines} == {claim.id for claim in registry.claims}


def test_render_check_text_counts_and_explains(registry: Registry, runs: dict[str, RowRuns]) -> None:
    text = render_check(check_of(registry, runs, "tiny"), "text")
    assert "SUPPORTED  all-pairs-collapse" in text
    assert "none is compared" in text
    assert re.search(r"22 claims of the paper: \d+ supported, \d+ contradicted, \d+ undecided, 16 not decidable", text)


# Markup


def test_render_markdown_is_a_pipe_table_with_equal_columns(registry: Registry, runs: dict[str, RowRuns]) -> None:
    lines = render_tables([view_of(registry, runs, "table4", "paper")], "md").splitlines()
    pipes = {line.count("|") for line in lines if line.startswith("|")}
    assert pipes == {18}  # 2 labels, n, 6 + 6 numbers, diff, verdict
    assert any("**two-stage detectors**" in line for line in lines)


def test_markdown_escapes_pipes() -> None:
    assert "a\\|b" in markdown(TextTable("c", ["x"], [["a|b"]], 1))


@pytest.mark.parametrize("profile", ["paper", "tiny"])
def test_render_latex_is_balanced_ascii_with_equal_columns(
    registry: Registry, runs: dict[str, RowRuns], profile: str
) -> None:
    views = [view_of(registry, runs, table, profile) for table in registry.tables]
    text = render_tables(views, "latex") + render_check(check_of(registry, runs, profile), "latex")
    assert text.isascii()
    bare = re.sub(r"\\.", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    begun, ended = (re.findall(rf"\\{word}\{{(\w+\*?)\}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    for body in re.findall(r"\\begin\{tabular\}\{@\{\}(l+r+)@\{\}\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        for line in re.findall(r"^(.*) \\\\$", body[1], re.MULTILINE):
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == len(body[0]), line


def test_latex_escapes_what_latex_reads() -> None:
    assert latex_text("50% & a_b #1 {x} $") == r"50\% \& a\_b \#1 \{x\} \$"
    assert latex_text("\\~^<>") == (r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}")
    assert latex_text("h+") == "$h_{+}$"
    assert latex_text("\N{GREEK SMALL LETTER RHO} = 0.2 ±1") == r"$\rho = 0.2$ $\pm$1"


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_render_html_is_balanced(registry: Registry, runs: dict[str, RowRuns]) -> None:
    parser = _Balance()
    parser.feed(render_tables([view_of(registry, runs, "table4", "paper")], "html"))
    parser.feed(render_check(check_of(registry, runs, "paper"), "html"))
    assert parser.open == []


def test_html_escapes_everything() -> None:
    fragment = html_fragment(TextTable("<c>", ["<h>"], [["<b>&"]], 1, ["<n>"]))
    assert not re.search(r"<[chbn]>", fragment)
    assert "&lt;b&gt;&amp;" in fragment


# Interface


@pytest.mark.parametrize("fmt", FORMATS)
def test_render_accepts_every_format_without_any_run(registry: Registry, fmt: str) -> None:
    assert render_tables([view_of(registry, {}, "table1", "tiny")], fmt)
    assert render_check(check_of(registry, {}, "paper"), fmt)


def test_render_rejects_an_unknown_format(registry: Registry) -> None:
    with pytest.raises(UsageError, match=r"Unknown format 'pdf'\. Known: text, md"):
        render_tables([view_of(registry, {}, "table1", "tiny")], "pdf")


def test_render_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from harness.registry.load import Registry; from harness.report.tables import build_table;"
        "from harness.report.formats import render_tables; r = Registry(); p = r.profile('tiny');"
        "[render_tables([build_table(t, p, {}) for t in r.tables.values()], f) for f in ('text', 'csv', 'md')];"
        "print([m for m in ('torch', 'pandas', 'scipy.stats') if m in sys.modules])"
    )
    root = EXPERIMENTS.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
