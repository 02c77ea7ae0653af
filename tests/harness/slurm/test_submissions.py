"""Submissions that survive crashes, reservations of runs, and the queue; Slurm's programs are stand-ins."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.slurm.backend.slurm import COLUMNS, NoAnswer, NoSlurm, QueuedJob, Slurm
from harness.slurm.queue import reconcile
from harness.slurm.reservations import GRACE_SECONDS, holder_of, is_busy, release, reservation_file, reserve
from harness.slurm.submissions import Submission, next_token, read_submissions, register, write_submission
from tests.squeue import Programs, squeue_line

NOW = 1_000_000.0
RUNNING = squeue_line("41_0", "RUNNING", "None", "harness-a-0")


def submission(
    token: str = "a-0", runs: tuple[str, ...] = ("r0", "r1"), age: float = 0.0, **changes: object
) -> Submission:
    values: dict = {"token": token, "cluster": "c", "runs": runs, "time": NOW - age, "code": "0", **changes}
    return Submission(**{"slurm": "here", "user": "me", **values})


def test_the_queue_is_read_by_elements_with_states_reasons_and_tokens(programs: Programs) -> None:
    programs.queue(
        squeue_line("41_0", "RUNNING", "None", "harness-a-0", restarts=2, name="table2-L6-s0"),
        squeue_line("41_1", "PENDING", "Nodes required (for job, DOWN)", "harness-a-0"),
        squeue_line("42", "PENDING", "Priority", "of somebody else", user="you", code="256"),
        "squeue says hello\n",
        squeue_line("43_[2-5]", "PENDING", "Priority", "harness-a-0"),
        squeue_line("44", "PENDING", "BeginTime", "(null)"),
    )
    name = "table2-L6-s0"
    assert Slurm()._queue(["me", "you"]) == [
        QueuedJob("41_0", "RUNNING", "", "a-0", "me", name, 2, "0"),
        QueuedJob("41_1", "PENDING", "Nodes required (for job, DOWN)", "a-0", "me", name, 0, "0"),
        QueuedJob("42", "PENDING", "Priority", "", "you", name, 0, "256"),
        QueuedJob("44", "PENDING", "BeginTime", "", "me", name, 0, "0"),
    ]
    fields = ",".join(f"{field}:{width}" for field, width in COLUMNS.items())
    assert programs.calls == [f"squeue -h -r -t all -u me,you -O {fields}"]
    assert [(job.base_id, job.index) for job in Slurm().find("a-0")] == [("41", 0), ("41", 1)]


def test_a_queue_that_cannot_be_read_is_an_error_and_never_empty(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller"):
        Slurm().find("a-0")
    monkeypatch.setenv("PATH", str(programs.root))
    with pytest.raises(NoSlurm, match="There is no Slurm here"):
        Slurm().find("a-0")


@pytest.mark.parametrize("said", ["41", "41;there", "sbatch: your quota is low\n41"])
def test_submit_finds_the_id_in_what_sbatch_prints(programs: Programs, said: str) -> None:
    programs.put("sbatch", f"cat >{programs.root}/script; printf '{said}\n'")
    assert Slurm().submit("#!/bin/bash\ntrue\n") == "41"
    assert programs.calls == ["sbatch --parsable"]
    assert (programs.root / "script").read_text() == "#!/bin/bash\ntrue\n"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("echo 'sbatch: error: Invalid account' >&2; exit 1", SchedulerError, "sbatch: error: Invalid account"),
        ("echo 'Submitted, somehow'", SchedulerError, "Submitted, somehow"),
        ("echo 'error: Unable to contact slurm controller' >&2; exit 1", NoAnswer, "Unable to contact"),
        ("echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1", NoAnswer, "Socket timed out"),
    ],
)
def test_submit_tells_a_refusal_from_an_answer_that_is_lost(
    programs: Programs, body: str, kind: type[SchedulerError], said: str
) -> None:
    programs.put("sbatch", body)
    with pytest.raises(SchedulerError, match=said) as caught:
        Slurm().submit("")
    assert type(caught.value) is kind


def test_reconcile_recovers_the_job_of_a_command_that_died(programs: Programs, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(age=10 * GRACE_SECONDS))
    programs.queue(RUNNING, squeue_line("41_1", "PENDING", "Resources", "harness-a-0"))
    queued, recovered = reconcile(tmp_path, now=NOW)
    assert {run: str(where) for run, where in queued.items()} == {
        "r0": "job 41_0, running",
        "r1": "job 41_1, pending (Resources)",
    }
    assert [item.job_id for item in recovered] == ["41"]
    (noted,) = read_submissions(tmp_path)
    assert (noted.state, noted.job_id) == ("submitted", "41")
    assert reconcile(tmp_path, now=NOW)[1] == []  # once


def test_reconcile_gives_a_submission_on_its_way_time_and_then_forgets_it(programs: Programs, tmp_path: Path) -> None:
    entry = submission()
    write_submission(tmp_path, entry)
    assert reserve(RunDir(tmp_path / "r0"), entry.token, living=set())
    queued, _ = reconcile(tmp_path, now=NOW + GRACE_SECONDS - 1)
    assert {run: str(where) for run, where in queued.items()} == {"r0": "being submitted", "r1": "being submitted"}
    queued, _ = reconcile(tmp_path, now=NOW + GRACE_SECONDS + 1)
    assert queued == {}
    assert read_submissions(tmp_path)[0].state == "ended"
    assert holder_of(RunDir(tmp_path / "r0")) is None


def test_reconcile_releases_the_run_of_an_element_that_ended(programs: Programs, tmp_path: Path) -> None:
    entry = submission(state="submitted", job_id="41")
    write_submission(tmp_path, entry)
    for run in entry.runs:
        assert reserve(RunDir(tmp_path / run), entry.token, living=set())
    programs.queue(
        squeue_line("41_0", "FAILED", "NonZeroExitCode", "harness-a-0"),
        squeue_line("41_1", "RUNNING", "None", "harness-a-0"),
    )
    queued, _ = reconcile(tmp_path, now=NOW)
    assert set(queued) == {"r1"}
    assert holder_of(RunDir(tmp_path / "r0")) is None
    assert holder_of(RunDir(tmp_path / "r1")) == "a-0"
    assert read_submissions(tmp_path)[0].state == "submitted"


def test_reconcile_without_writing_changes_nothing(programs: Programs, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(age=10 * GRACE_SECONDS))
    before = {path: path.read_bytes() for path in tmp_path.glob("submissions/*.json")}
    reconcile(tmp_path, now=NOW, write=False)
    programs.queue(RUNNING)
    assert set(reconcile(tmp_path, now=NOW, write=False)[0]) == {"r0"}
    assert {path: path.read_bytes() for path in tmp_path.glob("submissions/*.json")} == before


def test_reconcile_asks_no_more_about_what_has_ended(programs: Programs, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(state="ended"))
    write_submission(tmp_path, submission("b-0", state="refused"))
    assert reconcile(tmp_path, now=NOW) == ({}, [])
    assert programs.calls_of("squeue") == []


@pytest.mark.parametrize("what", ["squeue fails", "scontrol fails", "another Slurm", "private jobs", "sacct"])
def test_reconcile_ends_nothing_that_is_not_gone_for_certain(programs: Programs, tmp_path: Path, what: str) -> None:
    changes = {"another Slurm": {"slurm": "there"}, "private jobs": {"user": "you"}}.get(what, {})
    write_submission(tmp_path, submission(state="submitted", job_id="41", age=1e5, **changes))
    assert reserve(RunDir(tmp_path / "r0"), "a-0", living=set())
    if what == "squeue fails":
        programs.fail("squeue", "down")
    if what == "scontrol fails":
        programs.fail("scontrol", "down")
    if what == "private jobs":
        programs.config(ClusterName="here", PrivateData="jobs")
    if what == "sacct":
        programs.accounts("41_0|RUNNING|0:0", "41_1|RUNNING|0:0")
    queued, _ = reconcile(tmp_path, now=NOW)
    assert set(queued) == {"r0", "r1"}
    words = str(queued["r0"])
    assert words.startswith("not known: ")
    assert words.endswith(f"is gone for good, move {tmp_path}/submissions/a-0.json away.")
    assert read_submissions(tmp_path)[0].state == "submitted"
    assert holder_of(RunDir(tmp_path / "r0")) == "a-0"


def test_reconcile_leaves_the_submissions_of_other_users_as_they_are(programs: Programs, tmp_path: Path) -> None:
    """Their files may not be ours to write; what their jobs train is known all the same."""
    write_submission(tmp_path, submission(user="you", state="submitted", job_id="41"))
    write_submission(tmp_path, submission("b-0", ("r2",), user="you", age=1e5))
    write_submission(tmp_path, submission("c-0", ("r3",), user="you", age=1e5))
    for run, token in (("r0", "a-0"), ("r2", "b-0")):
        assert reserve(RunDir(tmp_path / run), token, living=set())
    before = {path: path.read_bytes() for path in tmp_path.glob("submissions/*.json")}
    programs.queue(
        squeue_line("41_1", "RUNNING", "None", "harness-a-0", user="you"),
        squeue_line("42", "RUNNING", "None", "harness-b-0", user="you"),
    )
    queued, recovered = reconcile(tmp_path, now=NOW)
    assert {run: str(where) for run, where in queued.items()} == {"r1": "job 41_1, running", "r2": "job 42, running"}
    assert recovered == []
    assert {path: path.read_bytes() for path in tmp_path.glob("submissions/*.json")} == before
    assert (holder_of(RunDir(tmp_path / "r0")), holder_of(RunDir(tmp_path / "r2"))) == ("a-0", "b-0")
    # What nobody trains any more may be reserved by another submission.
    assert reserve(RunDir(tmp_path / "r0"), "d-0", living={item.token for item in queued.values()} - {"a-0"})


def test_reconcile_knows_a_run_that_went_on_as_another_job(programs: Programs, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(state="submitted", job_id="41"))
    programs.queue(
        squeue_line("41_0", "COMPLETED", "None", "harness-a-0"),
        squeue_line("52_0", "PENDING", "Priority", "harness-a-0"),
    )
    queued, _ = reconcile(tmp_path, now=NOW)
    assert {run: str(where) for run, where in queued.items()} == {"r0": "job 52_0, pending (Priority)"}


def test_a_run_is_reserved_by_one_living_submission(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert reserve(run, "a-0", living=set())
    assert reserve(run, "a-0", living={"a-0"})  # again by the same
    assert not reserve(run, "b-0", living={"a-0", "b-0"})
    assert holder_of(run) == "a-0"
    assert reserve(run, "b-0", living={"b-0"})  # a-0 has ended
    release(run, "a-0")
    assert holder_of(run) == "b-0"
    release(run, "b-0")
    assert not reservation_file(run).exists()
    assert list(run.root.iterdir()) == []


def test_next_token_counts_what_was_submitted_before(tmp_path: Path) -> None:
    first = next_token(tmp_path, b"content")
    assert first == next_token(tmp_path, b"content")
    write_submission(tmp_path, submission(token=first))
    assert next_token(tmp_path, b"content") == first.replace("-0", "-1")
    assert next_token(tmp_path, b"other").split("-")[0] != first.split("-")[0]


def test_register_refuses_a_token_that_another_command_has(tmp_path: Path) -> None:
    register(tmp_path, submission(runs=("r0",)))
    with pytest.raises(SchedulerError, match="Another command submits the same runs"):
        register(tmp_path, submission(runs=("r1",)))
    (entry,) = read_submissions(tmp_path)
    assert entry.runs == ("r0",)
    assert len(list((tmp_path / "submissions").iterdir())) == 1


def test_is_busy_by_lock_or_by_a_fresh_heartbeat(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert not is_busy(run)
    write_json(run.status, Status(phase="training", time=NOW, pid=1))
    assert is_busy(run, now=NOW + GRACE_SECONDS - 1)
    assert not is_busy(run, now=NOW + GRACE_SECONDS + 1)
    write_json(run.status, Status(phase="training", time=NOW, pid=1, job="41_0"))
    assert not is_busy(run, now=NOW)  # the queue was asked, and has it no more
    write_json(run.status, Status(phase="failed", time=time.time(), pid=1))
    assert not is_busy(run)
    with run.lock():
        assert is_busy(run)
