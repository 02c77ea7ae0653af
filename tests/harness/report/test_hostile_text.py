"""Hostile text in every text field of a report: each format keeps it text."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.storage.sheets import csv_text
from harness.report.markup import TextTable, html_fragment, markdown
from harness.report.typeset.prose import prose_latex

ALPHABET = "ab|\n\r\t<>&\"'[]()!`*_#$%{}~^\\=+-@:/.;1\x00\x1b\x9b\u202e"
TEXT = st.text(st.sampled_from(ALPHABET), max_size=30)
HOSTILE = ["<script>alert(1)</script>", "[a](javascript:x)", "a|b\\|c", "\\|", "&lt;b&gt;", "$x$%\\input{/etc/passwd}"]
HOSTILE += ["[a]: http://x", "![i](http://x)", "<http://x>", "https://x www.x.org a@b.c", "[x]", "*", "\n\n\\end{x}"]
HOSTILE += ["<\n/"]
OUR_TAGS = {"style", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "br"}


def table_of(text: str) -> TextTable:
    rows = [[text, text], ["plain", text]]
    return TextTable(text, [text, text], rows, 1, (text,), ((text, 1), (text, 1)), ((1, text),))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.special: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_comment(self, data: str) -> None:
        self.special.append(data)

    def handle_decl(self, decl: str) -> None:
        self.special.append(decl)


def with_hostile_examples(test):  # type: ignore[no-untyped-def]
    for text in HOSTILE:
        test = example(text)(test)
    return given(TEXT)(test)


@with_hostile_examples
def test_html_has_our_tags_only(text: str) -> None:
    tags = Tags()
    tags.feed(html_fragment(table_of(text)))
    assert tags.found <= OUR_TAGS
    assert tags.attributes <= {"class", "colspan"}
    assert tags.special == []


@with_hostile_examples
def test_markdown_has_no_more_cells_lines_tags_or_links(text: str) -> None:
    page = markdown(table_of(text))
    lines = page.split("\n")
    assert len(lines) == len(markdown(table_of("x")).split("\n"))
    for line in (line for line in lines if line.startswith("|")):
        assert len(re.findall(r"(?<!\\)\|", line)) == 3, line
    bare = page.replace("<br>", " ")
    assert not re.search(r"<[A-Za-z/!?]|\]\(|\]\[|\]:|!\[|://|\\(?!\|)|[`\r\x00\x1b]", bare)
    assert not re.search(r"&(?!#\d+;)(\w+;|#)", bare)


@with_hostile_examples
def test_latex_has_no_active_character(text: str) -> None:
    plain, page = prose_latex(table_of("x")), prose_latex(table_of(text))
    assert len(page.split("\n")) == len(plain.split("\n"))
    bare = re.sub(r"\\[&%$#_{}]", "", page)
    for char in "~^<>\r\x00\x1b":
        assert char not in bare
    assert bare.count("{") == bare.count("}")
    commands = set(re.findall(r"\\[A-Za-z]+", bare)) - set(re.findall(r"\\[A-Za-z]+", plain))
    written_out = {rf"\text{name}" for name in ("backslash", "asciitilde", "asciicircum", "less", "greater", "bar")}
    assert commands <= written_out | {r"\char"}
    assert not re.search(r"\\\\\s*[\[*]", page)  # it would be an argument of the row's end
    assert bare.count("&") == plain.count("&")
    assert bare.count("$") % 2 == 0


@with_hostile_examples
def test_csv_has_no_formula_and_keeps_its_cells(text: str) -> None:
    ((line),) = list(csv.DictReader(io.StringIO(csv_text([{"text": text, "number": -1.5}]))))
    assert line["number"] == "-1.5"
    assert not re.match(r"\s*[=+\-@\t\r\n]", line["text"]) or re.fullmatch(r"[+-][\d.]+", line["text"])
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line["text"])


@pytest.mark.parametrize(
    ("value", "cell"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("-2+3", "'-2+3"), ("-2.5", "-2.5"), (-2.5, "-2.5"), ("L = 8", "L = 8")],
)
def test_csv_marks_formulas_and_leaves_numbers(value: object, cell: str) -> None:
    assert list(csv.reader(io.StringIO(csv_text([{"a": value}]))))[1] == [cell]
