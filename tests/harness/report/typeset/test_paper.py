"""LaTeX that goes into a paper: it fits, it compiles, its numbers are those of the table."""

from __future__ import annotations

import re
import subprocess
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from detector.errors import UsageError
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.report.check import build_check
from harness.report.formats import render_check, render_tables
from harness.report.tables import TableView, build_table
from harness.report.typeset import widths
from harness.report.typeset.options import Layout, Look, Width, parse_names
from harness.report.typeset.symbols import latex_cell, latex_text
from harness.verdicts.runs import RowRuns
from tests.command import error
from tests.programs import TEX

TABLES = ("table1", "table2", "table3", "table4")
HOSTILE = (
    r"\input{/etc/passwd}",
    "50% & a_b #1 {x} $y^2$ ~",
    "[t] *",
    "*x",
    "--- ?` ,, << >> \"q\" 'r'",
    "a|b<c>",
    "\N{GREEK SMALL LETTER LAMDA} \u4e2d\u6587 \u00e9\u0142\u00df \U0001f600",
    "A-name-that-goes-on-and-on-" * 6,
    "Wortohneleerzeichen" * 12,
    "line\nbreak\n\n\\end{table}",
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture(scope="module")
def runs(registry: Registry) -> dict[str, RowRuns]:
    found = {}
    for table in registry.tables.values():
        for row in table.rows:
            ref = f"{table.id}/{row.id}"
            if row.recipe and ref != "table2/L8":
                shifts = deque((0.1, 0.2, 0.9))
                shifts.rotate(len(found))
                metrics = [
                    dict(zip(METRICS, (x + s for x in row.published or (36.0,) * 6), strict=True)) for s in shifts
                ]
                ids = tuple(f"{row.recipe} {row.set} {seed}" for seed in range(3))
                split = "test-dev" if table.split == "test-dev" else "minival"
                found[ref] = RowRuns(ref, row.recipe, (0, 1, 2), tuple(metrics), ids, split)
    return found


def view_of(registry: Registry, runs: dict[str, RowRuns], table: str, profile: str = "paper") -> TableView:
    return build_table(registry.tables[table], registry.profile(profile), runs)


def latex(view: TableView, **look: object) -> str:
    return render_tables([view], "latex", Look(**look))  # type: ignore[arg-type]


def row_of(text: str, label: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{label} &")]
    return [cell.strip() for cell in line.removesuffix(r"\\").split("&")]


def test_the_papers_layout_has_its_columns_in_its_symbols(registry: Registry, runs: dict[str, RowRuns]) -> None:
    text = latex(view_of(registry, runs, "table1"), layout="paper", width="column")
    heads = (
        r"$h_{+}$ & $h_{-}$ & AP & AP$_{50}$ & AP$_{75}$ & AP$_{\mathrm{S}}$ & AP$_{\mathrm{M}}$ & AP$_{\mathrm{L}}$ \\"
    )
    assert heads in text
    assert r"$\lambda_{+}$ = 1 / log $h_{+}$" in text
    assert r"\toprule" in text
    assert r"\hline" not in text
    assert row_of(text, "$e$ & 5.5")[:3] == ["$e$", "5.5", "37.6"]
    assert r"\begin{table}" in text


def test_captions_do_not_number_themselves(registry: Registry, runs: dict[str, RowRuns]) -> None:
    for name in TABLES:
        (caption,) = re.findall(r"\\caption\{(.*)", latex(view_of(registry, runs, name)))
        assert "Table" not in caption


def test_the_best_of_ours_is_bold_with_ties_and_cited_rows_apart(registry: Registry, runs: dict[str, RowRuns]) -> None:
    runs = {ref: row for ref, row in runs.items() if ref in ("table3/all", "table3/neg-only", "table3/dr")}
    same = replace(runs["table3/neg-only"], runs=runs["table3/dr"].runs)
    text = latex(view_of(registry, {**runs, "table3/neg-only": same}, "table3"), layout="paper")
    assert row_of(text, "All")[1] == "13.3"
    assert row_of(text, "NegOnly")[1] == row_of(text, "DR")[1] == r"\textbf{37.8}"
    alone = latex(view_of(registry, {"table3/dr": runs["table3/dr"]}, "table3"), layout="paper")
    assert "textbf" not in alone
    cited = [line for line in latex(view_of(registry, {}, "table4"), layout="paper").splitlines() if "FCOS" in line]
    assert cited
    assert not any("textbf" in line for line in cited)


def test_columns_and_metrics_are_those_that_were_chosen(registry: Registry, runs: dict[str, RowRuns]) -> None:
    text = latex(view_of(registry, runs, "table3"), columns=("ours", "paper"), metrics=("AP", "AP50"))
    assert row_of(text, "DR")[2:] == [r"\textbf{56.4}", "37.4", "56.0"]
    text = latex(view_of(registry, runs, "table3"), columns=("ours", "diff", "verdict"), metrics=("AP",))
    difference, verdict = row_of(text, "DR")[2:]
    assert re.fullmatch(r"\$\+\$0\.4\$\\pm\$\d\.\d", difference)
    assert verdict in ("reproduced", "consistent", "inconclusive", "not reproduced")
    assert parse_names("AP50, AP", METRICS, "--metrics") == ("AP", "AP50")
    with pytest.raises(UsageError, match=r"Unknown name 'ap' in --metrics\. Known: AP, AP50"):
        parse_names("ap", METRICS, "--metrics")


def test_notes_come_on_request_only(registry: Registry, runs: dict[str, RowRuns]) -> None:
    view = view_of(registry, runs, "table3", "tiny")
    assert "harness check" not in latex(view)
    assert "harness check -{}-profile tiny" in latex(view, notes="all")


def test_notes_are_on_columns_that_are_there(registry: Registry, runs: dict[str, RowRuns]) -> None:
    view = view_of(registry, runs, "table3")
    both, papers = latex(view, notes="all"), latex(view, notes="all", layout="paper")
    assert "diff: ours - paper" in both
    assert "diff: ours - paper" not in papers
    assert "COCO box metrics in percent" in papers
    assert both.count("deviation between seeds") == 1  # in the caption
    assert "deviation between seeds" not in papers


def test_signs_without_a_letter_of_tex_are_written_by_number() -> None:
    assert latex_text("\u4e2d") == "{}[U+4E2D]"
    assert latex_text("\u00e9\u0142") == r"\'{e}\l{}"
    assert latex_cell("e") == "$e$"
    assert latex_text("L = 6, AP50, h-") == r"$L = 6$, AP$_{50}$, $h_{-}$"
    assert latex_text("L = 6x h-index APs") == "L = 6x h-index APs"


def test_labels_of_many_lines_share_a_column_or_stand_above_their_numbers(
    registry: Registry, runs: dict[str, RowRuns]
) -> None:
    both = latex(view_of(registry, runs, "table4"), width="column")
    # A name above its numbers is wider than they are, and makes no column wider.
    assert r"\begin{tabular*}{" in both
    assert r"\multicolumn{8}{@{}l}{\makebox[0pt][l]{Dr. Retina, ResNet-101-FPN}} \\" in both
    papers = latex(view_of(registry, runs, "table4"), width="column", layout="paper")
    assert r"Method, Backbone & AP" in papers
    assert r"\raggedright Mask R-CNN, ResNet-101-FPN & 38.2" in papers
    # Where they fit, each has its own.
    assert "Method & Backbone & AP" in latex(view_of(registry, runs, "table4"), layout="paper")


def test_rows_of_several_lines_have_room_between_them_in_a_column(registry: Registry, runs: dict[str, RowRuns]) -> None:
    view = view_of(registry, runs, "table3")
    assert latex(view, width="column").count(r"\addlinespace") == 2  # of three rows
    assert r"\addlinespace" not in latex(view, width="column", layout="paper")
    below = latex(view_of(registry, runs, "table4"))
    assert "& paper &" in below
    assert r"\addlinespace" not in below


def test_lines_of_a_paragraph_break_at_spaces_and_after_hyphens() -> None:
    letter = widths.width("a", "small")
    assert widths.num_lines("aaaa aaaa", "small", 9.5 * letter) == 1
    assert widths.num_lines("aaaa aaaa", "small", 8 * letter) == 2
    assert widths.num_lines("aaaa-aaaa aa", "small", 5.5 * letter) == 3
    assert widths.num_lines("", "small", 5.0) == 1


def test_a_very_long_word_may_break_since_tex_breaks_none_of_its_own() -> None:
    assert latex_text("a" * 59) == "a" * 59
    assert latex_text(f"({'a' * 61})") == "(" + r"\-".join(["a" * 10] * 6 + ["a"]) + ")"


def test_options_of_latex_are_refused_elsewhere() -> None:
    assert "--width goes with --format latex alone." in error("table", "table2", "--width", "column")
    assert "--notes does not go with csv" in error("table", "table2", "--format", "csv", "--notes", "all")


@pytest.mark.tex
@pytest.mark.slow
def test_tables_compile_and_fit_the_width_they_are_given(
    registry: Registry, runs: dict[str, RowRuns], tmp_path: Path
) -> None:
    """Every table in every layout, and hostile labels, in an article of two columns: no box is too wide."""
    compiler = TEX.path()
    if compiler is None:
        pytest.skip(TEX.why_skipped())
    parts = [r"\documentclass[twocolumn]{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}"]
    for view in _views(registry, runs):
        for width in get_args(Width):
            for layout in get_args(Layout):
                parts.append(latex(view, width=width, layout=layout, notes="all" if width == "page" else None))
                parts.append(r"\clearpage")
    compiled = _compile(compiler, tmp_path / "tables.tex", [*parts, r"\end{document}"])
    assert "Overfull \\hbox" not in compiled, re.findall(r"Overfull.*", compiled)
    tables = [registry.tables[name] for name in TABLES]
    refs = [ref for table in tables for ref in table.refs()]
    check = build_check("all", refs, tables, registry.claims, registry.profile("paper"), runs=runs)
    head = [r"\documentclass{article}", r"\usepackage{booktabs,longtable}", r"\begin{document}"]
    _compile(compiler, tmp_path / "claims.tex", [*head, render_check(check, "latex"), r"\end{document}"])


def _views(registry: Registry, runs: dict[str, RowRuns]) -> list[TableView]:
    """Tables in small and hostile ones."""
    views = [view_of(registry, runs, name, profile) for name in TABLES for profile in ("paper", "tiny")]
    table2 = view_of(registry, runs, "table2")
    for text in HOSTILE:
        rows = tuple(replace(row, label=(text,)) for row in table2.rows[:2])
        views.append(replace(table2, title=text, columns=(text,), rows=rows, footnotes=(text,), id="table{2}"))
    return views


def _compile(compiler: str, path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines))
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", path.name]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, timeout=300, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-3000:]
    assert path.with_suffix(".pdf").stat().st_size > 10_000
    return said
