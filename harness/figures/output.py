"""A figure as files and as a part of a page. The bytes depend on the figure only: no time, no version, no machine."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree

from detector.errors import UsageError
from detector.storage.files import write_atomic
from detector.storage.sheets import csv_rows, no_formula
from detector.storage.shown import one_line
from harness.figures import style
from harness.figures.figure import INCHES, Cell, Figure, Width

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Format = Literal["svg", "pdf", "png"]
FORMATS: Final[tuple[Format, ...]] = ("svg", "pdf", "png")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"url\(#")
# What XML has no place for: control characters and halves of surrogate pairs.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def save(figure: Figure, path: Path, width: Width) -> list[Path]:
    """Write the figure to ``path`` (.svg, .pdf or .png) and its numbers beside it (.csv). Returns both paths.

    What is there is replaced: whether it may be is the caller's to ask. Raises UsageError as ``files``.
    """
    found = files(figure, path, width)
    for name, content in found.items():
        write_atomic(name, content)
    return list(found)


def files(figure: Figure, path: Path, width: Width) -> dict[Path, bytes]:
    """What ``save`` writes: the picture, then its numbers.

    Raises UsageError for another ending, and, with the figure's own reason, where there is nothing to draw.
    """
    kind = format_of(path)
    if figure.missing:
        raise UsageError(f"{figure.name}: {figure.missing}")
    picture = _file_svg(figure, width) if kind == "svg" else _written(figure, width, kind)
    return {path: picture, path.with_suffix(".csv"): numbers(figure)}


def format_of(path: Path) -> Format:
    """By the ending of a file's name. Raises UsageError for another one."""
    for kind in FORMATS:
        if path.suffix.lower() == f".{kind}":
            return kind
    raise UsageError(f"{path} does not end in a format of figures. Known: .svg, .pdf, .png.")


def svg(figure: Figure, width: Width, prefix: str | None = None) -> str:
    """The figure as an ``<svg>`` element of a page: all ids begin with ``prefix``, by default the figure's name.

    Text and axes have the colour of the page's text (``currentColor``). The other colours can be set by the variables
    ``--figure-1`` to ``--figure-7`` (``style.COLOURS``), ``--figure-faint`` and ``--figure-paper``. Raises UsageError
    where there is nothing to draw.
    """
    if figure.missing:
        raise UsageError(f"{figure.name}: {figure.missing}")
    variables = {style.INK: "currentColor", style.FAINT: f"var(--figure-faint, {style.FAINT})"}
    variables[style.PAPER] = "var(--figure-paper, transparent)"
    variables |= {colour: f"var(--figure-{i}, {colour})" for i, colour in enumerate(style.COLOURS, 1)}
    text: str = ElementTree.tostring(_tree(figure, width, prefix or figure.name, variables), encoding="unicode")
    return text


def numbers(figure: Figure) -> bytes:
    """The figure's numbers as CSV, unrounded. An unknown one is an empty cell; no text can become a formula."""
    text = csv_rows([*map(_cell, row)] for row in (figure.numbers.columns, *figure.numbers.rows))
    return _NOT_XML.sub("\ufffd", text).encode()


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return str(no_formula(value))
    return "" if value is None or value != value else repr(value)


def _file_svg(figure: Figure, width: Width) -> bytes:
    tree = _tree(figure, width, figure.name, {})
    text: str = ElementTree.tostring(tree, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _tree(figure: Figure, width: Width, prefix: str, colours: dict[str, str]) -> ElementTree.Element:
    """The drawing without what a page must not have twice or at all: ids, metadata, rules of style for all elements."""
    text = _NOT_XML.sub("\ufffd", _written(figure, width, "svg").decode(errors="replace"))
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _plain(element.tag)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set("href" if key == _XLINK else key, _attribute(key, value, prefix, colours))
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")  # was a rule for all elements
    root.set("class", "figure")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title")
    title = ElementTree.Element("title", {"id": f"{prefix}-title"})
    title.text = one_line(figure.title)
    root.insert(0, title)
    return root


def _plain(tag: Any) -> str:
    """A tag without its namespace."""
    return str(tag).rsplit("}", 1)[-1]


def _attribute(key: str, value: str, prefix: str, colours: dict[str, str]) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key in (_XLINK, "href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    value = _REFERENCE.sub(f"url(#{prefix}-", value)
    return _COLOUR.sub(lambda found: colours.get(found[0], found[0]), value) if colours else value


def _written(figure: Figure, width: Width, kind: Format) -> bytes:
    """What matplotlib writes, without its version and the time."""
    metadata: dict[str, dict[str, str | None]] = {
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": one_line(figure.title)},
        "png": {"Software": None, "Title": one_line(figure.title)},
    }
    with style.applied():
        import matplotlib

        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": figure.name}):
            drawn(figure, width).savefig(content, format=kind, dpi=style.DPI, metadata=metadata[kind])
    return content.getvalue()


def drawn(figure: Figure, width: Width) -> Canvas:
    """The figure in matplotlib's own form, drawn inside of ``style.applied``."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(INCHES[width], figure.height[width]), layout="constrained")
    figure.draw(canvas)
    return canvas
