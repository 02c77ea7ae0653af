"""Code blocks of the documentation, so that tests run what a reader would copy."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of ``docs/<page>``, in order; those of one language."""
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for kind, body in found if kind == language]


def named_block(page: str, title: str, language: str = "python") -> str:
    """The one block whose first line is the comment ``# title``, without that line."""
    heads = [body.split("\n", 1) for body in blocks(page, language)]
    (body,) = [rest for head, rest in heads if head == f"# {title}"]
    return body
