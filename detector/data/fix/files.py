"""Finds the image files that an annotation file means, by names that were right on another machine. Free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detector.data.images import SUFFIXES


@dataclass(frozen=True)
class ImageFiles:
    """The image files below a folder, by their paths relative to it."""

    root: Path
    names: frozenset[str]
    by_last: dict[str, list[str]]  # lower-case last part of the path -> paths

    @staticmethod
    def below(root: Path) -> ImageFiles:
        """All files whose names end as images' do; links to folders are not followed."""
        names = [name for name in file_names(root) if PurePosixPath(name).suffix.lower() in SUFFIXES]
        by_last: dict[str, list[str]] = {}
        for name in names:
            by_last.setdefault(name.rpartition("/")[2].lower(), []).append(name)
        return ImageFiles(root, frozenset(names), by_last)

    def find(self, name: str, *, near: str = "") -> str | None:
        """The path of the one file that a name means; None where there is none, or several equally good ones.

        name: as the annotations have it: a path of this or another machine, of Windows, or a file's name alone.
        near: the folder, relative to the root, whose files come first.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for candidate in (f"{near}/{tail}" if near else tail, tail):
                if candidate in self.names:
                    return candidate
        if not parts:
            return None
        alike = self.by_last.get(parts[-1].lower(), [])
        exact = [path for path in alike if path.rpartition("/")[2] == parts[-1]] or alike
        close = [path for path in exact if near and path.startswith(f"{near}/")] or exact
        if len(close) > 1:
            close = _longest_tail(close, parts)
        return close[0] if len(close) == 1 else None

    def leaves(self, name: str) -> bool:
        """Whether a file is a link to somewhere outside the root."""
        real = os.path.realpath(self.root / name)
        return not real.startswith(os.path.join(os.path.realpath(self.root), ""))


def file_names(root: Path) -> list[str]:
    """All files below a folder, relative to it, in order of their names."""
    found = []
    for top, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith((".", "__MACOSX")))
        inside = Path(top).relative_to(root)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _longest_tail(paths: list[str], parts: list[str]) -> list[str]:
    """Those that share the most folders with the name, from its end."""

    def shared(path: str) -> int:
        pairs = zip(reversed(path.lower().split("/")), reversed([part.lower() for part in parts]), strict=False)
        count = 0
        for mine, other in pairs:
            if mine != other:
                break
            count += 1
        return count

    most = max(map(shared, paths))
    return [path for path in paths if shared(path) == most]
