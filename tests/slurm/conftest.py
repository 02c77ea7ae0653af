"""One Slurm for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.slurm.cluster import missing_programs, slurm_cluster
from support.workplace import Workplace, make_workplace
from tests.slurm.jobs import ROW, wait_until_queue_is_empty


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two nodes; its commands and its configuration are in the environment while it runs."""
    missing = missing_programs()
    if missing:
        pytest.fail(f"not installed: {', '.join(missing)}. 'make test-slurm' installs them (Debian: slurm-wlm, munge).")
    # Slurm's sockets need a short path.
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("HARNESS_CLUSTERS", raising=False)
        yield


@pytest.fixture(scope="session")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both nodes for each run, one process on each."""
    path = tmp_path_factory.mktemp("clusters") / "two.yaml"
    path.write_text(CLUSTER)
    return path


@pytest.fixture(scope="session")
def holding_file(cluster_file: Path) -> Path:
    """The same, but jobs wait until they are released."""
    path = cluster_file.with_name("holding.yaml")
    path.write_text(CLUSTER.replace("two", "holding", 1) + "extra: {hold: true}\n")
    return path


@pytest.fixture(scope="session")
def undisturbed(
    slurm: None, tmp_path_factory: pytest.TempPathFactory, cluster_file: Path
) -> tuple[Workplace, dict[str, str]]:
    """Two runs as one array, seen through to their records, and what the commands said."""
    place = make_workplace(tmp_path_factory.mktemp("undisturbed"), iterations=150)
    command = (*ROW, "--seeds", "2", "--cluster", str(cluster_file))
    said = {name: place.harness(*command, *options) for name, options in (("dry", ["--dry-run"]), ("first", []))}
    said["second"] = place.harness(*command)
    wait_until_queue_is_empty(place)
    said["last"] = place.harness(*command)
    return place, said


CLUSTER = """\
name: two
title: two nodes without GPUs
partition: main
nodes: 2
cpus_per_gpu: 1
memory_gb_per_gpu: 2
time_minutes: 30
signal_delay_seconds: 60
"""
