"""A full disk and a file server that is away: what is retried, what a training gives up, and that nothing is lost."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from PIL import Image

from detector.data.coco.annotations import AnnotationTable
from detector.data.images import open_image
from detector.data.splits import open_split
from detector.errors import DataError, RecordError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import progress_text
from detector.storage import retry as retrying
from detector.storage.files import write_json
from detector.storage.retry import Waiting, retry, watched_by
from detector.training.metrics import MetricsLog
from detector.training.train import StopRequested
from detector.weights import checkpoint
from detector.worker.reports import Heartbeat
from detector.worker.run import evaluate_and_record, train_to_final
from support.final_weights import assert_same_bits, final_weights
from support.micro import ALONE, micro_assignment


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps that take no time, noted."""
    torch.set_num_threads(1)
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(retrying.time, "sleep", sleep)
    monkeypatch.setattr(retrying.time, "monotonic", lambda: clock[0])
    return slept


class Failing:
    """Raises an error of the given number the first ``times``, then does the work."""

    def __init__(self, number: int, times: int, work: Callable[..., object]) -> None:
        self.number, self.left, self.work = number, times, work

    def __call__(self, *arguments: object, **options: object) -> object:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.work(*arguments, **options)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_retry_tries_again_with_growing_waits(number: int, waits: list[float]) -> None:
    assert retry(Failing(number, 4, lambda: 17), "counting") == 17
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_retry_raises_the_last_error_when_the_time_is_over(waits: list[float]) -> None:
    with pytest.raises(OSError, match="No space left"):
        retry(Failing(errno.ENOSPC, 10_000, lambda: None), "writing", seconds=60)
    assert sum(waits) <= 60
    assert max(waits) == 15.0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EROFS])
def test_retry_raises_what_time_does_not_heal_at_once(number: int, waits: list[float]) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        retry(Failing(number, 1, lambda: None), "writing")
    assert waits == []


def test_a_wait_is_told_some_times_per_second_and_when_it_is_over(waits: list[float]) -> None:
    told: list[Waiting | None] = []
    with watched_by(told.append):
        assert retry(Failing(errno.ENOSPC, 2, lambda: 17), "writing final.pt") == 17
    assert told.pop() is None
    assert {(item.what, item.why) for item in told if item} == {("writing final.pt", "No space left on device")}
    assert [item.seconds for item in told if item] == pytest.approx([0.1 * i for i in range(15)])
    assert max(waits) <= 0.1


def test_what_a_look_raises_ends_a_wait_at_once_but_not_one_that_is_part_of_a_stop(waits: list[float]) -> None:
    def look(waiting: Waiting | None) -> None:
        raise StopRequested("enough")

    with watched_by(look):
        with pytest.raises(StopRequested, match="enough"):
            retry(Failing(errno.EIO, 10_000, lambda: None), "reading 17.jpg")
        assert waits == []
        assert retry(Failing(errno.EIO, 2, lambda: 3), "checkpoint 4", unseen=True) == 3
        assert retry(lambda: 5, "writing") == 5


def run_of(job: EvalJob, folder: Path, data: Path, stop: Callable[[], bool] = lambda: False) -> RunDir:
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train_to_final(micro_assignment(job, folder, data), run, world=ALONE, heartbeat=None, stop=stop)
    return run


@pytest.fixture(scope="module")
def reference(job: EvalJob, data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    torch.set_num_threads(1)
    return run_of(job, tmp_path_factory.mktemp("run") / "reference", data)


def test_a_training_outlives_a_disk_that_is_full_when_a_checkpoint_is_written(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second and third of its three checkpoints; then the final weights find the disk full once.
    saves = [0]
    real = checkpoint.write_atomic

    def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
        saves[0] += 1
        if saves[0] in (2, 3, 4, 5):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", write)
    run = run_of(job, tmp_path / "run", data)
    assert saves[0] == 6
    assert_same_bits(final_weights(run), final_weights(reference))


def test_a_stop_on_a_full_disk_says_that_the_checkpoint_before_is_kept(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(100))
    real = checkpoint.write_atomic

    def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
        if path.name == "0000005.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", write)
        with pytest.raises(StopRequested, match="stopped at iteration 5; the last checkpoint before is kept"):
            run_of(job, tmp_path / "run", data, stop=lambda: next(looks) >= 4)
    assert_same_bits(final_weights(run_of(job, tmp_path / "run", data)), final_weights(reference))


def test_the_older_checkpoint_makes_room_and_the_newest_is_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (2, 4):
        checkpoint.save_step(tmp_path, iteration, {"iteration": iteration})
    real = checkpoint.write_atomic

    def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
        if (tmp_path / "0000002.pt").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", write)
    checkpoint.save_step(tmp_path, 6, {"iteration": 6})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000004.pt", "0000006.pt"]
    monkeypatch.setattr(checkpoint, "write_atomic", Failing(errno.ENOSPC, 100, real))
    (tmp_path / "0000004.pt").unlink()
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_step(tmp_path, 8, {"iteration": 8})
    assert [path.name for path in tmp_path.iterdir()] == ["0000006.pt"]


def test_lines_that_storage_refused_are_in_the_log_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    with MetricsLog(run, start=0, enabled=True) as log:
        log.write(1, {"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", Failing(errno.ENOSPC, 2, Path.open))
            log.write(2, {"loss": 2.0})
            log.write(3, {"loss": 3.0})
        assert [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()] == [1]
        log.write(4, {"loss": 4.0})
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]


def test_the_last_losses_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    run = RunDir(tmp_path)
    with MetricsLog(run, start=0, enabled=True) as log:
        fails = Failing(errno.ENOSPC, 2, Path.open)
        monkeypatch.setattr(Path, "open", lambda *arguments, **options: fails(*arguments, **options))
        log.write(1, {"loss": 1.0})
    assert run.metrics.read_text() == '{"iteration": 1, "loss": 1.0}\n'
    assert len(waits) == 1


def test_a_start_waits_for_annotations_that_are_away(
    job: EvalJob, data: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    read = AnnotationTable.read
    monkeypatch.setattr(AnnotationTable, "read", Failing(errno.EIO, 2, read))
    assert open_split(job.train.data, data, "train").num_images > 0
    assert waits == [0.5, 1.0]


def test_a_heartbeat_on_a_full_disk_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(tmp_path / "status.json", iterations=8)
    refused = Failing(errno.ENOSPC, 1, lambda *_, **__: None)
    monkeypatch.setattr("detector.worker.reports.write_json", refused)
    heartbeat.beat("training", force=True, iteration=3)
    assert refused.left == 0
    assert heartbeat.state.iteration == 3


def test_a_wait_is_in_the_heartbeat_though_the_disk_is_full_and_leaves_it_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path)
    heartbeat = Heartbeat(run.status, iterations=8)
    monkeypatch.setattr(Heartbeat, "INTERVAL", 0.0)
    heartbeat.beat("training", iteration=7)
    with monkeypatch.context() as patch:
        patch.setattr("detector.worker.reports.write_json", Failing(errno.ENOSPC, 2, lambda *_, **__: None))
        heartbeat.look(Waiting("writing final.pt", "No space left on device", 1.0))
        assert run.read_status().waiting == ""  # type: ignore[union-attr]
        heartbeat.look(Waiting("writing final.pt", "No space left on device", 180.0))
        status = run.read_status()
        heartbeat.look(None)
    assert status is not None
    assert (status.phase, status.iteration) == ("training", 7)
    assert progress_text(status) == "waiting for disk: writing final.pt (3 min)"
    assert status.waiting_why == "No space left on device"
    later = run.read_status()
    assert later is not None
    assert later.waiting == ""


def test_a_training_alone_that_is_stopped_while_it_waits_for_an_image_saves_its_state(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = [0]

    def opens(*arguments: Any) -> Any:
        opened[0] += 1
        if opened[0] > job.train.batch.images + 1:  # in the second batch
            retry(Failing(errno.ESTALE, 10_000, lambda: None), "reading 17.jpg")
        return open_image(*arguments)

    def look(waiting: Waiting | None) -> None:
        raise StopRequested("asked to")

    with monkeypatch.context() as patch:
        patch.setattr("detector.data.loader.open_image", opens)
        with watched_by(look), pytest.raises(StopRequested, match="stopped at iteration 1; the state is saved"):
            run_of(job, tmp_path / "run", data)
    assert (RunDir(tmp_path / "run").checkpoints / "0000001.pt").exists()
    assert_same_bits(final_weights(run_of(job, tmp_path / "run", data)), final_weights(reference))


def test_only_what_is_new_in_a_heartbeat_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    heartbeat = Heartbeat(tmp_path / "status.json", iterations=8)
    monkeypatch.setattr(Heartbeat, "INTERVAL", 0.0)
    monkeypatch.setattr("detector.storage.files.os.fsync", lambda _: flushed.append(heartbeat.state.phase))
    heartbeat.beat("starting", force=True)
    for iteration in (1, 2, 3):
        heartbeat.beat("training", iteration=iteration)
    heartbeat.beat("stopped", force=True)
    assert len(flushed) == 3
    status = RunDir(tmp_path).read_status()
    assert status is not None
    assert (status.phase, status.iteration) == ("stopped", 3)


@pytest.mark.parametrize("content", [b"", b"\0" * 300])
def test_a_heartbeat_that_a_loss_of_power_emptied_is_none(tmp_path: Path, content: bytes) -> None:
    run = RunDir(tmp_path)
    run.status.write_bytes(content)
    assert run.read_status() is None
    run.status.write_bytes(content + b"{")
    with pytest.raises(RecordError, match=r"status\.json cannot be read as Status"):
        run.read_status()


def test_an_image_is_read_once_the_file_server_is_back_and_a_missing_one_is_told_at_once(
    job: EvalJob, data: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    index = open_split(job.train.data, data, "test")
    expected = open_image(index, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", Failing(errno.EIO, 3, Image.open))
        assert open_image(index, 0) == expected
    assert len(waits) == 3
    monkeypatch.setattr(Image, "open", Failing(errno.ENOENT, 1, Image.open))
    with pytest.raises(DataError, match="cannot be read"):
        open_image(index, 0)
    assert len(waits) == 3


def test_a_record_waits_for_room(job: EvalJob, data: Path, tmp_path: Path, reference: RunDir) -> None:
    assignment = micro_assignment(job, reference.root, data)
    with pytest.MonkeyPatch.context() as patch:
        refused = Failing(errno.ENOSPC, 2, write_json)
        patch.setattr("detector.worker.run.write_json", refused)
        evaluate_and_record(assignment, job, reference, world=ALONE, heartbeat=None)
    assert refused.left == 0
    assert reference.read_record(job.id) is not None
