"""The section "Bad input" of docs/reliability.md: what was tried, by area (``python -m tests.hostile.counts``)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

from tabulate import tabulate

from tests.hostile.areas import CASES
from tests.hostile.fuzz import COUNTS, PROJECT
from tests.hostile.readers import READERS
from tests.hostile.test_properties import MANY

PAGE: Final = PROJECT / "docs" / "reliability.md"
HEAD: Final = "\n## Bad input\n"
TEXT: Final = """
Files that people really have, and files made to do harm, are given to every reader and to the commands over them. Each
must be taken rightly or refused: exit code 0, 1 or 2, one message without a traceback, nothing changed outside of the
named output, in less than 20 s of a processor and 2 GB; only an error with a message for the user may leave a reader.

- Cases: a list with the right answer of each (`tests/hostile/`), all of them run by `make test-slow`.
- Changed documents: good ones whose bytes, tokens and values are changed at random, the same in each `make test-slow`.
- Fuzzed: inputs that the last `make fuzz` tried, guided by the lines that they reach. What it found before is
  kept in `tests/hostile/corpus` and tried by the tests. The tests fail if a case or a changed document fails; the last
  column counts failures of that fuzzing.

{table}
"""


def section() -> str:
    """The section with its title."""
    cases = Counter(case.area for case in CASES)
    fuzzed: dict[str, list[int]] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    rows = []
    for area in dict.fromkeys([*cases, *(reader.area for reader in READERS)]):
        names = [reader.name for reader in READERS if reader.area == area]
        tried, failed = (sum(fuzzed.get(name, [0, 0])[i] for name in names) for i in (0, 1))
        rows.append([area, cases[area], MANY * len(names), tried, failed])
    rows.append(["all", *(sum(row[i] for row in rows) for i in range(1, 5))])
    heads = ["area", "cases", "changed documents", "fuzzed", "failures in fuzzing"]
    return HEAD + TEXT.format(table=tabulate(rows, heads, tablefmt="github"))


def page(text: str) -> str:
    """The page's text with the section as it must be."""
    return text.partition(HEAD)[0] + section()


def main(path: Path = PAGE) -> None:
    """Write the section."""
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
