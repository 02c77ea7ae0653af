"""Fixtures shared by the tests of the detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.job import EvalJob
from tests.micro import micro_data, micro_job, write_experiments


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    return micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))


@pytest.fixture(scope="module")
def data(job: EvalJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_data(tmp_path_factory.mktemp("data") / "shapes", job)
