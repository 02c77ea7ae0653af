"""What the fault campaign calls lost, doubled and differing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace

from benchmarks.faults.report import make_row
from benchmarks.faults.scene import LOGGED, iterations_again
from benchmarks.faults.trial import Trial
from benchmarks.faults.verdict import Course, JobTimes, Reference, judge, logged_iterations, reference_of
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.log_lines import FINAL_AP, STARTED, of_worker, resumed_after, stopped_at
from detector.training.metrics import MetricsLog
from detector.weights import checkpoint
from support.micro import micro_job, write_experiments
from support.records import record_of

WEIGHTS = torch.tensor([1.0, 2.0])
TIME = "2026-01-01 00:00:00,000"
AP_LINE = f"{TIME}{of_worker('INFO', FINAL_AP)}23.4\n"
AP_SO_FAR = f"{TIME}{of_worker('INFO')}after iteration 20: AP 12.3\n"
START = f"{TIME}{of_worker('INFO', STARTED)}0123: 24 images, 150 iterations\n"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    return micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))


@pytest.fixture
def runs(job: EvalJob, tmp_path: Path) -> Path:
    """A runs folder with one finished run in it."""
    run = RunDir(tmp_path / "runs" / job.train.id)
    checkpoint.save(run.final, {"model": {"w": WEIGHTS}})
    run.metrics.write_text('{"iteration": 5}\n{"iteration": 10}\n')
    run.log.write_text(AP_SO_FAR + AP_LINE)
    write_record(run, job)
    return tmp_path / "runs"


@pytest.fixture
def reference(runs: Path) -> Reference:
    return reference_of(runs, Course(3.0, 5.0, 6.0))


def resumed(iteration: int) -> str:
    return f"{TIME} INFO detector.training.state: {resumed_after(iteration)}\n"


def write_record(run: RunDir, job: EvalJob) -> None:
    run.record(job.id).parent.mkdir(parents=True, exist_ok=True)
    run.record(job.id).write_bytes(msgspec.json.encode(record_of(job)))


def test_judge_finds_no_harm_in_an_equal_run(runs: Path, reference: Reference) -> None:
    assert reference.logged == [5, 10]
    assert judge(runs, reference).is_good
    after = [JobTimes("1", 100.0, 200.0), JobTimes("2", 200.0, 300.0)]
    assert judge(runs, reference, after).is_good


def test_judge_calls_a_run_without_a_record_lost(runs: Path, job: EvalJob, reference: Reference) -> None:
    RunDir(runs / job.train.id).record(job.id).unlink()
    verdict = judge(runs, reference)
    assert (verdict.lost, verdict.doubled, verdict.differing) == ("no record", "", "")


def test_judge_calls_two_records_doubled(runs: Path, job: EvalJob, reference: Reference) -> None:
    write_record(RunDir(runs / ("0" * 16)), job)
    assert judge(runs, reference).doubled == "2 records"


def test_judge_calls_a_second_evaluation_doubled(runs: Path, job: EvalJob, reference: Reference) -> None:
    RunDir(runs / job.train.id).log.write_text(AP_LINE * 2)
    assert judge(runs, reference).doubled == "2 evaluations to a record"


def test_judge_calls_two_jobs_at_once_doubled(runs: Path, reference: Reference) -> None:
    jobs = [JobTimes("2", 150.0, float("inf")), JobTimes("1", 100.0, 200.0)]
    assert judge(runs, reference, jobs).doubled == "jobs 1 and 2 at once"


def test_judge_calls_one_other_bit_of_the_weights_differing(runs: Path, job: EvalJob, reference: Reference) -> None:
    other = torch.tensor([1.0, 2.0000002])
    assert not torch.equal(other, WEIGHTS)
    checkpoint.save(RunDir(runs / job.train.id).final, {"model": {"w": other}})
    assert judge(runs, reference).differing.startswith("weights: w")


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('{"iteration": 10}\n', "[5]"),
        ('{"iteration": 5}\n{"iteration": 10}\n{"iteration": 15}\n', "[15]"),
        ('{"iteration": 5}\n{"iteration": 5}\n{"iteration": 10}\n', "in another order"),
        ('{"iteration": 10}\n{"iteration": 5}\n', "in another order"),
        ('{"iteration": 5}\n{"itera', "Unterminated"),
    ],
)
def test_judge_calls_another_log_of_losses_differing(
    runs: Path, job: EvalJob, reference: Reference, lines: str, named: str
) -> None:
    RunDir(runs / job.train.id).metrics.write_text(lines)
    assert named in judge(runs, reference).differing


def test_judge_calls_other_metrics_differing(runs: Path, job: EvalJob, reference: Reference) -> None:
    other = record_of(job)
    RunDir(runs / job.train.id).record(job.id).write_bytes(
        msgspec.json.encode(replace(other, metrics={**other.metrics, "AP": 23.5}))
    )
    assert judge(runs, reference).differing == "metrics of the record"


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (START + START, 44),  # from the beginning: 40 and what may lie before the next line of the log
        (START + resumed(20) + START + resumed(35), 9),
        (START + START + resumed(40), 4),
        (START + stopped_at(43, saved=True) + "\n" + START + resumed(43), 0),
        (START + stopped_at(43, saved=False) + "\n" + START + resumed(40), 4),
    ],
)
def test_iterations_again_counts_from_where_the_newest_start_resumed(log: str, expected: int) -> None:
    assert iterations_again(log, 40) == expected


def test_the_newest_iteration_is_found_in_what_the_training_writes(runs: Path, job: EvalJob) -> None:
    run = RunDir(runs / job.train.id)
    run.metrics.unlink()
    with MetricsLog(run, start=0, enabled=True) as log:
        for iteration in (5, 10):
            log.write(iteration, {"loss": 2.0})
    assert LOGGED.findall(run.metrics.read_text()) == ["5", "10"]
    assert logged_iterations(run) == [5, 10]


def test_make_row_counts_only_faults_that_came_in_time() -> None:
    late = Trial(
        **{"way": "kill-worker", "number": 0, "seed": 0, "moments": (0.5,), "phases": (), "by_hand": 0, "requeues": 0},
        **{"lost": "", "doubled": "", "differing": "", "iterations_again": 0, "seconds": 6.0},
    )
    mended = replace(late, phases=("training",), by_hand=2, iterations_again=9)
    lost = replace(late, phases=("training",), by_hand=4, iterations_again=4, lost="no record")
    alone = replace(late, phases=("training", "after a restart"), requeues=1, iterations_again=4)
    row = make_row("kill-worker", [late, mended, lost, alone])
    assert (row.trials, row.struck, row.by_itself, row.by_command, row.requeued) == (4, 3, 1, 1, 1)
    assert (row.lost, row.doubled, row.differing, row.again_median, row.again_max) == (1, 0, 0, 4, 9)
