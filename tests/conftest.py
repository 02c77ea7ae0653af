"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fidelity.report import Comparison, write_page

# Before torch is imported: tests run side by side, and threads that wait for each other's cores cost minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def coco_tiny() -> Path:
    """A small COCO root with real images: $HARNESS_COCO_TINY, else ../shared/data/coco-tiny beside the checkout."""
    root = Path(os.environ.get("HARNESS_COCO_TINY", PROJECT.parent / "shared" / "data" / "coco-tiny"))
    if not (root / "annotations").is_dir():
        pytest.skip(f"no real COCO images at {root} (set HARNESS_COCO_TINY)")
    return root


@pytest.fixture(scope="session")
def shared_paper() -> Path:
    """The folder with the paper's tables in a second transcription, where there is one."""
    folder = PROJECT.parent / "shared" / "paper"
    if not folder.is_dir():
        pytest.skip(f"no second transcription of the paper's tables at {folder}")
    return folder


@pytest.fixture
def fidelity(request: pytest.FixtureRequest) -> Comparison:
    """Compares with another codebase, and keeps the difference for docs/fidelity.md."""
    return Comparison(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-fidelity", type=Path, metavar="FILE", help="write what was compared to this page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line on how much was tested on real images; without it a skip would go unnoticed."""
    if page := terminalreporter.config.getoption("--write-fidelity"):
        write_page(page, PROJECT / "tests" / "fidelity" / "page.md", terminalreporter.getreports("passed"))
    ran = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind) if _on_coco(r)]
    skipped = [r for r in terminalreporter.getreports("skipped") if _on_coco(r)]
    terminalreporter.write_line(
        f"real COCO images: {len(ran)} tests ran on them, {len(skipped)} were skipped for want of them"
    )


def _on_coco(report: pytest.TestReport) -> bool:
    return "coco" in report.keywords and (report.when == "call" or report.skipped)
