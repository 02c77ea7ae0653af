"""Files as the page names them: by the variables of the folders, wherever those stand on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.report.evidence.notes import shown_path
from harness.report.page.scales import Scale


class Places:
    """Replaces folders of this machine in texts: the same records give the same page everywhere."""

    def __init__(self, scales: Sequence[Scale]) -> None:
        store = scales[0].selection.store
        self._folders = {"$HARNESS_RUNS": store.runs, "$HARNESS_RESULTS": store.results}
        names: dict[str, str] = {}
        for path in (item.path for item in store.set_aside):
            names[str(path)] = names[shown_path(path)] = self.name(path)
        for variable, folder in self._folders.items():
            names[str(folder)] = variable
        ordered = sorted(names, key=len, reverse=True)
        # Only whole names: neither the end of a longer path nor the beginning of a longer word.
        self._pattern = re.compile(rf"(?<![\w./~-])(?:{'|'.join(map(re.escape, ordered))})(?![\w-])")
        self._names = names

    def name(self, path: Path) -> str:
        """A file by the variable of its folder, else by its own name."""
        for variable, folder in self._folders.items():
            if path.is_relative_to(folder):
                return f"{variable}/{path.relative_to(folder)}"
        return path.name

    def named(self, text: str) -> str:
        """The text with the folders' variables in the place of the folders."""
        return self._pattern.sub(lambda found: self._names[found[0]], text)
