"""The batch script with stand-ins for Slurm's programs: what it does when its processes end, hang, or are ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.slurm.batch.script import ArrayPlan, Shape, batch_script
from harness.slurm.clusters import Cluster, Fallback

PROJECT = Path(__file__).resolve().parents[4]
RUNNING = "JobId=17 JobState=RUNNING Reason=None StartTime=2030-01-01T10:00:00 PreemptTime=None"
PREEMPTED = "JobId=17 JobState=COMPLETING Reason=None StartTime=2030-01-01T10:00:00 PreemptTime=2030-01-01T11:00:00"
CANCELLED = "JobId=17 JobState=COMPLETING Reason=None StartTime=2030-01-01T10:00:00 PreemptTime=None"
OUT_OF_TIME = "JobId=17 JobState=COMPLETING Reason=TimeLimit StartTime=2030-01-01T10:00:00 PreemptTime=None"
# srun keeps its options from the process that it starts; scontrol requeue is what ends the script, as in Slurm.
SRUN = """#!/bin/bash
echo "srun $*" >>"$CALLS"
while [[ $1 == --* ]]; do shift; done
exec env --default-signal=QUIT,INT "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >>"$CALLS"
case $1 in
  show) cat "$STATE" ;;
  requeue) [[ -e $REFUSE ]] && { cat "$REFUSE" >&2; exit 1; }; pkill -KILL -g 0 ;;
esac
"""
OTHER = '#!/bin/bash\necho "${0##*/} $*" >>"$CALLS"\necho 18\n'
SCANCEL = '#!/bin/bash\necho "scancel $*" >>"$CALLS"\npkill "$1" -f "$TASK"\ntrue\n'.replace(
    '"$1"', '"-${1#--signal=}"'
)


@dataclass
class Job:
    """A job's folders. worker: a shell script in the place of the processes of the run; $1 is the task's file."""

    root: Path
    cluster: Cluster

    @property
    def run(self) -> Path:
        return self.root / "runs" / "0123456789abcdef"

    @property
    def folder(self) -> Path:
        return self.root / "runs" / "submissions" / "abc-0"

    @property
    def ends(self) -> Path:
        return self.folder / "task-0.ends"

    def start(self, worker: str, *, state: str = RUNNING, refuse: str = "") -> subprocess.Popen[bytes]:
        for folder in (self.folder, self.run / "checkpoints"):
            folder.mkdir(parents=True, exist_ok=True)
        tools = self.root / "bin"
        tools.mkdir(exist_ok=True)
        texts = {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL, "sbatch": OTHER}
        for name, text in {**texts, "worker": f"#!/bin/bash\n{worker}\n"}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        (self.root / "state").write_text(f"{state} \n")
        if refuse:
            (self.root / "refuse").write_text(refuse)
        plan = ArrayPlan(
            token="abc-0",
            cluster=self.cluster,
            shape=Shape(1, 1, False, 1, None),
            names=("table2-L6-s0",),
            run_folders=(self.run,),
            folder=self.folder,
            code=PROJECT,
            most_at_once=1,
            worker=(str(tools / "worker"),),
        )
        script = self.root / "job-17.sh"
        text = batch_script(plan).replace("watch_seconds=10", "watch_seconds=1")
        # The worker in the place of Python; Python itself for what the script asks it.
        script.write_text(text.replace('"${python[@]}" "${worker[@]}"', '"${worker[@]}"'))
        with (self.root / "said").open("w") as output:
            return subprocess.Popen(
                ["bash", str(script)], env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def end(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for the script, end what it left, and return what it said."""
        process.wait(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return (self.root / "said").read_text()

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(self.root / "calls"),
            "STATE": str(self.root / "state"),
            "REFUSE": str(self.root / "refuse"),
            "TASK": str(self.folder / "task-0.json"),
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_PARTITION": "main",
            "STATUS": str(self.run / "status.json"),
        }

    def finish(self, worker: str, *, state: str = RUNNING, refuse: str = "") -> str:
        return self.end(self.start(worker, state=state, refuse=refuse))

    @property
    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def is_queued_again(self) -> bool:
        return "scontrol requeue 17" in self.calls


@pytest.fixture
def job(tmp_path: Path) -> Job:
    if shutil.which("pkill") is None:
        pytest.skip("pkill is not installed")
    return Job(tmp_path, Cluster(name="c", title="t", time_minutes=60, python=sys.executable))


def says(**values: Any) -> str:
    """Shell: the worker writes its heartbeat, as text that ``write_json`` makes of it. It got ahead just now."""
    status = Status(**{"time": 0.0, "pid": 1, "job": "17", **values, "progressed": 0.5})
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "status.json", status)
        text = (Path(folder) / "status.json").read_text()
    return f"printf '%s' '{text}' | sed 's/\"progressed\": 0.5/\"progressed\": '$(date +%s.%N)'/' >$STATUS"


STOPPED_BY_TIME = f"{says(phase='stopped', left='time')}\nexit 130"


def test_a_run_that_is_done_ends_the_job(job: Job) -> None:
    said = job.finish("exit 0")
    assert "harness: start 1" in said
    assert not job.is_queued_again
    assert "scontrol update JobId=17 JobName=table2-L6-s0" in job.calls


def test_a_run_whose_time_is_nearly_up_is_queued_again(job: Job) -> None:
    (job.run / "checkpoints").mkdir(parents=True)
    (job.run / "checkpoints" / "0000400.pt").touch()
    job.finish(STOPPED_BY_TIME)
    assert job.is_queued_again
    assert job.ends.read_text() == "time 0000400.pt\n"
    assert "the time was nearly up; queued again (1 of at most 100)" in (job.run / "log.txt").read_text()


def test_starts_that_end_by_their_time_limit_at_one_point_are_given_up(job: Job) -> None:
    job.folder.mkdir(parents=True)
    job.ends.write_text("time \npreempted \ntime \ntime \n")
    said = job.finish(STOPPED_BY_TIME)
    assert "given up: 3 starts in a row ended by their time limit at the same point (no checkpoint)" in said
    assert not job.is_queued_again


def test_preemption_without_grace_is_queued_again_at_once(job: Job) -> None:
    process = job.start("sleep 30")
    wait_for(lambda: any(call.startswith("srun") for call in job.calls))
    (job.root / "state").write_text(f"{PREEMPTED} \n")
    process.send_signal(signal.SIGTERM)
    job.end(process)
    assert job.is_queued_again
    assert job.ends.read_text().startswith("preempted ")


def test_preemption_with_grace_waits_for_the_run_to_save(job: Job) -> None:
    process = job.start(
        f"at_end() {{ {says(phase='stopped', left='asked')}; sleep 1; touch $CALLS.saved; exit 130; }}\n"
        "trap at_end TERM\ntouch $CALLS.ready\nsleep 30 & wait"
    )
    wait_for((job.root / "calls.ready").exists)
    (job.root / "state").write_text(f"{PREEMPTED.replace('COMPLETING', 'RUNNING')} \n")
    process.send_signal(signal.SIGTERM)
    subprocess.run(["pkill", "-TERM", "-f", str(job.folder / "task-0.json")], check=False)
    job.end(process)
    assert (job.root / "calls.saved").exists()
    assert job.is_queued_again


def test_the_time_limit_itself_is_queued_again(job: Job) -> None:
    process = job.start("sleep 30")
    wait_for(lambda: any(call.startswith("srun") for call in job.calls))
    (job.root / "state").write_text(f"{OUT_OF_TIME} \n")
    process.send_signal(signal.SIGTERM)
    job.end(process)
    assert job.is_queued_again
    assert job.ends.read_text().startswith("time ")


def test_a_cancelled_run_is_not_queued_again(job: Job) -> None:
    process = job.start("trap 'exit 130' TERM\ntouch $CALLS.ready\nsleep 30 & wait")
    wait_for((job.root / "calls.ready").exists)
    (job.root / "state").write_text(f"{CANCELLED} \n")
    process.send_signal(signal.SIGTERM)
    subprocess.run(["pkill", "-TERM", "-f", str(job.folder / "task-0.json")], check=False)
    job.end(process)
    assert process.returncode == 130
    assert not job.is_queued_again
    assert not job.ends.exists()


@pytest.mark.slow
def test_a_run_that_hangs_shows_its_stacks_and_is_queued_again(job: Job) -> None:
    job.cluster = Cluster(name="c", title="t", time_minutes=60, python=sys.executable, max_retries=1)
    job.folder.mkdir(parents=True)
    worker = hangs_after(job, phase="training")
    job.finish(worker)
    log = (job.run / "log.txt").read_text()
    assert "no progress for 0 min 3 s; the stacks of its processes follow" in log
    assert "rank 0:\nthe stack" in log
    assert "retry 1 of at most 1 from here" in log
    assert job.is_queued_again
    (job.root / "calls").unlink()
    said = job.finish(worker)
    assert "given up: no progress in 1 retry" in said
    assert not job.is_queued_again


def hangs_after(job: Job, **said: Any) -> str:
    """A worker that writes its heartbeat, prints its stack when it is asked, and does no more."""
    return "\n".join(
        [
            f"exec >>{job.folder}/17_0_log.out 2>&1",
            "trap 'echo the stack' QUIT",
            says(**said, silence=2.0),
            "while true; do sleep 0.2; done",
        ]
    )


@pytest.mark.slow
def test_a_run_that_is_done_is_not_queued_again_where_its_processes_hang_as_they_leave(job: Job) -> None:
    process = job.start(hangs_after(job, phase="done"))
    job.end(process)
    assert process.returncode == 0
    assert not job.is_queued_again
    log = (job.run / "log.txt").read_text()
    assert "done, but its processes did not end for 0 min 3 s; the stacks of its processes follow" in log
    assert "rank 0:\nthe stack" in log


@pytest.mark.slow
def test_a_run_that_has_stopped_for_its_time_is_queued_again_where_its_processes_hang(job: Job) -> None:
    job.finish(hangs_after(job, phase="stopped", left="time"))
    assert job.is_queued_again
    assert job.ends.read_text() == "time \n"
    assert "stopped, but its processes did not end for 0 min 3 s" in (job.run / "log.txt").read_text()


@pytest.mark.slow
def test_a_run_that_has_failed_tells_its_failure_where_its_processes_hang(job: Job) -> None:
    job.finish(hangs_after(job, phase="failed", message="DataError: images are missing"))
    assert not job.is_queued_again
    status = RunDir(job.run).read_status()
    assert status is not None
    assert status.message == "DataError: images are missing"


def test_a_run_that_is_done_ends_the_job_however_its_processes_end(job: Job) -> None:
    process = job.start(f"{says(phase='done')}\nkill -SEGV $$")
    job.end(process)
    assert process.returncode == 0
    assert not job.is_queued_again


@pytest.mark.slow
def test_a_run_that_gets_ahead_is_left_alone(job: Job) -> None:
    steps = "\n".join(f"{says(phase='training', silence=2.0)}\nsleep 1.5" for number in range(4))
    job.finish(f"{steps}\nexit 0")
    assert not job.is_queued_again
    assert not any(call.startswith("scancel") for call in job.calls)


def test_a_job_that_cannot_be_queued_again_goes_on_as_another(job: Job) -> None:
    said = job.finish(STOPPED_BY_TIME, refuse="Requested operation is presently disabled")
    assert "it goes on as job 18_0" in said
    assert f"sbatch --parsable --array=0 {job.folder}/job.sh" in job.calls


def test_after_some_preemptions_the_run_goes_on_in_the_other_partition(job: Job) -> None:
    job.cluster = Cluster(
        name="c", title="t", time_minutes=60, python=sys.executable, fallback=Fallback(partition="paid", after=2)
    )
    job.folder.mkdir(parents=True)
    job.ends.write_text("preempted \n")
    said = job.finish("exit 130", state=PREEMPTED)
    assert "from now on in partition paid" in said
    assert f"sbatch --parsable --array=0 --partition=paid {job.folder}/job.sh" in job.calls
    assert not job.is_queued_again


def test_the_most_requeues_hold_for_every_cause(job: Job) -> None:
    job.cluster = Cluster(name="c", title="t", time_minutes=60, python=sys.executable, max_requeues=2)
    job.folder.mkdir(parents=True)
    job.ends.write_text("preempted a\ntime b\n")
    said = job.finish(STOPPED_BY_TIME)
    assert "not queued again: it was 2 times, the most that the cluster file allows (max_requeues)" in said
    assert not job.is_queued_again


def test_a_setup_line_that_fails_ends_the_job_by_name(job: Job) -> None:
    job.cluster = Cluster(name="c", title="t", time_minutes=60, python=sys.executable, setup=("true", "false # here"))
    process = job.start("exit 0")
    said = job.end(process)
    assert process.returncode != 0
    assert "harness: setup failed: false (exit code 1)" in said
    assert not job.calls


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
