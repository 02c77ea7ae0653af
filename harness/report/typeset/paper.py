"""A filled table as LaTeX that goes into a paper: booktabs, as wide as a column or a page, the best number in bold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Final, Literal

from detector.storage.shown import one_line
from harness.report.tables import TableView
from harness.report.typeset.grid import Cell, Grid, Shape, best_means, grid_of
from harness.report.typeset.notes import chosen_notes
from harness.report.typeset.options import Look
from harness.report.typeset.symbols import latex_text
from harness.report.typeset.widths import BOLD, PAGE, longest_word, num_lines, width

# Sizes of the type, with the points beside a column.
_SMALLEST: Final = "scriptsize"
_MOST_LINES: Final = 2  # of a label in its own column: on more, labels share a column or stand above the numbers
_FITS: Final = (
    ("small", 5.0),
    ("small", 3.5),
    ("footnotesize", 3.5),
    ("footnotesize", 2.5),
    (_SMALLEST, 2.5),
    (_SMALLEST, 1.8),
)


def paper_latex(view: TableView, look: Look) -> str:
    """The table as a float of ``look.width``; it needs the package booktabs, and says where it needs graphicx too."""
    columns = look.columns if look.columns is not None else _columns(view, look)
    shape, grid, wrapped = _fitted(view, look, columns)
    environment = "table" if look.width == "column" else "table*"
    caption = latex_text(one_line(_caption(view, look, columns)))
    lines = [f"\\begin{{{environment}}}", f"\\centering\\{shape.size}\\setlength{{\\tabcolsep}}{{{shape.gap}pt}}"]
    lines += [f"\\caption{{{caption}}}\\smallskip", f"\\label{{tab:{_label(view.id)}}}"]
    # A name above its numbers may be wider than they are.
    above = wrapped == [] and any(line[0].span > 1 for line in grid.lines)
    several = bool(wrapped) or any(not line[0].plain for line in grid.lines)
    airy = look.width == "column" and several
    body = _tabular(grid, wrapped or [], spread=_natural(grid, shape) if above else 0.0, airy=airy)
    if wrapped is None:
        lines[0] = f"% \\usepackage{{graphicx}}\n{lines[0]}"
        body = ["\\resizebox{\\linewidth}{!}{%", *body, "}"]
    lines += body
    if notes := _notes(view, look, columns):
        lines += ["\\par\\medskip", "\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright"]
        lines += [f"{latex_text(one_line(note))}\\par" for note in notes]
        lines.append("\\end{minipage}")
    return "\n".join([*lines, f"\\end{{{environment}}}", ""])


def _notes(view: TableView, look: Look, columns: Sequence[str]) -> list[str]:
    """Those on what the table shows; what ± is, the caption says."""
    said = ("±: ",) if {"diff", "verdict"} & set(columns) else ("±: ", "diff: ")
    return [note for note in chosen_notes(view, look.notes or "none") if not note.startswith(said)]


def _fitted(view: TableView, look: Look, columns: Sequence[str]) -> tuple[Shape, Grid, list[float] | None]:
    """The first shape that fits, and the points of its columns of text where they must be wrapped.

    None in their place where no shape fits, because a label has no place to break.
    """
    room = PAGE[look.width]
    shapes = _shapes(look, columns)
    kept: tuple[Shape, Grid, list[float] | None] | None = None
    for shape in (*shapes, replace(shapes[-1], merged=True)):
        grid = grid_of(view, look, columns, shape)
        if _natural(grid, shape) <= room:
            return shape, grid, []
        if (shape == shapes[-1] or shape.merged) and (wrapped := _wrapped(grid, shape, room)):
            if shape.merged or _most_lines(grid, wrapped, shape) <= _MOST_LINES:
                return shape, grid, wrapped
            kept = shape, grid, wrapped
    return kept or (shape, grid, None)


def _columns(view: TableView, look: Look) -> tuple[str, ...]:
    """Those of the layout."""
    if look.layout == "paper":
        return ("ours",)
    return ("n", "ours", "sd", "paper", *(("diff", "verdict") if view.compared else ()))


def _shapes(look: Look, columns: Sequence[str]) -> list[Shape]:
    """Every way to lay it out, what is best to read first: side by side, with all deviations, in the largest type."""
    stacked = [look.width == "column"] if "paper" in columns and "ours" in columns else [False]
    stacked += [True] if "paper" in columns and "ours" in columns and not stacked[0] else []
    deviations: tuple[Literal["all", "first", "none"], ...] = ("all", "first") if "sd" in columns else ("none",)
    return [Shape(stack, sd, size, gap) for stack, sd, (size, gap) in product(stacked, deviations, _FITS)]


def _natural(grid: Grid, shape: Shape) -> float:
    """Points of the table where no cell is wrapped."""
    widths = _column_widths(grid, shape)
    return sum(widths) + 2 * shape.gap * (len(widths) - 1) + _excess(grid, widths, shape)


def _excess(grid: Grid, widths: Sequence[float], shape: Shape) -> float:
    """Points by which the widest cell over several columns is wider than they are."""
    excess = 0.0
    for line in grid.lines:
        column = 0
        for cell in line:
            if cell.span > 1:
                under = sum(widths[column : column + cell.span]) + 2 * shape.gap * (cell.span - 1)
                excess = max(excess, width(cell.plain, shape.size) - under)
            column += cell.span
    return excess


def _column_widths(grid: Grid, shape: Shape) -> list[float]:
    widths = [width(cell.plain, shape.size) for cell in grid.headings]
    for line in grid.lines:
        column = 0
        for cell in line:
            if cell.span == 1:
                points = width(cell.plain, shape.size) * (BOLD if cell.bold else 1)
                widths[column] = max(widths[column], points)
            column += cell.span
    return widths


def _wrapped(grid: Grid, shape: Shape, room: float) -> list[float]:
    """Points of each column of text so that the table fits, with its words whole; none where that cannot be."""
    widths = _column_widths(grid, shape)
    number = grid.num_labels
    left = room - sum(widths[number:]) - 2 * shape.gap * (len(widths) - 1) - _excess(grid, widths, shape)
    texts = [[grid.headings[i].plain, *(line[i].plain for line in grid.lines)] for i in range(number)]
    least = [max(longest_word(text, shape.size) for text in column) for column in texts]
    spare = left - sum(least)
    if spare < 0:
        return []
    wanted = [max(0.0, natural - short) for natural, short in zip(widths[:number], least, strict=True)]
    share = min(1.0, spare / sum(wanted)) if sum(wanted) else 0.0
    return [short + share * more for short, more in zip(least, wanted, strict=True)]


def _most_lines(grid: Grid, wrapped: Sequence[float], shape: Shape) -> int:
    """Of any cell in the columns of text."""
    return max(
        num_lines(cell.plain, shape.size, points)
        for line in grid.lines
        for cell, points in zip(line, wrapped, strict=False)
    )


def _tabular(grid: Grid, wrapped: Sequence[float], *, spread: float, airy: bool) -> list[str]:
    """spread: the whole table's points, over which its columns lie evenly; 0: each as wide as its cells.

    airy: with room between rows of several lines.
    """
    number, total = grid.num_labels, len(grid.headings)
    labels = "".join(f"p{{{points:.1f}pt}}" for points in wrapped) or "l" * number
    columns = f"{labels}{'r' * (total - number)}@{{}}"
    name, start = ("tabular*", f"{{{spread:.1f}pt}}{{@{{\\extracolsep{{\\fill}}}}") if spread else ("tabular", "{@{}")
    lines = [f"\\begin{{{name}}}{start}{columns}}}", "\\toprule"]
    if grid.spans:
        lines += _spans(grid.spans)
    lines += [_line(grid.headings, 0), "\\midrule"]
    for i, line in enumerate(grid.lines):
        if i in grid.heads:
            lines += ["\\midrule"] if i else []
            lines.append(
                f"\\multicolumn{{{total}}}{{@{{}}l@{{}}}}{{\\textit{{{latex_text(one_line(grid.heads[i]))}}}}} \\\\"
            )
        if line[0].plain and i and i not in grid.heads and (airy or line[0].span > 1):
            lines.append("\\addlinespace[2pt]")
        lines.append(_line(line, number if wrapped else 0))
    return [*lines, "\\bottomrule", f"\\end{{{name}}}"]


def _spans(spans: Sequence[tuple[str, int]]) -> list[str]:
    cells, rules, column = [], [], 1
    for name, columns in spans:
        cells.append(f"\\multicolumn{{{columns}}}{{c}}{{{name}}}")
        if name:
            rules.append(f"\\cmidrule(lr){{{column}-{column + columns - 1}}}")
        column += columns
    return [f"{' & '.join(cells)} \\\\", "".join(rules)]


def _line(cells: Sequence[Cell], wrapped: int) -> str:
    parts = []
    for i, cell in enumerate(cells):
        tex = cell.tex.replace("\n", "; ")
        if cell.span > 1:
            # A name above its numbers makes no column wider: TeX would give all of it to the last one.
            tex = tex if i else f"\\makebox[0pt][l]{{{tex}}}"
            tex = f"\\multicolumn{{{cell.span}}}{{{'l' if i else '@{}l'}}}{{{tex}}}"
        parts.append(f"\\raggedright {tex}" if i < wrapped and cell.plain and cell.span == 1 else tex)
    return f"{' & '.join(parts)} \\\\"


def _caption(view: TableView, look: Look, columns: Sequence[str]) -> str:
    """The title, and what a reader needs to read the numbers; the word Table and its number are LaTeX's."""
    said = [f"{view.title.rstrip('.')}{f' ({view.split})' if view.compared else ''}."]
    measured = any(row.ours for row in view.rows)
    if not view.compared:
        said.append(f"Our numbers are of the profile {view.profile}, at another scale than the paper's.")
        if any(row.published for row in view.rows) and ("paper" in columns or any(row.cited for row in view.rows)):
            said.append("In parentheses: published numbers.")
    if measured and "sd" in columns and any(len(row.seeds) > 1 for row in view.rows):
        said.append("±: deviation between seeds.")
    if "verdict" in columns and any(row.verdicts and row.verdicts["AP"].provisional for row in view.rows):
        said.append("*: provisional.")
    if measured and best_means(view, look.metrics):
        said.append("Bold: the best of our means.")
    return " ".join(said)


def _label(name: str) -> str:
    return "".join(char for char in name if char.isascii() and (char.isalnum() or char in "-."))
