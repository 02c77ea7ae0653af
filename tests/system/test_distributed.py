"""Several processes per run: the same training, the same detections, one set of files, one stop, one clear failure."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import submitit
import torch
from msgspec.structs import replace

from detector.build import build_model
from detector.data.loader import TrainingData
from detector.data.splits import open_split
from detector.errors import DataError, UsageError
from detector.evaluation import inference
from detector.evaluation.inference import ScoreSums
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.weights import checkpoint
from detector.worker.run import evaluate_and_record, train_to_final
from detector.worker.worker import Worker
from support.final_weights import assert_same_bits, final_weights
from support.micro import ALONE, micro_assignment, micro_job, write_experiments
from support.processes import WAIT_SECONDS, outputs, run_processes


@pytest.fixture(scope="module")
def alone(job: EvalJob, data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run of one process, which forwards a group at a time: then it adds what two processes add."""
    torch.set_num_threads(1)
    run = RunDir(tmp_path_factory.mktemp("run") / "alone")
    run.root.mkdir()
    assignment = micro_assignment(job, run.root, data, groups_per_forward=1)
    train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
    evaluate_and_record(assignment, job, run, world=ALONE, heartbeat=None)
    return run


def logged(run: RunDir) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def test_two_processes_started_by_submitit_give_the_run_of_one(
    job: EvalJob, data: Path, tmp_path: Path, alone: RunDir
) -> None:
    run = RunDir(tmp_path / "run")
    executor = submitit.LocalExecutor(folder=run.submitit)
    executor.update_parameters(timeout_min=5, tasks_per_node=2, gpus_per_node=0, stderr_to_stdout=True)
    executor.submit(Worker(micro_assignment(job, run.root, data, code_diff="+edited\n"))).results()

    assert json.loads(run.environment.read_text())["processes"] == "2"
    assert run.code_diff.read_text() == "+edited\n"
    for ours, theirs in zip(logged(run), logged(alone), strict=True):
        assert ours["iteration"] == theirs["iteration"]
        for name in ("loss", "classification", "bbox_regression"):
            # Means over two iterations and two processes are added in another order.
            assert ours[name] == pytest.approx(theirs[name], rel=1e-6), (name, ours["iteration"])
    assert_same_bits(final_weights(run), final_weights(alone))
    assert [path.name for path in run.checkpoints.iterdir()] == ["final.pt"]
    assert not list(run.root.glob("failure-*"))

    # One process finds in the same weights what two of them found, image by image, to the last bit.
    two = run.read_record(job.id)
    detections = run.detections(job.id).read_bytes()
    evaluate_and_record(micro_assignment(job, run.root, data), job, run, world=ALONE, heartbeat=None)
    one = run.read_record(job.id)
    assert two is not None
    assert one is not None
    assert run.detections(job.id).read_bytes() == detections
    assert one.metrics == two.metrics


@pytest.mark.slow
def test_a_stop_signal_to_one_process_stops_all_at_the_same_step_and_saves(data: Path, tmp_path: Path) -> None:
    long = micro_job(write_experiments(tmp_path / "experiments", iterations=400))
    run = RunDir(tmp_path / "run")

    def stop_the_second(processes: list[subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not (run.checkpoints / "0000004.pt").exists():
            assert time.monotonic() < deadline, outputs(run)
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGUSR2)

    codes = run_processes(micro_assignment(long, run.root, data), 2, stop_the_second)
    assert codes == [130, 130], outputs(run)
    status = run.read_status()
    assert status is not None
    assert status.phase == "stopped"
    state = checkpoint.load_newest(run.checkpoints)
    assert state is not None
    assert status.message == f"stopped at iteration {state['iteration']}; the state is saved"
    assert state["iteration"] < 400
    assert not run.final.exists()


@pytest.mark.slow
def test_the_first_failure_is_told_whichever_process_has_it(job: EvalJob, data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    second = TrainingData(job.train, open_split(job.train.data, data, "train"), rank=1, world_size=2)
    position = int(second.positions[second.groups.share(0, rank=1, world_size=2)[0][0]])
    victim = second.index.image_path(position).name
    (broken / "train2017" / victim).write_bytes(b"not an image")
    run = RunDir(tmp_path / "run")
    codes = run_processes(micro_assignment(job, run.root, broken), 2)
    assert all(codes), outputs(run)
    status = run.read_status()
    assert status is not None
    assert status.phase == "failed"
    assert f"{victim} (image id" in status.message
    assert "cannot be read" in run.log.read_text()

    # A start that goes well forgets it: here one process, since one is enough.
    run.final.parent.mkdir(exist_ok=True)
    shutil.copytree(data / "train2017", broken / "train2017", dirs_exist_ok=True)
    assert run_processes(micro_assignment(job, run.root, broken), 1) == [0], outputs(run)
    assert run.first_failure() is None


@pytest.mark.slow
def test_processes_that_do_not_divide_the_groups_fail_with_one_clear_message(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    one_group = replace(job, train=replace(job.train, batch=replace(job.train.batch, images=2)))
    run = RunDir(tmp_path)
    assert all(run_processes(micro_assignment(one_group, tmp_path, data), 2)), outputs(run)
    status = run.read_status()
    assert status is not None
    assert status.message == (
        "2 processes cannot share the 1 groups of a batch evenly (2 images in groups of 2). "
        "Run as many processes as divide 1."
    )
    assert "Traceback" not in run.log.read_text()


def test_training_data_refuses_processes_that_do_not_divide_the_groups(job: EvalJob, data: Path) -> None:
    message = (
        r"^3 processes cannot share the 2 groups of a batch evenly \(4 images in groups of 2\)\. "
        r"Run as many processes as divide 2\.$"
    )
    with pytest.raises(UsageError, match=message):
        TrainingData(job.train, open_split(job.train.data, data, "train"), rank=0, world_size=3)


def test_evaluation_refuses_a_test_split_with_other_categories(
    job: EvalJob, data: Path, tmp_path: Path, alone: RunDir
) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    path = other / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 90, "name": "hexagon"})
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has 4 categories, the training has 3; they differ in the ids 90\."):
        evaluate_and_record(micro_assignment(job, alone.root, other), job, alone, world=ALONE, heartbeat=None)


class Shard:
    """One of two processes as ``detect_split`` sees it; remembers what it would send, or hands out what all sent."""

    size = 2

    def __init__(self, rank: int, sent: list[object] | None = None) -> None:
        self.rank, self.sent, self.own = rank, sent, None

    def gather(self, value: object) -> list[object]:
        self.own = value
        return self.sent if self.sent is not None else [value]


def test_score_sums_are_added_image_by_image_however_the_images_were_shared(
    job: EvalJob, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this order the float sum is ((1e16 + 1) - 1e16) + 1 = 1; the shards' own sums, 0 and 2, would add up to 2.
    values = [1e16, 1.0, -1e16, 1.0, 0.0, 0.0]
    index = open_split(job.train.data, data, "test")
    model = build_model(job.train, num_classes=3, test=job.test, pretrained=False)
    todo: list[float] = []
    monkeypatch.setattr(inference, "score_sums", lambda *_: ScoreSums(positive=todo.pop(0), num_positive=1))
    shards = [Shard(0), Shard(1)]
    for shard in shards:
        todo[:] = values[shard.rank :: 2]
        inference.detect_split(model, index, shard, lambda _: None)
    todo[:] = values[0::2]
    _, sums = inference.detect_split(model, index, Shard(0, [shard.own for shard in shards]), lambda _: None)
    assert sums == ScoreSums(positive=1.0, num_positive=6)
