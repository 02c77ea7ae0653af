"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from detector.runs.job import EvalJob
from support.micro import micro_data, micro_job, write_experiments
from support.workplace import Workplace
from tests.exports import train_row
from tests.fidelity.report import Comparison, write_page

# Before torch is imported: tests run side by side, and threads that wait for each other's cores cost minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PROJECT = Path(__file__).resolve().parents[1]

# The same examples each time, on machines of any speed. ``--hypothesis-profile default`` looks for others.
with suppress(ImportError):  # a bare machine with a GPU
    import hypothesis

    hypothesis.settings.register_profile("same-examples", derandomize=True, deadline=None)
    hypothesis.settings.load_profile("same-examples")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is no GPU; ``python -m tests.gpu`` says so and fails."""
    for_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not for_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in for_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    """The evaluation of one row at the micro scale, whose training takes seconds."""
    return micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))


@pytest.fixture(scope="module")
def data(job: EvalJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro scale's generated images."""
    return micro_data(tmp_path_factory.mktemp("data") / "shapes", job)


@pytest.fixture
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was run before."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


@pytest.fixture(scope="session")
def trained_row(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A trained row of Table 4. It takes seconds, so each process of pytest makes one; tests work in copies of it."""
    return train_row(tmp_path_factory.mktemp("test-dev"))


@pytest.fixture
def fidelity(request: pytest.FixtureRequest) -> Comparison:
    """Compares with another codebase, and keeps the difference for docs/fidelity.md."""
    return Comparison(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-fidelity", type=Path, metavar="FILE", help="write what was compared to this page")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was tested on real images and on a GPU, in a line each; without them a skip would go unnoticed."""
    if page := terminalreporter.config.getoption("--write-fidelity"):
        write_page(page, PROJECT / "tests" / "fidelity" / "page.md", terminalreporter.getreports("passed"))
    kinds = (("coco", "real COCO images"), ("gpu", "a GPU"), ("browser", "a browser"), ("tex", "TeX"))
    for marker, words in kinds:
        ran = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind) if _marked(r, marker)]
        skipped = [r for r in terminalreporter.getreports("skipped") if _marked(r, marker)]
        terminalreporter.write_line(f"{words}: {len(ran)} tests ran with them, {len(skipped)} were skipped without")


def _marked(report: pytest.TestReport, marker: str) -> bool:
    return marker in report.keywords and (report.when == "call" or report.skipped)
