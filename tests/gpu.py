"""All tests marked gpu, and as the last line how many passed on which GPU. Exit code 1 where there is none.

    python -m tests.gpu [-k WORDS, and other options of pytest]

Only files that have such tests are opened, so that a machine without the other tests' libraries can run them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
HAS_GPU_TESTS = re.compile(r"\bmark\.gpu\b|^from tests\.devices import", re.MULTILINE)


class Counts:
    """A plug-in of pytest that counts how tests ended."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test passes in its call; a failure or skip may come before it or after it."""
        self.passed += report.when == "call" and report.passed
        self.failed += report.failed
        self.skipped += report.skipped


def files() -> list[str]:
    """The files of tests that have some for a GPU."""
    folders = (PROJECT / "tests", PROJECT / "benchmarks" / "tests")
    found = (path for folder in folders for path in sorted(folder.rglob("test_*.py")))
    return [str(path) for path in found if HAS_GPU_TESTS.search(path.read_text(encoding="utf-8"))]


def last_line(counts: Counts, device: str) -> str:
    """What was seen, in one line."""
    parts = [f"{counts.passed} passed on {device}"]
    parts += [f"{counts.failed} failed"] if counts.failed else []
    parts += [f"{counts.skipped} skipped"] if counts.skipped else []
    return ", ".join(parts)


def main(options: Sequence[str]) -> int:
    """Run them. Exit code 0 only where some ran and none failed."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing ran on a GPU ('make test' runs what can be tested without one)")
        return 1
    counts = Counts()
    code = pytest.main(["-m", "gpu", *options, *files()], plugins=[counts])
    print(last_line(counts, torch.cuda.get_device_name()))
    return int(code != pytest.ExitCode.OK or not counts.passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
