"""A table of strings as Markdown, LaTeX or HTML. It knows nothing of tables, claims or numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from detector.storage.shown import one_line, shown

_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "§": r"\S{}",
    "\N{GREEK SMALL LETTER RHO}": r"$\rho$",
    "\N{GREEK SMALL LETTER LAMDA}": r"$\lambda$",
}
# What ends a cell, begins a tag or an entity, or makes a link of GitHub's Markdown; all else is left readable.
_MARKDOWN = re.compile(r"[\\|`]|<(?=[A-Za-z/!?])|&(?=#|\w+;)|\](?=[(\[:])|!(?=\[)|://|(?i:mailto:|xmpp:|www\.)|@")
_ENTITIES = {"|": r"\|", **{char: f"&#{ord(char)};" for char in "\\`<&]!:/.@"}}
_STYLE = (
    "<style>.harness{font:14px/1.45 system-ui,sans-serif;border-collapse:collapse}"
    ".harness caption{text-align:left;font-weight:600;padding:.4em .6em}"
    ".harness th,.harness td{padding:.25em .6em;text-align:left;vertical-align:top;border-bottom:1px solid #d0d7de}"
    ".harness td.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".harness tr.section td{font-style:italic;background:#f6f8fa}"
    ".harness-notes{font:12px/1.45 system-ui,sans-serif;color:#57606a}</style>"
)


@dataclass(frozen=True)
class TextTable:
    """``spans`` group neighbouring columns under a heading (their widths add up to the columns; may be empty).

    ``sections``: row index -> a line that stands before that row. ``num_labels``: left-aligned columns at the start;
    the others are numbers, except in a table of prose (``num_labels`` equal to the columns).
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_labels: int
    notes: Sequence[str] = ()
    spans: Sequence[tuple[str, int]] = ()
    sections: tuple[tuple[int, str], ...] = ()


def markdown(table: TextTable) -> str:
    """GitHub's pipe tables; spans become prefixes of the headings, sections bold lines of their own."""
    from tabulate import tabulate

    prefixes = [name for name, width in table.spans for _ in range(width)] or [""] * len(table.headings)
    headings = [f"{prefix} {heading}".strip() for prefix, heading in zip(prefixes, table.headings, strict=True)]
    headings = [markdown_escape(one_line(heading)) for heading in headings]
    sections = dict(table.sections)
    rows = []
    for i, row in enumerate(table.rows):
        if i in sections:
            rows.append([f"**{markdown_escape(one_line(sections[i]))}**", *[""] * (len(headings) - 1)])
        rows.append(["<br>".join(markdown_escape(line) for line in shown(cell).split("\n")) for cell in row])
    align = ["left"] * table.num_labels + ["right"] * (len(headings) - table.num_labels)
    body = tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)
    notes = "\n".join(f"- {markdown_escape(one_line(note))}" for note in table.notes)
    return f"### {markdown_escape(one_line(table.caption))}\n\n{body}\n" + (f"\n{notes}\n" if notes else "")


def markdown_escape(text: str) -> str:
    """Text for a line of GitHub's Markdown: no cell ends, no tag, entity, image or link begins in it."""
    return _MARKDOWN.sub(lambda found: "".join(_ENTITIES.get(char, char) for char in found[0]), text)


def latex_escape(text: str) -> str:
    """Text for LaTeX with its plain packages; h+ and h- become mathematics.

    A bracket or a star at the start would be read as an argument of the row's end before it.
    """
    text = shown(text)
    if text.startswith(("[", "*")):
        return "{}" + latex_escape(f" {text}").removeprefix(" ")
    if match := re.fullmatch(r"h([+-])", text):
        return f"$h_{{{match.group(1)}}}$"
    return "".join(_LATEX.get(char, char) for char in text)


def latex(table: TextTable) -> str:
    """A ``table*`` without packages; prose is a ``longtable`` of equal paragraphs, since it may fill pages."""
    prose = table.num_labels == len(table.headings)
    width = len(table.headings)
    columns = f"p{{{0.85 / width:.3f}\\textwidth}}" * width if prose else "l" * table.num_labels
    columns += "" if prose else "r" * (width - table.num_labels)
    caption = f"\\caption{{{latex_escape(one_line(table.caption))}}}"
    if prose:
        lines = [r"% \usepackage{longtable}, in a document of one column", r"\begingroup\footnotesize\raggedright"]
        lines += [f"\\begin{{longtable}}{{{columns}}}", f"{caption} \\\\", r"\hline"]
    else:
        lines = [r"\begin{table*}", r"\centering\footnotesize", caption]
        lines += [f"\\begin{{tabular}}{{{columns}}}", r"\hline"]
    if table.spans:
        spans = (f"\\multicolumn{{{span}}}{{c}}{{{latex_escape(one_line(name))}}}" for name, span in table.spans)
        lines.append(" & ".join(spans) + r" \\")
    lines += [" & ".join(latex_escape(one_line(heading)) for heading in table.headings) + r" \\", r"\hline"]
    sections = dict(table.sections)
    for i, row in enumerate(table.rows):
        if i in sections:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{latex_escape(one_line(sections[i]))}}}}} \\\\")
        lines.append(" & ".join(latex_escape(cell).replace("\n", "; ") for cell in row) + r" \\")
    lines += [r"\hline", r"\end{longtable}" if prose else r"\end{tabular}"]
    lines += [f"\\par\\smallskip\\raggedright {latex_escape(one_line(note))}" for note in table.notes]
    return "\n".join([*lines, r"\endgroup" if prose else r"\end{table*}", ""])


def html_fragment(table: TextTable) -> str:
    """A standalone fragment: style, table, notes. Everything is escaped."""
    spans = "".join(f'<th colspan="{width}">{_cell(name)}</th>' for name, width in table.spans)
    heads = "".join(f"<th>{_cell(heading)}</th>" for heading in table.headings)
    head = (f"<tr>{spans}</tr>" if spans else "") + f"<tr>{heads}</tr>"
    sections = dict(table.sections)
    body = []
    for i, row in enumerate(table.rows):
        if i in sections:
            body.append(f'<tr class="section"><td colspan="{len(table.headings)}">{_cell(sections[i])}</td></tr>')
        cells = (
            f"<td>{_cell(cell)}</td>" if j < table.num_labels else f'<td class="number">{_cell(cell)}</td>'
            for j, cell in enumerate(row)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{_cell(note)}</li>" for note in table.notes)
    return "\n".join(
        [
            _STYLE,
            f'<table class="harness"><caption>{_cell(table.caption)}</caption>',
            f"<thead>{head}</thead>",
            "<tbody>",
            *body,
            "</tbody></table>",
            f'<ul class="harness-notes">{notes}</ul>' if notes else "",
        ]
    )


def _cell(text: str) -> str:
    return html.escape(shown(text)).replace("\n", "<br>")
