"""``harness clean``: what goes, and that nothing else does, over a made-up runs folder with a run of every state."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.launch.clean import finished
from harness.launch.clean.files import find_items
from harness.launch.clean.finished import RunsFolder
from harness.launch.clean.remove import remove
from harness.launch.lease import leasing
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, submission_file, transport_folder
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import error, invoke

TINY = ("--profile", "tiny")
OLD = time.time() - 30 * 86_400
KEPT = ("job.json", "log.txt", "metrics.jsonl", "status.json", "final.pt", "record.json", "detections.json.gz")


class Queue:
    """Stands in for Slurm's; ``phases`` by training id."""

    def __init__(self) -> None:
        self.phases: dict[str, SchedulerState] = {}

    def states(self, run: RunDir) -> SchedulerState | None:
        return self.phases.get(run.root.name)


class Made:
    """A runs folder. Runs are seeds of table2/L6, by a word."""

    def __init__(self, root: Path) -> None:
        self.experiments = write_experiments(root / "experiments")
        self.runs = root / "runs"
        self.by_word: dict[str, RunDir] = {}
        self.queue = Queue()

    def run(self, word: str, phase: str = "done", *, recorded: bool = True) -> RunDir:
        job = micro_job(self.experiments, "table2/L6", len(self.by_word))
        run = self.by_word[word] = RunDir(self.runs / job.train.id)
        write_json(run.job, job.train)
        write_json(run.status, Status(phase=phase, time=1.0, pid=1, message="said"))  # type: ignore[arg-type]
        if recorded:
            write_json(run.record(job.id), record_of(job))
            run.detections(job.id).write_bytes(b"found")
        run.checkpoints.mkdir()
        run.tensorboard.mkdir()
        run.submitit.mkdir()
        for name in ("0000002.pt", "0000400.pt", "final.pt", "mine.pt", ".0000400.pt.0123.tmp"):
            (run.checkpoints / name).write_bytes(b"w" * 5000)
        for name in ("events.out.tfevents.1", "events.out.tfevents.2"):
            (run.tensorboard / name).write_bytes(b"e" * 100)
        for name in ("7_0_log.out", "7_submitted.pkl", "7_0_result.pkl", "notes of mine.txt"):
            (run.submitit / name).write_text("x")
        run.log.write_text("a line\n")
        run.metrics.write_text('{"iteration": 10, "loss": 1.5}\n')
        (run.root / ".lock").touch()
        return run

    def submission(self, token: str, *words: str, code: str = "c" * 64, state: str = "submitted") -> Path:
        runs = tuple(self.by_word[word].root.name for word in words)
        entry = Submission(
            token=token,
            cluster="c",
            runs=runs,
            time=OLD,
            code=code,
            state=state,  # type: ignore[arg-type]
            job_id="17",
        )
        write_json(submission_file(self.runs, token), entry)
        folder = transport_folder(self.runs, token)
        folder.mkdir()
        (folder / "job.sh").write_text("#!/bin/bash\n")
        for index in range(len(runs)):
            for name in (f"task-{index}.json", f"task-{index}.ends", f"17_{index}_0_log.out", f"17_{index}_1_log.out"):
                (folder / name).write_text("x")
        return folder

    def snapshot(self, letter: str, *, old: bool = True) -> Path:
        folder = self.runs / "code" / (letter * 64)
        (folder / "harness").mkdir(parents=True)
        (folder / "harness" / "a.py").write_text("a")
        if old:
            os.utime(folder, (OLD, OLD))
        return folder

    def found(self, **options: object) -> set[str]:
        items = find_items(RunsFolder(self.runs), **options)  # type: ignore[arg-type]
        words = {run.root.name: word for word, run in self.by_word.items()}
        names = (str(item.path.relative_to(self.runs)) for item in items)
        return {"/".join([words.get(name.split("/")[0], name.split("/")[0]), *name.split("/")[1:]]) for name in names}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> Made:
    made = Made(tmp_path)
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(made.experiments))
    monkeypatch.setattr(finished, "look_at_queue", lambda runs: made.queue)
    return made


def of_run(word: str) -> set[str]:
    return {
        f"{word}/{name}"
        for name in (
            *("checkpoints/0000002.pt", "checkpoints/0000400.pt", "checkpoints/.0000400.pt.0123.tmp"),
            *("tensorboard/events.out.tfevents.1", "tensorboard/events.out.tfevents.2"),
            *("submitit/7_0_log.out", "submitit/7_submitted.pkl", "submitit/7_0_result.pkl"),
        )
    }


def test_of_a_finished_run_what_was_for_its_way_can_go(made: Made) -> None:
    made.run("done")
    assert made.found() == of_run("done")


def test_a_single_tensorboard_file_stays(made: Made) -> None:
    (made.run("done").tensorboard / "events.out.tfevents.1").unlink()
    assert not [name for name in made.found() if "tensorboard" in name]


@contextmanager
def _locked(made: Made, run: RunDir) -> Iterator[None]:
    with run.lock():
        yield


@contextmanager
def _leased(made: Made, run: RunDir) -> Iterator[None]:
    with leasing(made.runs, [run.root.name]):
        yield


def _status(**changes: object) -> Callable[[Made, RunDir], None]:
    def change(made: Made, run: RunDir) -> None:
        write_json(run.status, Status(**{"phase": "done", "time": 1.0, "pid": 1, **changes}))  # type: ignore[arg-type]

    return change


def _queued(phase: str) -> Callable[[Made, RunDir], None]:
    def change(made: Made, run: RunDir) -> None:
        made.submission("t-0", "this")
        made.queue.phases[run.root.name] = SchedulerState(phase)  # type: ignore[arg-type]

    return change


def _open_evaluation(made: Made, run: RunDir) -> None:
    (run.root / "evals" / ("e" * 16)).mkdir()


def _damaged(made: Made, run: RunDir) -> None:
    next(run.root.glob("evals/*/record.json")).write_text("{")


def _linked(made: Made, run: RunDir) -> None:
    elsewhere = made.runs.parent / "elsewhere"
    run.root.rename(elsewhere)
    run.root.symlink_to(elsewhere)


KEPT_WHOLE: dict[str, Callable] = {
    "somebody works on it here": _locked,
    "a launcher will work on it": _leased,
    "its heartbeat is fresh, perhaps on another machine": _status(phase="evaluating", time=time.time() + 60),
    "its heartbeat cannot be read": lambda made, run: run.status.write_text("{"),
    "it has no heartbeat": lambda made, run: run.status.unlink(),
    "its weights are gone": lambda made, run: run.final.unlink(),
    "it has no record": lambda made, run: next(run.root.glob("evals/*/record.json")).unlink(),
    "its record is damaged": _damaged,
    "an evaluation is wanted": _open_evaluation,
    "its folder is a link": _linked,
    "it waits in the queue": _queued("pending"),
    "it is held": _queued("held"),
    "it runs on the cluster": _queued("running"),
    "it is being submitted": _queued("submitting"),
    "the queue does not answer for it": _queued("unknown"),
    "the queue says nothing of a job that it has": lambda made, run: bool(made.submission("t-0", "this")),
}


@pytest.mark.parametrize("why", KEPT_WHOLE)
def test_a_run_that_is_not_done_for_good_is_left_alone(made: Made, why: str) -> None:
    run = made.run("this")
    with ExitStack() as stack:
        if isinstance(changed := KEPT_WHOLE[why](made, run), AbstractContextManager):
            stack.enter_context(changed)
        assert not [name for name in made.found() if name.startswith(("this", "submissions"))]


@pytest.mark.parametrize("phase", ["failed", "stopped", "training"])
def test_a_run_that_did_not_end_well_is_left_alone(made: Made, phase: str) -> None:
    made.run("this", phase, recorded=False)
    assert made.found() == set()


def test_of_submissions_what_belongs_to_runs_that_are_done_can_go(made: Made) -> None:
    for word in ("a", "b"):
        made.run(word)
    made.run("failed", "failed", recorded=False)
    made.submission("both-0", "a", "b")
    made.submission("mixed-0", "failed", "a")
    made.submission("wait-0", "b", state="submitting")
    made.queue.phases = {run.root.name: SchedulerState("gone") for run in made.by_word.values()}
    found = {name for name in made.found() if name.startswith("submissions")}
    mixed = {"task-1.json", "task-1.ends", "17_1_0_log.out", "17_1_1_log.out"}
    assert found == {"submissions/both-0", *(f"submissions/mixed-0/{name}" for name in mixed)}


def test_snapshots_that_no_job_uses_can_go(made: Made) -> None:
    made.run("done")
    made.run("waits", "failed", recorded=False)
    made.submission("living-0", "waits", code="a" * 64)
    made.submission("over-0", "done", code="b" * 64)
    made.queue.phases = {
        made.by_word["done"].root.name: SchedulerState("gone"),
        made.by_word["waits"].root.name: SchedulerState("pending"),
    }
    for letter in "abc":
        made.snapshot(letter)
    made.snapshot("d", old=False)  # somebody is about to submit from it
    (made.snapshot("e") / "mine").mkdir()
    os.utime(made.runs / "code" / ("e" * 64), (OLD, OLD))
    assert {name for name in made.found() if name.startswith("code")} == {f"code/{letter * 64}" for letter in "bc"}


def test_notes_go_when_no_launcher_is_at_work_any_more(made: Made) -> None:
    folder = made.runs / "cancelled"
    folder.mkdir(parents=True)
    for name in ("0" * 16, f"{'1' * 16}.json", "2" * 16, "mine"):
        (folder / name).write_text("1")
        if not name.startswith("2"):
            os.utime(folder / name, (OLD, OLD))
    with leasing(made.runs, []):
        assert made.found() == set()
    assert made.found() == {f"cancelled/{'0' * 16}", f"cancelled/{'1' * 16}.json"}


def test_nothing_is_removed_through_a_link(made: Made) -> None:
    run, elsewhere = made.run("done"), made.runs.parent / "big disk"
    run.checkpoints.rename(elsewhere)
    run.checkpoints.symlink_to(elsewhere)
    (run.submitit / "8_0_log.out").symlink_to(elsewhere / "0000002.pt")
    found = made.found()
    assert not [name for name in found if "checkpoints" in name or "8_0" in name]
    remove(made.runs, find_items(RunsFolder(made.runs)))
    assert (elsewhere / "0000002.pt").exists()


def test_what_was_of_no_use_when_it_was_listed_but_is_now_stays(made: Made) -> None:
    run = made.run("done")
    items = find_items(RunsFolder(made.runs))
    with run.lock():
        assert remove(made.runs, items) == []
    made.queue.phases[run.root.name] = SchedulerState("pending")
    assert remove(made.runs, items) == []
    made.queue.phases.clear()
    assert len(remove(made.runs, items)) == len(of_run("done"))


def everything(runs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("*")) if path.is_file()}


def test_after_it_records_weights_states_and_tables_are_as_before(made: Made) -> None:
    for word in ("a", "b", "c"):
        made.run(word)
    made.run("failed", "failed", recorded=False)
    made.run("stopped", "stopped", recorded=False)
    made.submission("over-0", "a", "failed", state="ended")
    made.snapshot("f")
    replaced = made.runs / f"{made.by_word['a'].root.name}.replaced-20240501T000000"
    made.run("old").root.rename(replaced)
    shown = (("status", "table2/L6", *TINY, "--seeds", "7"), ("status", *TINY), ("table", "table2", *TINY, "--json"))
    before = [invoke(*words).stdout for words in shown]
    kept = everything(made.runs)

    listed = invoke("clean").stdout
    assert "Nothing was removed. To remove it: harness clean --yes" in listed
    assert everything(made.runs) == kept
    told = json.loads(invoke("clean", "--json").stdout)
    said = json.loads(invoke("clean", "--yes", "--json").stdout)
    assert said == told | {"removed": True}
    assert said["bytes"] > 0

    assert [invoke(*words).stdout for words in shown] == before
    left = everything(made.runs)
    gone = kept.keys() - left.keys()
    assert len(gone) == said["files"] > 3 * len(of_run("a"))
    assert left.pop("submissions/.lock") == b""
    assert all(kept[name] == content for name, content in left.items())
    unfinished = [made.by_word[word].root.name for word in ("failed", "stopped")]
    assert not [name for name in gone if name.endswith(KEPT) or name.startswith((*unfinished, replaced.name))]
    assert "17_1_0_log.out" in {Path(name).name for name in left}  # what the failed run printed
    assert invoke("clean", "--yes").stdout == f"Nothing was removed in {made.runs}.\n"


def test_replaced_folders_go_only_when_they_are_asked_for(made: Made) -> None:
    run = made.run("done")
    folder = run.root.rename(run.root.with_name(f"{run.root.name}.replaced-20240501T000000"))
    assert made.found() == set()
    with RunDir(folder).lock():
        assert made.found(replaced=True) == set()
    assert made.found(replaced=True) == {folder.name}
    assert "clean --replaced --yes" in invoke("clean", "--replaced").stdout
    assert "replaced runs" in invoke("clean", "--replaced", "--yes").stdout
    assert not folder.exists()


def test_a_target_limits_it_to_what_is_of_its_runs_alone(made: Made) -> None:
    made.run("a")
    made.run("b")
    made.snapshot("f")
    made.submission("over-0", "a", "b", state="ended")
    assert invoke("clean", "table2/focal", *TINY).stdout == f"Nothing can go in {made.runs}.\n"
    data = json.loads(invoke("clean", "table2/L6", "table3", *TINY, "--json").stdout)
    assert {item["kind"] for item in data["items"]} == {
        *("files of submissions", "checkpoints before the last", "TensorBoard pieces"),
        *("files of launchers", "half-written files"),
    }
    assert made.found(wanted={made.by_word["a"].root.name}) == of_run("a")
    assert "--profile goes with a target" in error("clean", *TINY)


def test_a_submission_that_cannot_be_read_stops_it(made: Made) -> None:
    made.run("done")
    made.snapshot("f")
    (made.runs / "submissions").mkdir()
    (made.runs / "submissions" / "x-0.json").write_text("{")
    assert "cannot be read as Submission" in error("clean", "--yes")
