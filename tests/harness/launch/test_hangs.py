"""Runs that get no further: when they count as hung, their stacks, how often they start again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.storage.files import write_json
from detector.worker.silence import silence
from harness.launch import local as launch
from harness.launch.cancel import note_cancelled
from harness.launch.hangs import MOST_BETWEEN_LOOKS, Watch, catching, note_hang, point
from harness.launch.local import Slot, _Active, run_local
from harness.store.cancelled import cancellation, forget_cancelled_run, note_cancelled_run
from support.micro import micro_assignment
from support.records import record_of


class View:
    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, train_id: str, status: object) -> None: ...

    def note(self, train_id: str, text: str) -> None:
        self.said.append(text)

    def finish(self, train_id: str, text: str) -> None:
        self.said.append(text)


def beat(progressed: float, silence: float = 30.0) -> Status:
    return Status(phase="training", time=0.0, pid=1, progressed=progressed, silence=silence)


def test_a_run_is_hung_after_its_own_silence_and_not_while_it_gets_ahead() -> None:
    watch = Watch()
    assert not any(watch.look(beat(float(second)), float(second)) for second in range(100))
    assert not any(watch.look(beat(99.0), 99.0 + second) for second in range(1, 31))
    assert watch.look(beat(99.0), 130.0)
    assert watch.words == "no progress for 1 min"


def test_an_unknown_silence_never_counts_as_hung() -> None:
    watch = Watch()
    assert not any(watch.look(beat(0.0, silence=0.0), float(second)) for second in range(100_000))


def test_processes_of_a_run_that_has_said_its_end_have_five_minutes() -> None:
    watch = Watch()
    failed = Status(phase="failed", time=0.0, pid=1, progressed=7.0, silence=silence("failed", []))
    assert not any(watch.look(failed, float(second)) for second in range(301))
    assert watch.look(failed, 301.0)


def test_a_run_without_a_first_heartbeat_has_half_an_hour() -> None:
    watch = Watch()
    assert not any(watch.look(None, float(second)) for second in range(1801))
    assert watch.look(None, 1801.0)


def test_seconds_in_which_the_launcher_was_stopped_do_not_count() -> None:
    watch = Watch()
    watch.look(beat(1.0), 0.0)
    assert not watch.look(beat(1.0), 1_000_000.0)  # somebody pressed Ctrl-Z
    assert watch.silent == MOST_BETWEEN_LOOKS


def test_a_heartbeat_that_cannot_be_read_is_no_silence() -> None:
    watch = Watch()
    watch.look(beat(1.0), 0.0)
    assert not any(watch.look(None, float(second)) for second in range(10_000))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_only_processes_that_answer_are_asked_for_their_stacks() -> None:
    code = "import signal, sys\n{}print('ready', flush=True); sys.stdin.read()"
    handles = "signal.signal(signal.SIGQUIT, lambda *_: None)\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(line)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for line in (handles, "")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert catching([process.pid for process in processes]) == [processes[0].pid]
    finally:
        for process in processes:
            process.communicate()


def test_the_log_gets_what_each_rank_printed_since_it_was_asked(tmp_path: Path) -> None:
    run, watch = RunDir(tmp_path), Watch(silent=720.0)
    outputs = [tmp_path / "7_0_log.out", tmp_path / "7_1_log.out"]
    outputs[0].write_text("before\n")
    watch.ask_for_stacks(outputs, [], 0.0)
    outputs[0].write_text("before\nThread 0x1:\n  File a\n")
    note_hang(run, watch, "it starts again")
    lines = run.log.read_text().splitlines()
    assert lines[0].endswith(" WARNING harness: no progress for 12 min; its processes were ended; it starts again")
    assert lines[1:] == [
        "stacks of rank 0:",
        "Thread 0x1:",
        "  File a",
        "stacks of rank 1:",
        "it printed none",
    ]


def test_the_point_is_the_newest_checkpoint_and_the_finished_evaluations(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert point(run) == ("the beginning",)
    run.checkpoints.mkdir()
    for name in ("0000002.pt", "0000010.pt"):
        (run.checkpoints / name).touch()
    assert point(run) == ("0000010.pt",)
    run.final.touch()
    (tmp_path / "evals" / "b").mkdir(parents=True)
    (tmp_path / "evals" / "b" / "record.json").touch()
    assert point(run) == ("final.pt", "b")


@pytest.fixture
def hanging(job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Starts that all hang. saves: at which of them a checkpoint is new. ends: the phase that a start leaves."""
    assignment = micro_assignment(job, tmp_path / "runs" / job.train.id, tmp_path)
    run = RunDir(Path(assignment.run_dir))
    case = SimpleNamespace(assignment=assignment, run=run, starts=0, saves=(), ends="training")

    def start(item: Assignment, slot: Slot) -> _Active:
        case.starts += 1
        write_json(run.status, Status(phase=case.ends, time=1e12, pid=1, message="said", silence=300.0))
        if case.starts in case.saves:
            run.checkpoints.mkdir(exist_ok=True)
            (run.checkpoints / f"{case.starts:07d}.pt").touch()
        fake = SimpleNamespace(done=lambda: True, job_id="0", paths=SimpleNamespace(stdout=run.log))
        return _Active(item, run, fake, slot, 0.0, watch=Watch(silent=360.0, hung=0.0))

    monkeypatch.setattr(launch, "_start", start)
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(launch, "end_processes", lambda pids: None)
    monkeypatch.setattr(launch, "terminate", lambda jobs: False)
    return case


def test_a_run_that_hangs_is_started_again_three_times_from_the_same_point(hanging: SimpleNamespace) -> None:
    view = View()
    (failure,) = run_local([hanging.assignment], [Slot(())], view)
    assert hanging.starts == 4
    assert failure.message == "no progress for 6 min; so it was after 4 starts from the beginning"
    assert not failure.stopped
    status = hanging.run.read_status()
    assert status is not None
    assert (status.phase, status.message) == ("failed", failure.message)
    assert view.said[0] == (
        "no progress for 6 min; it starts again from the beginning (1 of at most 3 times from there); "
        f"the stacks of its processes are in {hanging.run.log}"
    )
    assert view.said[-1] == f"failed: {failure.message}"
    assert hanging.run.log.read_text().count("stacks") == 0  # no output was there to copy
    assert hanging.run.log.read_text().count("no progress for 6 min") == 4


def test_a_run_that_got_further_between_hangs_has_three_new_starts(hanging: SimpleNamespace) -> None:
    hanging.saves = (3,)
    (failure,) = run_local([hanging.assignment], [Slot(())], View())
    assert hanging.starts == 6  # 2 from the beginning, then 4 from the checkpoint that the third start left
    assert failure.message.endswith("after 4 starts from 0000003.pt")


def test_a_hung_run_that_was_cancelled_is_not_started_again(hanging: SimpleNamespace) -> None:
    def cancel(text: str) -> None:
        note_cancelled(hanging.run.root.parent, [hanging.assignment.train])

    view = View()
    view.note = lambda train_id, text: cancel(text)  # type: ignore[method-assign]
    (failure,) = run_local([hanging.assignment], [Slot(())], view)
    assert hanging.starts == 1
    assert failure.message == "cancelled before it started"
    assert failure.stopped


def test_a_run_that_was_cancelled_while_it_hung_is_stopped_and_not_failed(hanging: SimpleNamespace) -> None:
    view = View()
    view.update = lambda train_id, status: note_cancelled(  # type: ignore[method-assign]
        hanging.run.root.parent, [hanging.assignment.train]
    )
    (failure,) = run_local([hanging.assignment], [Slot(())], view)
    assert (hanging.starts, failure.stopped, failure.message) == (1, True, "no progress for 6 min; cancelled")
    status = hanging.run.read_status()
    assert status is not None
    assert status.phase == "stopped"


def test_a_run_that_has_said_its_end_before_it_was_killed_is_believed(hanging: SimpleNamespace) -> None:
    hanging.ends = "failed"
    (failure,) = run_local([hanging.assignment], [Slot(())], View())
    assert (hanging.starts, failure.message) == (1, "said")


class Hangs:
    """A worker whose first start gets no further, and whose second writes its record."""

    def __init__(self, assignment: Assignment) -> None:
        self.folder = assignment.run_dir
        self.record, self.path = RECORD

    def __call__(self) -> None:
        import faulthandler
        import signal
        import time
        from pathlib import Path

        from detector.runs.folder import RunDir
        from detector.runs.status import Status
        from detector.storage.files import write_atomic, write_json

        run, first = RunDir(Path(self.folder)), Path(self.folder, "first")
        if first.exists():
            write_atomic(Path(self.path), self.record)
            return
        first.touch()
        faulthandler.register(signal.SIGQUIT, all_threads=True)
        write_json(run.status, Status(phase="training", time=time.time(), pid=1, progressed=1.0, silence=0.2))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        wait_for_ever()


def wait_for_ever() -> None:
    import time

    while True:
        time.sleep(1)


RECORD: tuple[bytes, str] = (b"", "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the children")
def test_a_hung_process_prints_its_stack_is_ended_and_the_run_goes_on(
    job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cloudpickle  # what submitit pickles with: by value, so that the child needs no tests package

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(launch, "Worker", Hangs)
    monkeypatch.setattr(launch, "STACKS_SECONDS", 0.5)
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.1)
    run, view = RunDir(tmp_path / "runs" / job.train.id), View()
    monkeypatch.setattr(sys.modules[__name__], "RECORD", (msgspec.json.encode(record_of(job)), str(run.record(job.id))))
    assert run_local([micro_assignment(job, run.root, tmp_path)], [Slot(())], view) == []
    log = run.log.read_text()
    assert "stacks of rank 0:" in log
    assert "wait_for_ever" in log
    assert view.said[-1] == "done"
    assert not run.submitit.exists()  # a finished run has no use for it


def test_a_note_that_a_run_was_cancelled_counts_until_it_is_started_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "0123456789abcdef")
    assert cancellation(run) is None
    note_cancelled_run(run)
    noted = cancellation(run)
    assert noted is not None
    assert noted.time > 0
    assert not run.root.exists()
    forget_cancelled_run(run)
    assert cancellation(run) is None
