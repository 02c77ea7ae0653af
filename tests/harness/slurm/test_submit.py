"""What a request to submit leaves behind, with stand-ins for Slurm's programs, and the dry run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.runs.wanted import wanted
from detector.storage.files import write_json
from detector.worker.missing_loss import decode
from harness.slurm import submit as slurm
from harness.slurm.arrays import Work
from harness.slurm.backend.programs import NoSlurm
from harness.slurm.reservations import holder_of, reservation_file
from harness.slurm.submissions import Options, Submission, read_submissions, transport_folder
from harness.slurm.submit import submit
from support.micro import write_experiments
from tests.command import error, invoke
from tests.slurm_work import cluster, run, work
from tests.squeue import Programs, squeue_line

TAKES = """
number=$(cat {root}/number 2>/dev/null || echo 17)
echo $((number + 1)) >{root}/number
mkdir -p {root}/seen
cat >{root}/seen/$number.sh
cp {runs}/submissions/*.json {root}/seen
echo $number
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def taking(programs: Programs, runs: Path) -> Programs:
    """A Slurm that takes every job: 17, 18, ... It keeps the scripts, and the submissions as they were then."""
    programs.put("sbatch", TAKES.format(root=programs.root, runs=runs))
    return programs


def some(job: EvalJob, runs: Path, count: int = 2, **changes: Any) -> Work:
    return work(*(run(job, runs, seed=seed) for seed in range(count)), runs=runs, **changes)


def two_shapes(job: EvalJob, runs: Path) -> Work:
    """Two runs that are no single array."""
    return work(run(job, runs, seed=0, groups=8), run(job, runs, seed=1, groups=2), runs=runs)


def ids(wanted_work: Work) -> list[str]:
    return [item.train.id for item in wanted_work.assignments]


def by_state(runs: Path) -> list[str]:
    return sorted(item.state for item in read_submissions(runs))


def test_a_submission_describes_itself_before_sbatch_is_called(job: EvalJob, runs: Path, taking: Programs) -> None:
    wanted_work = some(job, runs, refs={1: "table3/decay"})
    before = time.time()
    outcome = submit(wanted_work, [cluster(name="mine", slurm_conf="/etc/slurm.conf")])
    ((entry, array),) = outcome.submitted
    seen = json.loads((taking.root / "seen" / f"{entry.token}.json").read_text())
    assert (seen["state"], seen["job_id"], seen["cluster"], seen["user"]) == ("submitting", None, "mine", "me")
    assert (seen["slurm"], seen["conf"]) == ("here", "/etc/slurm.conf")
    assert seen["runs"] == ids(wanted_work)
    assert [member["refs"] for member in seen["members"]] == [["table2/L6"], ["table3/decay"]]
    assert [member["train"]["seed"] for member in seen["members"]] == [0, 1]
    (noted,) = read_submissions(runs)
    assert noted.options == wanted_work.options
    assert noted.options == Options(
        profile="tiny", cluster="c", overrides=("optimizer.lr=0.005",), data="/data/coco", batch_size=None
    )
    assert [member.train for member in noted.members] == [item.train for item in wanted_work.assignments]
    assert [member.evals for member in noted.members] == [(item.evals[0].id,) for item in wanted_work.assignments]
    assert (noted.state, noted.job_id, noted.message) == ("submitted", "17", "")
    assert before <= noted.time <= time.time()
    assert (taking.root / "seen" / "17.sh").read_text() == array.script
    assert noted == entry


def test_the_tasks_and_the_script_lie_in_the_submissions_folder(job: EvalJob, runs: Path, taking: Programs) -> None:
    ((entry, array),) = submit(some(job, runs), [cluster()]).submitted
    folder = transport_folder(runs, entry.token)
    assert (folder / "job.sh").read_text() == array.script
    for index, member in enumerate(array.members):
        task = decode((folder / f"task-{index}.json").read_bytes())
        assert isinstance(task, Assignment)
        assert task == member
    assert [holder_of(RunDir(runs / name)) for name in entry.runs] == [entry.token] * 2


def test_runs_that_are_queued_are_not_submitted_again(job: EvalJob, runs: Path, taking: Programs) -> None:
    first, again = some(job, runs), some(job, runs, 3)
    ((entry, _),) = submit(first, [cluster()]).submitted
    taking.queue(
        squeue_line("17_0", "RUNNING", "None", f"harness-{entry.token}"),
        squeue_line("17_1", "PENDING", "Priority", f"harness-{entry.token}"),
    )
    outcome = submit(again, [cluster()])
    assert [item.runs for item, _ in outcome.submitted] == [(ids(again)[2],)]
    assert outcome.skipped == dict(zip(ids(first), ("job 17_0, running", "job 17_1, pending (Priority)"), strict=True))
    assert outcome.wanted == ()


def test_a_run_that_trains_outside_of_the_queue_is_left_alone(job: EvalJob, runs: Path, taking: Programs) -> None:
    wanted_work = some(job, runs)
    write_json(RunDir(runs / ids(wanted_work)[0]).status, Status(phase="training", time=time.time(), pid=1))
    outcome = submit(wanted_work, [cluster()])
    assert outcome.skipped == {ids(wanted_work)[0]: "running outside of the queue"}
    assert [entry.runs for entry, _ in outcome.submitted] == [(ids(wanted_work)[1],)]


def test_a_later_evaluation_is_wanted_of_the_job_that_trains(job: EvalJob, runs: Path, taking: Programs) -> None:
    first = some(job, runs, 1)
    ((entry, _),) = submit(first, [cluster()]).submitted
    taking.queue(squeue_line("17", "RUNNING", "None", f"harness-{entry.token}"))
    (item,) = first.assignments
    more = replace(item.evals[0], split="a second split")
    asked = work(replace(item, evals=(*item.evals, more)), runs=runs)
    outcome = submit(asked, [cluster()])
    assert (outcome.submitted, outcome.wanted) == ((), (item.train.id,))
    assert {evaluation.id for evaluation in wanted(RunDir(Path(item.run_dir)))} == {item.evals[0].id, more.id}
    assert submit(asked, [cluster()]).wanted == ()  # told once
    assert submit(first, [cluster()]).wanted == ()  # it was submitted for that one


def test_a_reservation_that_cannot_be_read_stops_no_other_run(job: EvalJob, runs: Path, taking: Programs) -> None:
    wanted_work = some(job, runs)
    ((entry, _),) = submit(wanted_work, [cluster()]).submitted
    taking.queue(squeue_line("17_0", "RUNNING", "None", f"harness-{entry.token}"))
    reservation_file(RunDir(runs / ids(wanted_work)[0])).write_text("{")
    assert [item.runs for item, _ in submit(wanted_work, [cluster()]).submitted] == [(ids(wanted_work)[1],)]


def test_one_call_of_sbatch_for_each_array_and_one_of_squeue(job: EvalJob, runs: Path, taking: Programs) -> None:
    taking.config(ClusterName="here", MaxArraySize="4")
    outcome = submit(some(job, runs, 10), [cluster()])
    assert [(entry.job_id, len(entry.runs)) for entry, _ in outcome.submitted] == [("17", 4), ("18", 4), ("19", 2)]
    assert len(taking.calls_of("sbatch")) == 3
    assert len(taking.calls_of("squeue")) == 1
    assert by_state(runs) == ["submitted"] * 3


def test_what_an_account_may_not_submit_is_held_back_and_not_reserved(
    job: EvalJob, runs: Path, taking: Programs
) -> None:
    taking.config(ClusterName="here", AccountingStorageEnforce="associations,limits")
    taking.put("sacctmgr", '[ "$3" = user ] && echo "us|here|us||normal|normal|3||"; true')
    wanted_work = some(job, runs, 5)
    outcome = submit(wanted_work, [cluster()])
    assert [entry.runs for entry, _ in outcome.submitted] == [tuple(ids(wanted_work)[:3])]
    assert outcome.held_back == tuple(ids(wanted_work)[3:])
    assert "3 jobs in the queue, 0 are there: 3 submitted, 2 held back" in outcome.why_held_back[0]
    assert outcome.skipped == {}
    assert [reservation_file(RunDir(runs / name)).exists() for name in ids(wanted_work)] == [True] * 3 + [False] * 2


def test_several_clusters_get_what_is_missing_and_each_submission_says_where_it_is(
    job: EvalJob, runs: Path, taking: Programs
) -> None:
    taking.put("scontrol", 'echo "ClusterName = $(basename "${SLURM_CONF:-here}" .conf)"')
    outcome = submit(some(job, runs, 4), [cluster(name="a"), cluster(name="b", slurm_conf="/etc/there.conf")])
    assert [(entry.cluster, entry.slurm, entry.conf, len(entry.runs)) for entry, _ in outcome.submitted] == [
        ("a", "here", "", 2),
        ("b", "there", "/etc/there.conf", 2),
    ]


def test_jobs_that_were_there_before_give_way_to_the_new_ones(job: EvalJob, runs: Path, taking: Programs) -> None:
    """``parallel`` is for all arrays of a user together."""
    taking.queue(*(squeue_line(f"9_{index}", "PENDING", "JobArrayTaskLimit", "harness-old-0") for index in range(6)))
    ((_, array),) = submit(some(job, runs, 6), [cluster(parallel=4)]).submitted
    assert "#SBATCH --array=0-5%2\n" in array.script
    assert taking.calls_of("scontrol")[-1] == "update JobId=9 ArrayTaskThrottle=2"


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No program on the PATH."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("no_slurm", "empty_folders")
def test_dry_run_needs_no_slurm_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    command = ("run", "table3", "--profile", "tiny", "--seeds", "2", "--cluster", "example", "--dry-run")
    result = invoke(*command)
    assert "#SBATCH --array=0-5%6" in result.stdout
    assert "6 runs, each on 2 nodes of 1 process:" in result.stderr
    assert "  4: table3/neg-only, seed 1" in result.stderr
    assert not (tmp_path / "runs").exists()
    assert invoke(*command).stdout == result.stdout


@pytest.mark.usefixtures("no_slurm")
def test_submit_without_slurm_says_so_and_reserves_nothing(job: EvalJob, runs: Path) -> None:
    with pytest.raises(NoSlurm, match=r"There is no Slurm here.*--dry-run"):
        submit(some(job, runs), [cluster()])
    assert not list(runs.glob("*/claim.json"))
    assert read_submissions(runs) == []


def test_submit_without_sbatch_gives_the_runs_back(
    job: EvalJob, runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = programs.root / "bin"
    (tools / "sbatch").unlink()
    (tools / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(tools))  # this machine may have a Slurm
    with pytest.raises(NoSlurm, match=r"There is no Slurm here: sbatch.*--dry-run"):
        submit(some(job, runs), [cluster()])
    assert not list(runs.glob("*/claim.json"))
    assert by_state(runs) == ["refused"]


def test_a_refused_job_leaves_what_slurm_said_and_releases_its_runs(
    job: EvalJob, runs: Path, programs: Programs
) -> None:
    programs.fail("sbatch", "sbatch: error: Invalid account")
    wanted_work = two_shapes(job, runs)
    with pytest.raises(SchedulerError, match=r"sbatch refused table2-L6-s0: sbatch: error: Invalid account.*'sinfo'"):
        submit(wanted_work, [cluster(gpus_per_node=4)])
    told = {entry.runs[0]: entry.message for entry in read_submissions(runs)}
    assert told[ids(wanted_work)[0]].startswith("sbatch refused table2-L6-s0: sbatch: error: Invalid account.")
    assert told[ids(wanted_work)[1]].startswith("not submitted, since another job was refused: sbatch refused")
    assert by_state(runs) == ["refused", "refused"]
    assert not list(runs.glob("*/claim.json"))
    programs.put("sbatch", "cat >/dev/null; echo 17")
    assert len(submit(wanted_work, [cluster(gpus_per_node=4)]).submitted) == 2  # nothing is in the way


def test_jobs_that_were_taken_stay_where_a_later_one_is_refused(job: EvalJob, runs: Path, programs: Programs) -> None:
    programs.put(
        "sbatch", f"[ -e {programs.root}/taken ] && {{ echo no >&2; exit 1; }}; touch {programs.root}/taken; echo 17"
    )
    with pytest.raises(SchedulerError, match="sbatch refused table2-L6-s1: no"):
        submit(two_shapes(job, runs), [cluster(gpus_per_node=4)])
    assert by_state(runs) == ["refused", "submitted"]
    assert len(list(runs.glob("*/claim.json"))) == 1


def test_a_job_that_may_be_submitted_keeps_its_runs(job: EvalJob, runs: Path, programs: Programs) -> None:
    """The next command looks for it in the queue. The other was never submitted."""
    programs.fail("sbatch", "sbatch: error: Socket timed out on send/recv")
    wanted_work = two_shapes(job, runs)
    with pytest.raises(SchedulerError, match=r"may be submitted or not. Run the same command again in 180 s"):
        submit(wanted_work, [cluster(gpus_per_node=4)])
    assert by_state(runs) == ["refused", "submitting"]
    assert [path.parent.name for path in runs.glob("*/claim.json")] == ids(wanted_work)[:1]
    outcome = submit(work(wanted_work.assignments[0], runs=runs), [cluster(gpus_per_node=4)])
    assert (outcome.submitted, outcome.skipped) == ((), {ids(wanted_work)[0]: "being submitted"})


def test_a_job_whose_answer_was_lost_is_found_in_the_queue(job: EvalJob, runs: Path, programs: Programs) -> None:
    programs.put(
        "sbatch",
        f"token=$(sed -n 's/^#SBATCH --comment=//p'); printf '%-48s%-24s%-16s%-40s%-64s%-16s%-80s%-160s\\n' "
        f'23_1 PENDING 0 me "$token" 0 x Priority >{programs.root}/queue; '
        "echo 'Unable to contact slurm controller' >&2; exit 1",
    )
    ((entry, _),) = submit(some(job, runs), [cluster()]).submitted
    assert (entry.state, entry.job_id) == ("submitted", "23")


def test_submit_notes_and_reserves_before_it_calls_sbatch(
    job: EvalJob, runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted_work = some(job, runs, 1)
    seen: list[tuple[str, bool]] = []

    def crash(entry: Submission, *arguments: Any) -> None:
        (noted,) = read_submissions(runs)
        seen.append((noted.state, reservation_file(RunDir(runs / ids(wanted_work)[0])).exists()))
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_submit_array", crash)
    with pytest.raises(KeyboardInterrupt):
        submit(wanted_work, [cluster()])
    assert seen == [("submitting", True)]


def test_dry_run_needs_a_cluster() -> None:
    assert "--dry-run shows what --cluster NAME would submit" in error("run", "table3", "-p", "tiny", "--dry-run")
