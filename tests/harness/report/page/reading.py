"""Pages of the records at hand, and what they hold, read back from their HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import SimpleNamespace

from harness.report.page.page import html, page_of
from harness.report.page.scales import scales

VOID = {"meta", "br", "input", "img", "link", "hr"}


@dataclass
class Element:
    """A tag with its attributes, and all text inside."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    parents: tuple[str, ...] = ()


@dataclass
class Reader(HTMLParser):
    """Every element in order. Fails where a tag closes what is not open."""

    elements: list[Element] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        parents = tuple(item.tag for item in self._open)
        element = Element(tag, {name: value or "" for name, value in attrs}, parents=parents)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def named(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def with_id(self, name: str) -> Element:
        (found,) = (element for element in self.elements if element.attributes.get("id") == name)
        return found


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader._open, [element.tag for element in reader._open]
    return reader


def page_html(*profiles: str, targets: str = "all") -> str:
    """The page of whatever the environment's folders hold."""
    return html(page_of(scales(targets, profiles or ["tiny"], None, None)), whole=True)


def image(title: str = "table2/L6: best image", row: str = "", alt: str = "an image", size: int = 4) -> SimpleNamespace:
    jpeg = (b"jpeg" * size)[:size]
    return SimpleNamespace(title=title, caption="3 true", alt=alt, jpeg=jpeg, width=100, height=80, row=row)
