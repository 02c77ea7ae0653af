"""Pages of records, with stand-ins for the figures and images, which have tests of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.figures.figure import Figure, Numbers, Statement
from harness.figures.images import pictures
from harness.planning.selection import Selection
from harness.report.page.page import Page, html, page_of
from harness.report.page.scales import scales
from harness.store.records import Store

PROJECT = Path(__file__).resolve().parents[4]
SVG = '<svg class="figure" viewBox="0 0 10 10" id="{}"><path d="M0 0h9" stroke="currentColor"/></svg>'
STAND_INS = ("fig3", "claims", "curves")


def stand_in(name: str, selection: Selection) -> Figure:
    numbers = Numbers(("x", "y"), ((0, 1.5), (1, None)))
    missing = "" if name != "curves" else "no record has a curve; next: harness run all --profile tiny"
    said = (
        Statement("Curves touch", "§3", "0.5 at 0", holds=True),
        Statement("Curves <b>part</b>", "§4", "0.1 at 1", holds=False),
    )
    claims = ("dr-beats-focal",) if name == "fig3" else ()
    return Figure(
        name=name,
        title=f"Title of {name}",
        caption=f"A caption. {said[0].sentence} {said[1].sentence} Its end." if name == "fig3" else "A caption.",
        numbers=numbers,
        draw=lambda _: None,
        height={},
        claims=claims,
        statements=said if name == "fig3" else (),
        missing=missing,
    )


@contextmanager
def small_figures() -> Iterator[pytest.MonkeyPatch]:
    """Small figures in the place of those of matplotlib, and no images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.figures.catalogue.FIGURES", STAND_INS)
        patch.setattr("harness.figures.catalogue.build", stand_in)
        patch.setattr("harness.figures.output.svg", lambda figure, width, prefix: SVG.format(prefix))
        patch.setattr(pictures, "pictures_of", lambda selection: [])
        yield patch


@pytest.fixture(autouse=True)
def stand_ins() -> Iterator[None]:
    with small_figures():
        yield


@pytest.fixture(scope="session")
def committed() -> Page:
    """The page of the committed records."""
    with small_figures() as patch:
        patch.setenv("HARNESS_RUNS", "/nonexistent")
        patch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
        patch.delenv("HARNESS_EXPERIMENTS", raising=False)
        return page_of(scales(["all", "ablations"], ["tiny"], None, None))


@pytest.fixture(scope="session")
def committed_html(committed: Page) -> str:
    with small_figures():
        return html(committed, whole=True)


@pytest.fixture
def store(empty_folders: None, tmp_path: Path) -> Store:
    return Store(tmp_path / "runs", tmp_path / "results")
