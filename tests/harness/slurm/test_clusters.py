"""Cluster files: what they may say, where they are found, and what is told of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.errors import RegistryError, UsageError
from harness.slurm.clusters import find_cluster, find_clusters, for_job, known_clusters, read_cluster
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
        ("extra: {comment: x}\n", 4, "'comment' cannot be in 'extra'"),
        ("extra: {mail-type: END}\n", 4, "--mail-type has a key of its own here: mail_type"),
        ("extra: {reservation: r}\n", 4, "--reservation has a key of its own here: reservation"),
        ("extra: {clusters: other}\n", 4, "--clusters has a key of its own here: slurm_conf"),
        ("extra: {--exclude: n7}\n", 4, "'--exclude' cannot be in 'extra'"),
        ("extra: {exclude n7: true}\n", 4, "'exclude n7' in 'extra' is not the name of an option"),
        ("extra: {exclude: 1e300}\n", 4, "extra.exclude is 1e.300: .*<= 1000000000"),
        ("partiton: gpu\n", 4, "unknown key 'partiton'.*Did you mean 'partition'"),
        ("partition: ''\n", 4, "partition is '': it must not be empty"),
        ("python: ' '\n", 4, "python is ' ': it must not be empty"),
        ("container: ''\n", 4, "container is '': it must not be empty"),
        ("setup: ['', x]\n", 4, "setup.0 is '': it must not be empty"),
        ("account: my group\n", 4, "account is 'my group': no space may be in it"),
        ("memory_gb_per_gpu: 0.0001\n", 4, "memory_gb_per_gpu is 0.0001: .*>= 0.001"),
        ("memory_gb_per_gpu: 1e30\n", 4, "memory_gb_per_gpu is 1e.30: .*<= 1000000"),
        ("start_minutes: .inf\n", 4, "start_minutes is inf: not a finite number"),
        ("mail_type: [FAIL, FALL]\n", 4, "unknown mail_type 'FALL'. Valid: NONE, BEGIN, END, FAIL, .*TIME_LIMIT"),
        ("mail_type: FAIL,,END\n", 4, "unknown mail_type ''"),
        ("dependency: after 12\n", 4, "dependency is 'after 12': no space"),
        ("dependency: afterok:x\n", 4, "dependency 'afterok:x' is not such as afterok:1234"),
        ("nice: 3000000000\n", 4, "nice is 3000000000: .*<= 2147483645"),
        ("slurm_conf: etc/slurm.conf\n", 4, "slurm_conf 'etc/slurm.conf' must be an absolute path"),
        ("fallback: {partition: gpu}\n", 4, "fallback lacks the required key 'after'"),
        ("fallback: {partition: gpu, after: 0}\n", 4, "fallback.after is 0: .*>= 1"),
        ("partition: gpu\nfallback: {partition: gpu, after: 2}\n", 5, "'gpu' is the run's own partition already"),
        ("evaluation:\n  nodes: 1\n  gpus: 1\n", 6, "unknown key 'gpus'. Known keys: account, .*gpus_per_node"),
        ("evaluation:\n  time_minutes: 2\n", 5, r"signal_delay_seconds \(120\) leaves nothing of 2 minutes"),
        ("rows: {table4: {nodes: 1}}\n", 4, "'table4' is not TABLE/ROW"),
        ("rows:\n  table2/*: {nodes: 1}\n  table4/*:\n    nodes: 0\n", 7, "rows.table4/\\*.nodes is 0"),
        ("rows:\n  table2/*: {nodes: 1}\n  table4/*:\n    node: 2\n", 7, "unknown key 'node'.*Did you mean 'nodes'"),
        ("rows:\n  table2/*:\n    extra: {time: 3}\n", 6, "'time' cannot be in 'extra'"),
        ("rows:\n  table2/*:\n    partition: ''\n", 6, "rows.table2/\\*.partition is '': it must not be empty"),
        ("extra: {cpus-per-task: 3}\n", 4, "--cpus-per-task has a key of its own here: cpus_per_gpu"),
        ("extra: {account: me}\n", 4, "--account has a key of its own here: account"),
        ("signal_delay_seconds: 3600\n", 4, r"signal_delay_seconds \(3600\) leaves nothing of 60 minutes"),
    ],
)
def test_a_wrong_cluster_file_is_told_with_its_line(tmp_path: Path, added: str, line: int, message: str) -> None:
    path = write(tmp_path, MINIMAL + added)
    with pytest.raises(RegistryError, match=rf"mine.yaml:{line}: {message}"):
        read_cluster(path)


ROWS = """\
partition: gpu
constraint: a100
extra: {exclude: n7, licenses: a}
memory_gb_per_gpu: 16
rows:
  table4/*: {memory_gb_per_gpu: 32, time_minutes: 90}
  "table4/dr-x101*": {memory_gb_per_gpu: 64, constraint: null, extra: {exclude: n8, exclusive: true}}
evaluation: {gpus_per_node: 1, time_minutes: 30}
"""


def test_rows_have_resources_of_their_own_in_the_files_order(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, MINIMAL + ROWS))
    usual = for_job(cluster, ["table2/L6"])
    assert (usual.memory_gb_per_gpu, usual.time_minutes, usual.constraint) == (16, 60, "a100")
    row = for_job(cluster, ["table2/x", "table4/dr-r101"])
    assert (row.memory_gb_per_gpu, row.time_minutes, row.constraint) == (32, 90, "a100")
    large = for_job(cluster, ["table4/dr-x101-ms"])
    assert (large.memory_gb_per_gpu, large.time_minutes, large.constraint) == (64, 90, None)
    assert large.partition == "gpu"
    assert large.extra == {"exclude": "n8", "licenses": "a", "exclusive": True}


def test_jobs_that_only_evaluate_have_resources_of_their_own(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, MINIMAL + ROWS))
    found = for_job(cluster, ["table4/dr-x101-ms"], evaluation_only=True)
    assert (found.gpus_per_node, found.time_minutes, found.memory_gb_per_gpu) == (1, 30, 64)
    assert for_job(cluster, ["table4/dr-x101-ms"]).gpus_per_node == 0


def test_equal_jobs_have_equal_settings(tmp_path: Path) -> None:
    cluster = read_cluster(write(tmp_path, MINIMAL + ROWS))
    assert for_job(cluster, ["table1/a"]) == for_job(cluster, ["table2/b"])
    assert (for_job(cluster, ["table1/a"]).rows, for_job(cluster, ["table1/a"]).evaluation) == ({}, None)


def test_keys_that_leave_no_time_only_together_are_told(tmp_path: Path) -> None:
    text = f"{MINIMAL}rows:\n  a/*: {{signal_delay_seconds: 1800}}\n  '*/b': {{time_minutes: 10}}\n"
    cluster = read_cluster(write(tmp_path, text))
    assert for_job(cluster, ["a/c"]).signal_delay_seconds == 1800
    with pytest.raises(
        UsageError, match=r"Cluster 'mine', for a/b: signal_delay_seconds \(1800\) leaves nothing of 10"
    ):
        for_job(cluster, ["a/b"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("mail_type: fail, END\n", ("FAIL", "END")), ("mail_type: [ALL]\n", ("ALL",)), ("", ())],
)
def test_mail_types_are_a_text_or_a_list(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    assert read_cluster(write(tmp_path, MINIMAL + text)).mail_types == words


@pytest.mark.parametrize("text", ["singleton", "afterok:1:2,after:3+5", "afterany:7_4?aftercorr:8_*"])
def test_dependencies_that_slurm_knows(tmp_path: Path, text: str) -> None:
    assert read_cluster(write(tmp_path, f'{MINIMAL}dependency: "{text}"\n')).dependency == text


def test_find_clusters_takes_several(own: Path, tmp_path: Path) -> None:
    write(own)
    other = write(tmp_path, MINIMAL.replace("mine", "other"), name="o")
    assert [found.name for found in find_clusters(f"mine, {other}")] == ["mine", "other"]
    assert [found.name for found in find_clusters("mine")] == ["mine"]
    for given in ("mine,", "mine,,example", ","):
        with pytest.raises(UsageError, match="has an empty name"):
            find_clusters(given)
    with pytest.raises(UsageError, match="names 'mine' more than once"):
        find_clusters(f"example,mine,{own / 'mine.yaml'}")
    with pytest.raises(UsageError, match="Unknown cluster 'nowhere'"):
        find_clusters("mine,nowhere")


def test_what_the_file_leaves_open_is_as_sbatchs_variables_say(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(own, f"{MINIMAL}partition: gpu\n")
    for name in ("ACCOUNT", "PARTITION", "TIMELIMIT"):
        monkeypatch.setenv(f"SBATCH_{name}", "7")
    found = find_cluster("mine")
    assert (found.account, found.partition, found.qos, found.time_minutes) == ("7", "gpu", None, 60)
    monkeypatch.setenv("SBATCH_QOS", "a\nb")
    with pytest.raises(UsageError, match=r"SBATCH_QOS: 'a\\nb' has a line break"):
        find_cluster("mine")


def test_find_clusters_takes_a_path_with_a_comma_as_one(tmp_path: Path) -> None:
    path = write(tmp_path, name="a,b")
    assert [found.name for found in find_clusters(str(path))] == ["mine"]


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
        ('setup: ["module load x\\rrm -r y"]', "setup"),
        ('setup: ["module load x\\u2028y"]', "setup"),
        ('reservation: "r\\n"', "reservation"),
        ('dependency: "singleton\\n"', "dependency"),
        ('mail_user: "me\\n#SBATCH --uid=0"', "mail_user"),
        ('mail_type: ["FAIL\\n"]', "mail_type"),
        ('slurm_conf: "/etc/x\\ny"', "slurm_conf"),
        ('evaluation: {partition: "p\\n"}', "evaluation"),
        ('rows: {"table4/x\\ny": {nodes: 1}}', "rows"),
        ('rows: {"table4/x": {extra: {exclude: "n\\n7"}}}', "rows"),
        ('fallback: {partition: "p\\n", after: 1}', "fallback"),
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
