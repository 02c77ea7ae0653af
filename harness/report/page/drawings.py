"""A drawing as small as a page needs it: what nobody sees or refers to is left out, and numbers are short."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

DIGITS: Final = 2  # behind the point, in points of 1/72 inch
_NUMBERS: Final = ("d", "x", "y", "width", "height", "points", "transform")
_WORDS: Final = ("text", "tspan", "title", "desc")  # whose text is shown or read aloud
_NUMBER = re.compile(r"-?\d+\.\d+(?:[eE][+-]?\d+)?")
_REFERENCE = re.compile(r"#([^\s\"')]+)")
_NAMES = ("aria-labelledby", "aria-describedby")


def small(svg: str, prefix: str) -> str:
    """The same drawing in fewer bytes. prefix: every id of the drawing begins with it, before and after."""
    root = ElementTree.fromstring(svg)
    ids = {element.get("id") for element in root.iter()}  # without it a colour, #0072b2, would be a reference
    used = [name for name in dict.fromkeys(_references(root)) if name in ids]
    names = {old: f"{prefix}-{i}" for i, old in enumerate(used)}
    for element in root.iter():
        _shorten(element, names)
    _prune(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return text


def _references(root: Element) -> Iterator[str]:
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in _NAMES:
                yield from value.split()
            elif key != "id" and "#" in value:
                yield from _REFERENCE.findall(value)


def _shorten(element: Element, names: dict[str, str]) -> None:
    element.tag = _tag(element)
    if element.tag not in _WORDS:
        element.text = None
    element.tail = element.tail if element.tail and element.tail.strip() else None
    for key, value in list(element.attrib.items()):
        if key == "id":
            del element.attrib[key]
            if value in names:
                element.set(key, names[value])
        elif key in _NAMES:
            element.set(key, " ".join(names.get(name, name) for name in value.split()))
        elif key in _NUMBERS:
            element.set(key, " ".join(_NUMBER.sub(_rounded, value).split()))
        elif key == "style":
            element.set(key, _REFERENCE.sub(_renamed(names), re.sub(r"(?<=[:;]) ", "", value)))
        elif "#" in value:
            element.set(key, _REFERENCE.sub(_renamed(names), value))


def _renamed(names: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: f"#{names.get(found[1], found[1])}"


def _rounded(found: re.Match[str]) -> str:
    """Numbers below 1 keep their digits: one of a scale is multiplied by what is inside."""
    value = float(found[0])
    return found[0] if 0 < abs(value) < 1 else f"{value:.{DIGITS}f}".rstrip("0").rstrip(".")


def _prune(parent: Element) -> None:
    """Without groups that say nothing, and without paths and groups that draw nothing."""
    kept: list[Element] = []
    for child in parent:
        _prune(child)
        if child.tag == "g" and not child.attrib:
            kept += list(child)
        elif not (child.tag == "g" and len(child) == 0) and not (child.tag == "path" and not _draws(child)):
            kept.append(child)
    parent[:] = kept


def _draws(path: Element) -> bool:
    """Whether a path has more than the place where it begins; one that others refer to stays."""
    return "id" in path.attrib or bool(re.search("[LlCcQqHhVvSsTtAaZz]", path.get("d", "")))


def _tag(element: Element) -> str:
    return str(element.tag).rsplit("}", 1)[-1]
