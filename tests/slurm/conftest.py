"""One Slurm for all tests of this folder that one process of pytest runs, and others for those that need their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.hang import write_hang
from support.slurm.cluster import missing_programs, slurm_cluster
from support.slurm.machine import WORKER
from support.slurm.plan import ClusterPlan
from support.workplace import Workplace, make_workplace
from tests.slurm.jobs import ROW, cluster_text, wait_until_queue_is_empty

StartSlurm = Callable[[ClusterPlan], dict[str, str]]
LONGEST = ("test_hangs", "test_endings", "test_retries", "test_wanted")  # files: their tests wait for minutes of Slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, else one of several processes of pytest ends alone."""
    mine = [item for item in items if item.path.parent == Path(__file__).parent]
    if len(mine) == len(items):
        items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def fail_without_slurm() -> None:
    missing = missing_programs()
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}. 'make test-slurm' installs them (Debian: slurm-wlm, munge).")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two nodes; its commands and its configuration are in the environment while it runs."""
    fail_without_slurm()
    # Slurm's sockets need a short path.
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("HARNESS_QUEUE_SECONDS", "0")
        patch.delenv("HARNESS_CLUSTERS", raising=False)
        yield variables


@pytest.fixture
def start_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartSlurm]:
    """Start a Slurm of the test's own; the environment is that of the newest. All end with the test."""
    fail_without_slurm()
    with ExitStack() as stack:

        def start(plan: ClusterPlan) -> dict[str, str]:
            variables = stack.enter_context(slurm_cluster(tmp_path_factory.mktemp(plan.name), plan))
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("HARNESS_QUEUE_SECONDS", "0")
            monkeypatch.delenv("HARNESS_CLUSTERS", raising=False)
            return variables

        yield start


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for ``support.hang.hang``, heeded by what is submitted now."""
    folder = tmp_path / "words"
    write_hang(folder, WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return folder


@pytest.fixture(scope="session")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both nodes for each run, one process on each."""
    path = tmp_path_factory.mktemp("clusters") / "two.yaml"
    path.write_text(cluster_text("two"))
    return path


@pytest.fixture(scope="session")
def holding_file(cluster_file: Path) -> Path:
    """The same, but jobs wait until they are released."""
    path = cluster_file.with_name("holding.yaml")
    path.write_text(cluster_text("holding", extra="{hold: true}"))
    return path


@pytest.fixture(scope="session")
def undisturbed(
    slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory, cluster_file: Path
) -> tuple[Workplace, dict[str, str]]:
    """Two runs as one array, seen through to their records, and what the commands said."""
    place = make_workplace(tmp_path_factory.mktemp("undisturbed"), iterations=150)
    command = (*ROW, "--seeds", "2", "--cluster", str(cluster_file))
    said = {name: place.harness(*command, *options) for name, options in (("dry", ["--dry-run"]), ("first", []))}
    said["second"] = place.harness(*command)
    wait_until_queue_is_empty(place)
    said["last"] = place.harness(*command)
    return place, said
