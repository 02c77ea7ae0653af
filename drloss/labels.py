"""Labels of anchors that belong to no class. Classes are 0 .. K-1."""

from __future__ import annotations

from typing import Final

BACKGROUND: Final = -1
IGNORED: Final = -2
