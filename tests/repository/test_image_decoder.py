"""Image files are decoded in one place only: else a check accepts what the training reads as white."""

from __future__ import annotations

import ast
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DECODER = "detector/data/images.py"
OPENING = ("Image.open", "decode_image", "cv2.imread", "plt.imread", "ImageFile.Parser")


def test_images_are_opened_in_one_file_with_the_formats_named() -> None:
    found = {}
    for package in ("detector", "harness", "drloss"):
        for path in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in OPENING:
                    found[str(path.relative_to(PROJECT))] = [keyword.arg for keyword in node.keywords]
    assert found == {DECODER: ["formats"]}
