"""Which arrays some runs become, within what a site allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from harness.slurm.arrays import Planned, Site, Work, ask_site, plan_arrays, share_parallel
from harness.slurm.backend.limits import Limits
from harness.slurm.backend.partitions import Partition
from harness.slurm.backend.slurm import Slurm
from harness.slurm.clusters import Cluster
from tests.slurm_work import cluster, run, work
from tests.squeue import Programs, squeue_line


def site(given: Cluster, **changes: Any) -> Site:
    return Site(**{"cluster": given, "slurm": Slurm(given.slurm_conf or ""), "name": "here", **changes})


def planned(wanted: Work, *sites: Site) -> Planned:
    return plan_arrays(wanted.assignments, wanted, sites, code="0")


def seeds(some: Any) -> list[int]:
    return [item.train.seed for item in some]


def test_runs_are_grouped_by_shape_and_workers_are_told_how_they_run(job: EvalJob, tmp_path: Path) -> None:
    members = [run(job, tmp_path, seed=seed, groups=groups) for seed, groups in enumerate((8, 2, 8))]
    arrays = planned(work(*members, runs=tmp_path), site(cluster(gpus_per_node=4, max_requeues=7))).arrays
    assert [(array.shape.tasks_per_node, seeds(array.members)) for array in arrays] == [(4, [0, 2]), (2, [1])]
    assert {(item.device, item.max_requeues) for array in arrays for item in array.members} == {("cuda", 7)}
    assert [array.plan.names for array in arrays] == [("table2-L6-s0", "table2-L6-s2"), ("table2-L6-s1",)]
    assert [array.plan.name for array in arrays] == ["table2-2runs", "table2-L6-s1"]
    assert "#SBATCH --array=0-1%2\n" in arrays[0].script
    assert "--array=0" not in arrays[1].script
    assert arrays[0].token != arrays[1].token


def test_jobs_of_the_same_runs_from_two_folders_or_slurms_have_different_tokens(job: EvalJob, tmp_path: Path) -> None:
    tokens = set()
    for folder, name in (("mine", "here"), ("yours", "here"), ("mine", "here"), ("mine", "there")):
        wanted = work(run(job, tmp_path), runs=tmp_path / folder)
        tokens.add(planned(wanted, site(cluster(), name=name)).arrays[0].token)
    assert len(tokens) == 3


def test_an_array_is_no_longer_than_slurm_allows(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(10)), runs=tmp_path)
    found = planned(wanted, site(cluster(), limits=Limits(max_array=4)))
    assert [seeds(array.members) for array in found.arrays] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [array.plan.names[0] for array in found.arrays] == ["table2-L6-s0", "table2-L6-s4", "table2-L6-s8"]
    assert len({array.token for array in found.arrays}) == 3
    assert found.held_back == ()


def test_arrays_of_equal_content_have_tokens_of_their_own(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*[run(job, tmp_path)] * 4, runs=tmp_path)
    arrays = planned(wanted, site(cluster(), limits=Limits(max_array=2))).arrays
    assert len({array.token for array in arrays}) == 2
    assert len({array.plan.folder for array in arrays}) == 2


def test_what_a_limit_leaves_no_room_for_is_held_back_with_the_reason(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(6)), runs=tmp_path)
    found = planned(wanted, site(cluster(), limits=Limits(max_jobs=7), queued=3))
    assert [seeds(array.members) for array in found.arrays] == [[0, 1, 2, 3]]
    assert seeds(found.held_back) == [4, 5]
    (why,) = found.why_held_back
    assert "7 jobs in the queue, 3 are there: 4 submitted, 2 held back" in why


def test_a_limit_holds_for_the_arrays_of_all_shapes_together(job: EvalJob, tmp_path: Path) -> None:
    members = [run(job, tmp_path, seed=seed, groups=2 if seed % 2 else 8) for seed in range(6)]
    found = planned(work(*members, runs=tmp_path), site(cluster(gpus_per_node=4), limits=Limits(max_jobs=4)))
    assert [seeds(array.members) for array in found.arrays] == [[0, 2, 4], [1]]
    assert sorted(seeds(found.held_back)) == [3, 5]


def test_runs_are_spread_over_several_clusters_where_jobs_wait_the_least(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(6)), runs=tmp_path)
    one = site(cluster(name="a", parallel=4), queued=4)
    other = site(cluster(name="b", parallel=4, slurm_conf="/etc/b.conf"), name="there")
    found = planned(wanted, one, other)
    assert [(array.plan.cluster.name, array.slurm, len(array.members)) for array in found.arrays] == [
        ("a", "here", 1),
        ("b", "there", 5),
    ]
    assert sorted(seed for array in found.arrays for seed in seeds(array.members)) == list(range(6))


def test_what_no_cluster_has_room_for_is_held_back_once(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(6)), runs=tmp_path)
    found = planned(
        wanted,
        site(cluster(name="a"), limits=Limits(max_jobs=2)),
        site(cluster(name="b"), name="there", limits=Limits(max_jobs=1)),
    )
    assert sorted(len(array.members) for array in found.arrays) == [1, 2]
    assert len(found.held_back) == 3
    submitted = {seed for array in found.arrays for seed in seeds(array.members)}
    assert submitted | set(seeds(found.held_back)) == set(range(6))


def test_parallel_holds_over_new_arrays_and_those_in_the_queue(
    job: EvalJob, tmp_path: Path, programs: Programs
) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(6)), runs=tmp_path)
    here = site(cluster(parallel=6), arrays={"17": 6})
    (array,) = planned(wanted, here).arrays
    assert "#SBATCH --array=0-5%3\n" in array.script
    share_parallel(here, {array.token: 6})
    assert programs.calls == ["scontrol update JobId=17 ArrayTaskThrottle=3"]


def test_arrays_that_slurm_does_not_throttle_stay_and_stop_nothing(
    programs: Programs, caplog: pytest.LogCaptureFixture
) -> None:
    programs.fail("scontrol", "Access denied")
    share_parallel(site(cluster(parallel=2), arrays={"17": 6, "18": 1}), {"new": 1})
    assert len(programs.calls_of("scontrol")) == 2
    assert "Array 17 was not throttled: scontrol failed: Access denied." in caplog.text


def test_without_new_arrays_nobody_elses_are_throttled(programs: Programs) -> None:
    share_parallel(site(cluster(parallel=2), arrays={"17": 6}), {})
    share_parallel(site(cluster(parallel=2)), {"new": 6})
    assert programs.calls == []


def test_a_run_that_is_trained_already_has_the_shape_of_evaluations(job: EvalJob, tmp_path: Path) -> None:
    members = [run(job, tmp_path, seed=seed) for seed in range(2)]
    final = RunDir(Path(members[1].run_dir)).final
    final.parent.mkdir(parents=True)
    final.touch()
    given = cluster(gpus_per_node=8, partition="main", evaluation={"gpus_per_node": 1, "partition": "small"})
    trains, evaluates = planned(work(*members, runs=tmp_path), site(given)).arrays
    assert (seeds(trains.members), trains.shape.tasks_per_node, trains.plan.cluster.partition) == ([0], 8, "main")
    assert (seeds(evaluates.members), evaluates.shape.tasks_per_node) == ([1], 1)
    assert "#SBATCH --partition=small\n" in evaluates.script
    assert "#SBATCH --gpus-per-node=1\n" in evaluates.script


def test_rows_have_the_resources_that_the_cluster_file_gives_them(job: EvalJob, tmp_path: Path) -> None:
    members = [run(job, tmp_path, seed=seed) for seed in range(3)]
    wanted = work(*members, runs=tmp_path, refs={1: "table4/dr-x101"})
    given = cluster(memory_gb_per_gpu=8, rows={"table4/dr-x101*": {"memory_gb_per_gpu": 32, "time_minutes": 90}})
    plain, large = planned(wanted, site(given)).arrays
    assert (seeds(plain.members), seeds(large.members)) == ([0, 2], [1])
    assert "#SBATCH --mem=8192M\n" in plain.script
    assert {"#SBATCH --mem=32768M", "#SBATCH --time=90"} <= set(large.script.splitlines())


def test_jobs_that_would_never_start_are_refused_with_the_partitions_that_take_them(
    job: EvalJob, tmp_path: Path
) -> None:
    limits = Limits(partitions={"short": Partition("short", "up", True, 30.0), "long": Partition("long", "up")})
    wanted = work(run(job, tmp_path), runs=tmp_path)
    with pytest.raises(SchedulerError, match=r"On cluster 'c' jobs would never start, so nothing.*take it: long"):
        planned(wanted, site(cluster(partition="short"), limits=limits))


def test_a_site_is_asked_for_its_limits_and_for_the_users_jobs(programs: Programs, tmp_path: Path) -> None:
    programs.config(ClusterName="here", MaxArraySize="4", MaxJobCount="50")
    programs.queue(
        *(squeue_line(f"17_{index}", "PENDING", "Priority", "harness-abc-0") for index in range(3)),
        squeue_line("17_3", "COMPLETED", "None", "harness-abc-0"),
        squeue_line("18", "RUNNING", "None", "harness-def-0"),
        squeue_line("19_0", "RUNNING", "None", "mine, but no run"),
        squeue_line("20_0", "RUNNING", "None", "harness-ghi-0", user="you"),
    )
    found = ask_site(cluster(), tmp_path)
    assert (found.name, found.queued, found.arrays, found.alone) == ("here", 5, {"17": 3, "18": 1}, {"18"})
    assert (found.limits.max_array, found.limits.max_jobs) == (4, 50)


def test_a_site_whose_queue_does_not_answer_takes_nothing(programs: Programs, tmp_path: Path) -> None:
    programs.fail("squeue", "down")
    with pytest.raises(SchedulerError, match="squeue failed: down. Nothing was submitted."):
        ask_site(cluster(), tmp_path)


def test_the_members_that_are_left_keep_their_places(job: EvalJob, tmp_path: Path) -> None:
    wanted = work(*(run(job, tmp_path, seed=seed) for seed in range(4)), runs=tmp_path, refs={3: "table3/decay"})
    (array,) = planned(wanted, site(cluster())).arrays
    some = array.only([1, 3])
    assert (seeds(some.members), some.plan.names) == ([1, 3], ("table2-L6-s1", "table3-decay-s3"))
    assert [path.name for path in some.plan.run_folders] == [item.train.id for item in some.members]
    assert some.refs == (("table2/L6",), ("table3/decay",))
    assert some.plan.cluster == array.plan.cluster
    assert "--array=0-1%" in some.script
