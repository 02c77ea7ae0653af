"""A table of strings as Markdown or HTML. It knows nothing of tables, claims or numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from detector.storage.shown import one_line, shown

# What ends a cell, begins a tag or an entity, or makes a link of GitHub's Markdown; all else is left readable.
_MARKDOWN = re.compile(r"[\\|`]|<(?=[A-Za-z/!?])|&(?=#|\w+;)|\](?=[(\[:]|$)|!(?=\[)|://|(?i:mailto:|xmpp:|www\.)|@")
_ENTITIES = {"|": r"\|", **{char: f"&#{ord(char)};" for char in "\\`<&]!:/.@"}}
# A verdict is told by a sign and by its letters' form, not by its colour alone.
_VERDICTS = {
    "not reproduced": "bad",
    "contradicted": "bad",
    "reproduced": "good",
    "supported": "good",
    "consistent": "fair",
    "inconclusive": "open",
    "undecided": "open",
    "not decidable here": "open",
    "pending": "open",
    "running": "open",
}
_STYLE = (
    "<style>.harness{font:14px/1.45 system-ui,sans-serif;border-collapse:collapse}"
    ".harness caption{text-align:left;font-weight:600;padding:.4em .6em}"
    ".harness th,.harness td{padding:.25em .6em;text-align:left;vertical-align:top;border-bottom:1px solid #8886}"
    ".harness .number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".harness tr.section td{font-style:italic;background:#8882}"
    ".harness .good{color:#116329;font-weight:600}.harness .good::before{content:'\\2713  '}"
    ".harness .fair{color:#0550ae}.harness .fair::before{content:'\\2248  '}"
    ".harness .open{color:#57606a}.harness .open::before{content:'?  '}"
    ".harness .bad{color:#a40e26;font-weight:600;text-decoration:underline}.harness .bad::before{content:'\\2717  '}"
    ".harness .provisional{font-style:italic}"
    ".harness-notes{font:12px/1.45 system-ui,sans-serif;color:#57606a}"
    "@media(prefers-color-scheme:dark){.harness .good{color:#56d364}.harness .fair{color:#79c0ff}"
    ".harness .open,.harness-notes{color:#9198a1}.harness .bad{color:#ff7b72}}</style>"
)
_PAGE_STYLE = (
    "<style>:root{color-scheme:light dark}body{margin:1em auto;padding:0 1em;max-width:90em;"
    "font:14px/1.45 system-ui,sans-serif}section{overflow-x:auto;margin-bottom:2em}</style>"
)


@dataclass(frozen=True)
class TextTable:
    """``spans`` group neighbouring columns under a heading (their widths add up to the columns; may be empty).

    ``sections``: row index -> a line that stands before that row. ``num_labels``: left-aligned columns at the start;
    the others are numbers, except in a table of prose (``num_labels`` equal to the columns). ``verdicts``: the columns
    that may hold a verdict or how far a run is.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_labels: int
    notes: Sequence[str] = ()
    spans: Sequence[tuple[str, int]] = ()
    sections: tuple[tuple[int, str], ...] = ()
    verdicts: tuple[int, ...] = ()


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


def html_fragment(table: TextTable) -> str:
    """A part of a page: style, table, notes. Everything is escaped."""
    spans = "".join(f'<th colspan="{width}">{_cell(name)}</th>' for name, width in table.spans)
    kinds = ["<th>"] * table.num_labels + ['<th class="number">'] * (len(table.headings) - table.num_labels)
    heads = "".join(f"{kind}{_cell(heading)}</th>" for kind, heading in zip(kinds, table.headings, strict=True))
    head = (f"<tr>{spans}</tr>" if spans else "") + f"<tr>{heads}</tr>"
    sections = dict(table.sections)
    body = []
    for i, row in enumerate(table.rows):
        if i in sections:
            body.append(f'<tr class="section"><td colspan="{len(table.headings)}">{_cell(sections[i])}</td></tr>')
        cells = (_html_cell(table, j, cell) for j, cell in enumerate(row))
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


def html_document(title: str, tables: Sequence[TextTable]) -> str:
    """A whole page with the tables, in light or in dark, that needs no other file."""
    sections = "\n".join(f"<section>\n{html_fragment(table)}\n</section>" for table in tables)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(one_line(title))}</title>\n{_PAGE_STYLE}\n</head>\n<body>\n<main>\n{sections}\n"
        "</main>\n</body>\n</html>"
    )


def _html_cell(table: TextTable, column: int, text: str) -> str:
    names = [] if column < table.num_labels else ["number"]
    if column in table.verdicts:
        kind = next((name for word, name in _VERDICTS.items() if text.startswith(word)), None)
        names += [kind] if kind else []
        names += ["provisional"] if "(provisional)" in text else []
    return f'<td class="{" ".join(names)}">{_cell(text)}</td>' if names else f"<td>{_cell(text)}</td>"


def _cell(text: str) -> str:
    return html.escape(shown(text)).replace("\n", "<br>")
