"""XML from strangers: no entities of its own, nothing fetched, of a bounded depth. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from detector.errors import DataError
from detector.storage.reading import DEPTH, LARGE, read_bytes

MOST: Final = LARGE // 4  # a tree takes several times as much memory as its text


def read_xml(path: Path) -> Element:
    """The root element of a file. Raises DataError naming file and line; also for entities, which could fill memory."""
    content = read_bytes(path, most=MOST, raises=DataError)
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate()

    def refuse(*_: object) -> int:
        raise DataError(f"{path}:{parser.CurrentLineNumber} declares entities of its own, which are not read.")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise DataError(f"{path}:{parser.CurrentLineNumber} is nested more than {DEPTH} deep.")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: an encoding that is not known
        raise DataError(f"{path} is not XML: {error}.") from error
    return builder.close()


def text_of(element: Element, path: str) -> str | None:
    """The text of an element's child, without spaces around it; None where there is none."""
    found = element.findtext(path)
    return found.strip() or None if found is not None else None
