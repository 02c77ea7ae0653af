"""The batch script as text: the shapes of runs, sbatch's options, and what bash makes of the settings."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detector.errors import UsageError
from detector.runs.job import EvalJob
from harness.slurm.batch.script import (
    LONGEST_NAME,
    ArrayPlan,
    Shape,
    array_name,
    batch_script,
    job_name,
    sbatch_options,
    shape_of,
)
from tests.slurm_work import cluster, execution, run

HOSTILE = (
    "a b",
    "it's",
    'a "quoted" one',
    "50%",
    "%A_%a",
    "#1",
    "a #b",
    "$(touch pwned)",
    "`id`",
    "back\\slash",
    "é*?[",
)


def plan(**changes: Any) -> ArrayPlan:
    values: dict[str, Any] = {
        "token": "abc-0",
        "cluster": cluster(),
        "shape": Shape(1, 1, False, 2, None),
        "names": ("table2-L6-s0",),
        "run_folders": (Path("/runs/0123"),),
        "folder": Path("/runs/submissions/abc-0"),
        "code": Path("/runs/code/c0de"),
        "most_at_once": 1,
        **changes,
    }
    return ArrayPlan(**values)


def options(script: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}


def in_bash(script: str, expression: str, **variables: str) -> str:
    """What bash prints for an expression after the settings, without the supervisor."""
    settings, begin, _ = script.partition("# The rest is the same in every job.")
    assert begin
    done = subprocess.run(
        ["bash", "-c", f"{settings}\n{expression}"], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("groups", "nodes", "gpus", "wanted", "expected"),
    [
        (8, 1, 8, "all", (1, 8)),
        (8, 2, 8, "all", (1, 8)),  # no more processes than groups, and then on fewer nodes
        (8, 2, 4, "all", (2, 4)),
        (8, 1, 6, "all", (1, 4)),  # 6 and 5 do not divide 8
        (6, 2, 4, "all", (2, 3)),
        (8, 3, 3, "all", (2, 2)),  # 3 x 3 and 3 x 2 do not divide 8; nor can 8 be shared by three nodes
        (8, 2, 4, 1, (1, 1)),
        (8, 2, 4, 6, (1, 4)),
        (1, 4, 8, "all", (1, 1)),
        (8, 2, 4, 0, (2, 1)),  # a profile for CPUs: one process per node
        (2, 4, 0, "all", (2, 1)),  # a cluster without GPUs
        (3, 2, 0, "all", (1, 1)),
    ],
)
def test_shape_of_shares_the_groups_evenly(
    job: EvalJob, tmp_path: Path, groups: int, nodes: int, gpus: int, wanted: str | int, expected: tuple[int, int]
) -> None:
    of_groups, given = run(job, tmp_path, groups=groups), cluster(nodes=nodes, gpus_per_node=gpus)
    shape = shape_of(of_groups, given, execution(gpus_per_run=wanted))
    assert (shape.nodes, shape.tasks_per_node) == expected
    assert shape.on_gpus == (gpus > 0 and wanted != 0)


def test_shape_of_evaluations_is_all_that_there_is(job: EvalJob, tmp_path: Path) -> None:
    """No batch must be divided: 6 GPUs share the images of any number of groups."""
    shape = shape_of(run(job, tmp_path), cluster(gpus_per_node=6), execution(), evaluation_only=True)
    assert (shape.nodes, shape.tasks_per_node) == (1, 6)


def test_shape_of_gives_processes_what_the_profile_needs_where_the_cluster_says_nothing(
    job: EvalJob, tmp_path: Path
) -> None:
    eight = run(job, tmp_path)
    assert shape_of(eight, cluster(gpus_per_node=4), execution()) == Shape(1, 4, True, 5, None)
    given = cluster(gpus_per_node=4, cpus_per_gpu=3, memory_gb_per_gpu=1.5)
    assert shape_of(eight, given, execution()) == Shape(1, 4, True, 3, 6.0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(1, 1, False, 1, None), "1 node of 1 process"),
        (Shape(2, 2, False, 1, None), "2 nodes of 2 processes"),
        (Shape(1, 1, True, 1, None), "1 node of 1 GPU"),
        (Shape(2, 8, True, 1, None), "2 nodes of 8 GPUs"),
    ],
)
def test_a_shape_is_told_in_words(shape: Shape, words: str) -> None:
    assert str(shape) == words


def test_the_script_holds_what_the_cluster_file_says() -> None:
    given = cluster(
        **{"nodes": 2, "gpus_per_node": 4, "cpus_per_gpu": 6, "memory_gb_per_gpu": 30, "signal_delay_seconds": 90},
        **{"partition": "gpu", "account": "us", "qos": "long", "constraint": "a100|h100", "reservation": "night"},
        **{"setup": ["module load cuda"], "container": "apptainer exec --nv x.sif", "python": "python3"},
        **{"dependency": "afterok:12", "nice": 100, "mail_user": "me@x", "mail_type": ["end", "FAIL"]},
        extra={"gpus-per-node": "a100:4", "exclusive": True, "overcommit": False, "export": "NONE", "tmp": 5},
    )
    names = tuple(f"table2-L6-s{seed}" for seed in range(5))
    folders = tuple(Path(f"/runs/{seed}") for seed in range(5))
    array = plan(cluster=given, shape=Shape(2, 4, True, 6, 120.0), names=names, run_folders=folders, most_at_once=3)
    script = batch_script(array)
    assert options(script) == {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=a100:4", "--cpus-per-task=6", "--mem=122880M"),
        *("--partition=gpu", "--account=us", "--qos=long", "--constraint=a100|h100", "--reservation=night"),
        *("--dependency=afterok:12", "--nice=100", "--mail-user=me@x", "--mail-type=END,FAIL"),
        *("--time=60", "--signal=USR2@90", "--exclusive", "--export=NONE", "--tmp=5"),
        *("--requeue", "--array=0-4%3", "--open-mode=append", "--job-name=table2-5runs", "--comment=harness-abc-0"),
        "--output=/runs/submissions/abc-0/%A_%a_0_log.out",
    }
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines.index("module load cuda") < lines.index(
        "step=(srun --kill-on-bad-exit=1 --unbuffered "
        "--open-mode=append --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=6 --export=ALL)"
    )
    assert "python=(apptainer exec --nv x.sif env --block-signal=USR2 python3)" in lines
    assert lines.index("set -e") < lines.index("module load cuda") < lines.index("set +e")


def test_the_script_of_one_run_is_no_array_and_is_not_queued_again_where_nobody_wants_it() -> None:
    found = options(batch_script(plan(cluster=cluster(max_requeues=0))))
    assert {"--no-requeue", "--output=/runs/submissions/abc-0/%j_0_log.out", "--job-name=table2-L6-s0"} <= found
    assert not any(option.startswith(("--array", "--mem", "--gpus", "--partition", "--mail")) for option in found)
    assert "--requeue" not in found


def test_processes_get_their_variables_whatever_the_job_was_given() -> None:
    """A site's or a user's --export=NONE empties the job's environment, and srun would go by it."""
    script = batch_script(plan(cluster=cluster(extra={"export": "NONE"})))
    assert "--export=NONE" in options(script)
    assert in_bash(script, 'printf "%s\\n" "${step[@]}"').splitlines()[-1] == "--export=ALL"


def test_the_script_compares_times_in_one_format_whatever_the_user_prefers() -> None:
    assert "\nexport SLURM_TIME_FORMAT=standard " in batch_script(plan())


@pytest.mark.parametrize("name", HOSTILE)
def test_odd_names_of_folders_reach_bash_as_they_are(name: str, tmp_path: Path) -> None:
    folder = Path("/runs") / name / "submissions" / "abc-0"
    runs = tuple(Path("/runs") / name / str(seed) for seed in range(2))
    script = batch_script(
        plan(folder=folder, code=Path("/runs") / name / "code", run_folders=runs, names=("a-s0", "a-s1"))
    )
    (tmp_path / "job.sh").write_text(script)
    done = subprocess.run(["bash", "-n", "job.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = in_bash(script, 'printf "%s\\n" "$folder" "${runs[@]}" "${names[@]}" "$output_folder" "$PYTHONPATH"')
    escaped = str(folder).replace("%", "%%")
    assert told.splitlines() == [
        *(str(folder), *map(str, runs), "a-s0", "a-s1", escaped, str(Path("/runs") / name / "code")),
    ]
    (output,) = [line for line in script.splitlines() if line.startswith("#SBATCH --output")]
    assert shlex.split(output.removeprefix("#SBATCH "), comments=True) == [f"--output={escaped}/%A_%a_0_log.out"]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a b", '--exclude="a b"'),
        ("n[1-3]", "--exclude=n[1-3]"),
        ('say "x"', '--exclude="say \\"x\\""'),
        ("x#y", '--exclude="x#y"'),
        ("it's", '--exclude="it\'s"'),
        ("a\\b", '--exclude="a\\\\b"'),
    ],
)
def test_values_of_options_are_quoted_where_they_must_be(value: str, line: str) -> None:
    found = sbatch_options(plan(cluster=cluster(extra={"exclude": value})))
    assert line in found
    assert shlex.split(line) == [f"--exclude={value}"]


def test_an_older_pythonpath_of_the_setup_stays_behind_the_copy_of_the_code() -> None:
    script = batch_script(plan(cluster=cluster(setup=["export PYTHONPATH=/mine"])))
    assert in_bash(script, 'echo "$PYTHONPATH"') == "/runs/code/c0de:/mine\n"


def test_python_is_the_one_that_submits_unless_the_cluster_file_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/my envs/bin/python")
    told = in_bash(batch_script(plan()), 'printf "%s\\n" "${python[@]}" "${worker[@]}"').splitlines()
    assert told == ["env", "--block-signal=USR2", "/my envs/bin/python", "-u", "-m", "detector.worker"]


@pytest.mark.parametrize("what", ["folder", "code"])
@pytest.mark.parametrize("odd", ["a\n#SBATCH --uid=0", "a\rb", "a\x1b[2J", "a\x85b", "a\u2028b"])
def test_a_path_with_a_line_break_is_refused(what: str, odd: str) -> None:
    with pytest.raises(UsageError, match="has a line break or a control character"):
        batch_script(plan(**{what: Path("/runs") / odd}))


@pytest.mark.parametrize(
    ("refs", "seed", "name"),
    [
        (("table2/L6",), 0, "table2-L6-s0"),
        (("table4/dr-r101-ms", "table4/dr-r101"), 12, "table4-dr-r101-ms-s12"),
        (("mine/a b;c$(d)\n#e%f",), 1, "mine-a-b-c-d-e-f-s1"),
        (("table9/x",), 3, "table9-x-s3"),
    ],
)
def test_jobs_are_named_by_their_row_and_seed(refs: tuple[str, ...], seed: int, name: str) -> None:
    assert job_name(refs, seed) == name


def test_a_long_name_keeps_its_seed() -> None:
    names = [job_name((f"mine/{'long-' * 30}",), seed) for seed in (3, 12)]
    assert [len(name) <= LONGEST_NAME for name in names] == [True, True]
    assert [name.rpartition("-s")[2] for name in names] == ["3", "12"]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("table2-L6-s0",), "table2-L6-s0"),
        (("table2-L6-s0", "table2-focal-s1"), "table2-2runs"),
        (("table2-L6-s0", "table3-decay-s0", "table2-L6-s1"), "harness-3runs"),
        (("table2-L6-s0", "table22-L6-s0"), "harness-2runs"),
    ],
)
def test_an_array_is_named_by_its_table_and_number_of_runs(names: tuple[str, ...], name: str) -> None:
    assert array_name(names) == name
