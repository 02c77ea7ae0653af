"""Cluster files: what they may say, where they are found, and what is told of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.errors import RegistryError, UsageError
from harness.slurm.clusters import find_cluster, known_clusters, read_cluster
from tests.command import error, invoke

MINIMAL = "name: mine\ntitle: ours\ntime_minutes: 60\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "clusters"
    folder.mkdir()
    monkeypatch.setenv("HARNESS_CLUSTERS", str(folder))
    return folder


def write(folder: Path, text: str = MINIMAL, name: str = "mine") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_the_shipped_example_is_valid_and_says_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_CLUSTERS", raising=False)
    assert list(known_clusters()) == ["example"]
    example = find_cluster("example")
    assert (example.nodes, example.gpus_per_node, example.time_minutes) == (2, 4, 240)
    text = known_clusters()["example"].read_text()
    assert all(f"\n{field}:" in text for field in type(example).__struct_fields__)


def test_find_cluster_takes_a_name_of_ones_own_folder_or_a_path(own: Path, tmp_path: Path) -> None:
    write(own)
    assert find_cluster("mine").title == "ours"
    assert find_cluster("example").name == "example"
    elsewhere = write(tmp_path, MINIMAL.replace("ours", "elsewhere"), name="other")
    assert find_cluster(str(elsewhere)).title == "elsewhere"


def test_find_cluster_prefers_ones_own_file_to_the_shipped_one(own: Path) -> None:
    write(own, MINIMAL.replace("mine", "example"), name="example")
    assert find_cluster("example").title == "ours"


def test_find_cluster_names_the_known_ones(own: Path) -> None:
    write(own)
    with pytest.raises(UsageError, match=r"Unknown cluster 'mien'. Known: mine, example.*HARNESS_CLUSTERS"):
        find_cluster("mien")
    with pytest.raises(UsageError, match=r"There is no cluster file nowhere/a.yaml"):
        find_cluster("nowhere/a.yaml")


@pytest.mark.parametrize(
    ("added", "line", "message"),
    [
        ("partitions: gpu\n", 4, r"unknown key 'partitions'. Known keys: account, .*partition"),
        ("nodes: 0\n", 4, "nodes is 0: .*>= 1"),
        ("gpus_per_node: many\n", 4, "gpus_per_node is 'many': expected `int`"),
        ("setup: module load cuda\n", 4, "setup is 'module load cuda'"),
        ("extra:\n  exclude: n7\n  time: 3\n", 6, "'time' cannot be in 'extra'"),
        ("extra: {job_name: x}\n", 4, "'job_name' cannot be in 'extra'"),
        ("extra: {cpus-per-task: 3}\n", 4, "--cpus-per-task has a key of its own here: cpus_per_gpu"),
        ("extra: {account: me}\n", 4, "--account has a key of its own here: account"),
        ("signal_delay_seconds: 3600\n", 4, r"signal_delay_seconds \(3600\) leaves nothing of 60 minutes"),
    ],
)
def test_a_wrong_cluster_file_is_told_with_its_line(tmp_path: Path, added: str, line: int, message: str) -> None:
    path = write(tmp_path, MINIMAL + added)
    with pytest.raises(RegistryError, match=rf"mine.yaml:{line}: {message}"):
        read_cluster(path)


def test_a_time_too_short_for_the_default_delay_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"mine.yaml:3: signal_delay_seconds \(120\) leaves nothing of 2 minutes"):
        read_cluster(write(tmp_path, MINIMAL.replace("60", "2")))


def test_a_name_that_is_not_the_files_is_told(own: Path) -> None:
    write(own, MINIMAL, name="other")
    with pytest.raises(RegistryError, match=r"other.yaml:1: the name must be the file's: 'other'"):
        find_cluster("other")


def test_schema_of_a_cluster_file() -> None:
    schema = json.loads(invoke("schema", "cluster").output)
    assert set(schema["$defs"]["Cluster"]["required"]) == {"name", "title", "time_minutes"}
    assert "Known: table, " in error("schema", "clusters")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('account: "a\\n#SBATCH --uid=0"', "account"),
        ('partition: "p\\x1b[2J"', "partition"),
        ('constraint: "c\\n"', "constraint"),
        ('python: "py\\nrm -r x"', "python"),
        ('container: "c\\n"', "container"),
        ('title: "t\\n"', "title"),
        ('extra: {comment: "x\\ny"}', "comment"),
        ('extra: {"a\\nb": 1}', "a"),
        ('setup: ["module load x\\e[2J"]', "setup"),
    ],
)
def test_no_value_breaks_a_line_of_the_script(own: Path, lines: str, key: str) -> None:
    head = "".join(line for line in MINIMAL.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    write(own, f"{head}{lines}\n")
    with pytest.raises(RegistryError, match=r"mine\.yaml:\d+: .*line break or a control character"):
        find_cluster("mine")


def test_a_shell_line_of_the_setup_may_be_several(own: Path) -> None:
    write(own, f"{MINIMAL}setup:\n  - |\n    if true; then\n    \tmodule load x\n    fi\n")
    assert find_cluster("mine").setup == ("if true; then\n\tmodule load x\nfi\n",)
