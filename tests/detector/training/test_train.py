"""The training of one run: resumes to the last bit, any number of workers or groups per pass, stops when it must."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from PIL import Image, ImageOps

from detector.build import build_model
from detector.data.digest import images_digest
from detector.data.loader import Group, TrainingData, training_batches
from detector.data.splits import open_split
from detector.errors import DataError, TrainingError
from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.log_lines import ap_by_iteration
from detector.runs.record import content_hash
from detector.training.pace import Pace
from detector.training.passes import Passes, micro_batches
from detector.training.train import StopRequested
from detector.weights import checkpoint
from detector.worker.reports import Heartbeat
from detector.worker.run import evaluate_and_record, train_to_final
from drloss.config import FocalLossConfig
from support.final_weights import assert_same_bits, final_weights
from support.micro import ALONE, micro_assignment


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def train(job: EvalJob, folder: Path, data: Path, stop: Callable[[], bool] = lambda: False, **changes: Any) -> RunDir:
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train_to_final(micro_assignment(job, folder, data, **changes), run, world=ALONE, heartbeat=None, stop=stop)
    return run


@pytest.fixture(scope="module")
def reference(job: EvalJob, data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    torch.set_num_threads(1)
    return train(job, tmp_path_factory.mktemp("run") / "reference", data)


class StopAfter:
    """Says stop at the n-th look, as a signal would."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


@pytest.mark.parametrize("looks", [1, 3, 4])
def test_train_resumed_equals_uninterrupted_to_the_last_bit(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir, looks: int
) -> None:
    with pytest.raises(StopRequested, match=f"iteration {looks}"):
        train(job, tmp_path, data, stop=StopAfter(looks))
    assert not RunDir(tmp_path).final.exists()
    torch.rand(7)  # whatever else the process drew must not matter
    resumed = train(job, tmp_path, data)
    assert_same_bits(final_weights(resumed), final_weights(reference))
    lines = [json.loads(line) for line in resumed.metrics.read_text().splitlines()]
    iterations = [line["iteration"] for line in lines]
    assert iterations == sorted(set(iterations))
    assert iterations[-1] == 8


def test_the_totals_of_all_starts_are_in_the_final_weights_and_the_record(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(StopRequested, match="iteration 3"):
        train(job, tmp_path, data, stop=StopAfter(3))
    first = checkpoint.load_newest(tmp_path / "checkpoints")
    assert first is not None
    assert first["timing"]["iterations"] == 3
    run = train(job, tmp_path, data)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert {"data_seconds_per_iteration", "host_seconds_per_iteration", "images_per_second"} <= lines[-1].keys()
    evaluate_and_record(micro_assignment(job, tmp_path, data), job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert record.timing is not None
    assert record.timing.iterations == 8
    assert 0 < record.timing.data_seconds + record.timing.host_seconds <= record.timing.seconds + 0.002
    assert record.timing.seconds == pytest.approx(record.train_seconds, rel=0.5)
    assert record.timing.images_per_second > 0


def test_an_older_checkpoint_resumes_and_what_it_lacks_is_unknown(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir
) -> None:
    with pytest.raises(StopRequested):
        train(job, tmp_path, data, stop=StopAfter(5))
    state = checkpoint.load_newest(tmp_path / "checkpoints")
    assert state is not None
    for later in ("timing", "inputs"):
        del state[later]
    del state["starts"]
    state["executions"] = [[1, 1]]
    checkpoint.save_step(tmp_path / "checkpoints", 5, state)
    run = train(job, tmp_path, data)
    assert_same_bits(final_weights(run), final_weights(reference))
    final = checkpoint.load(run.final)
    assert final["timing"]["iterations"] == 3  # since they are noted
    assert [(start["time"] == "unknown", start.get("iteration", 0)) for start in final["starts"]] == [
        (True, 0),
        (False, 5),
    ]
    evaluate_and_record(micro_assignment(job, tmp_path, data), job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert record.notes == ()
    assert record.code.version == "0"


def test_train_after_a_kill_goes_on_from_the_last_checkpoint(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir
) -> None:
    def die() -> bool:
        if (tmp_path / "checkpoints" / "0000004.pt").exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path, data, stop=die)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 7, "loss": 1.0}\n{"iterat')  # logged after the checkpoint, the last line torn
    resumed = train(job, tmp_path, data)
    assert_same_bits(final_weights(resumed), final_weights(reference))
    iterations = [json.loads(line)["iteration"] for line in resumed.metrics.read_text().splitlines()]
    assert iterations == [1, 2, 4, 6, 8]
    assert [path.name for path in resumed.checkpoints.iterdir()] == ["final.pt"]


def test_train_is_bit_equal_for_any_number_of_workers(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir
) -> None:
    assert_same_bits(final_weights(train(job, tmp_path, data, loader_workers=2)), final_weights(reference))


def test_gradients_are_the_same_up_to_rounding_however_groups_share_passes(job: EvalJob, data: Path) -> None:
    # Of one step: after more, an activation of one way may have crossed a ReLU's zero, and the trainings go apart.
    groups = TrainingData(job.train, open_split(job.train.data, data, "train"), rank=0, world_size=1)[0]
    model = build_model(job.train, num_classes=3, test=job.test).train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    gradients = []
    for groups_per_forward in (1, 2):
        pace = Pace(8, groups_per_forward, 0)
        Passes(model, precision="fp32", scaler=scaler, world=ALONE, pace=pace).run(groups)
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    alone, together = gradients
    assert len(together) == len(list(model.parameters()))
    for name, expected in together.items():
        # 3e-6 at most in 40 random networks.
        torch.testing.assert_close(alone[name], expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_train_differs_between_seeds(job: EvalJob, data: Path, tmp_path: Path, reference: RunDir) -> None:
    other = replace(job, train=replace(job.train, seed=1))
    name = "head.classification_head.cls_logits.weight"
    assert not torch.equal(final_weights(train(other, tmp_path, data))[name], final_weights(reference)[name])


def test_train_with_other_threads_says_that_bit_equality_is_void(job: EvalJob, data: Path, tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        train(job, tmp_path, data, stop=StopAfter(7))
    torch.set_num_threads(2)  # for one iteration: where cores are short, two threads wait for each other
    run = train(job, tmp_path, data)
    torch.set_num_threads(1)
    evaluate_and_record(micro_assignment(job, tmp_path, data), job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert "1 processes of 1 threads, then 1 processes of 2 threads" in record.notes[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32"])
def test_train_runs_at_every_precision_and_it_is_part_of_the_identity(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir, precision: Any
) -> None:
    other = replace(job, train=replace(job.train, precision=precision))
    assert other.train.id != job.train.id
    found = final_weights(train(other, tmp_path, data))
    assert all(value.isfinite().all() for value in found.values())
    assert all(value.dtype == torch.float32 for value in found.values() if value.is_floating_point())
    first, whole = (json.loads(run.metrics.read_text().splitlines()[0]) for run in (RunDir(tmp_path), reference))
    assert first["loss"] == pytest.approx(whole["loss"], rel=2e-2)  # the same first step as in float32


def test_train_stops_at_a_loss_that_is_not_finite_and_saves_nothing_of_it(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    wild = replace(
        job, train=replace(job.train, loss=FocalLossConfig(), optimizer=replace(job.train.optimizer, lr=1e30))
    )
    with pytest.raises(TrainingError, match=r"not finite in iterations \d+ to \d+ .*learning rate"):
        train(wild, tmp_path, data)
    saved = checkpoint.load_newest(tmp_path / "checkpoints")
    if saved is not None:
        assert all(value.isfinite().all() for value in saved["model"].values())


def test_train_stops_at_an_implausible_first_loss(
    job: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drloss.modules import DRLoss

    whole = DRLoss.forward
    monkeypatch.setattr(DRLoss, "forward", lambda self, *args, **kwargs: whole(self, *args, **kwargs) / 4000)
    with pytest.raises(TrainingError, match="divided by the number of positives"):
        train(job, tmp_path, data)


class NeverStop:
    """Nobody sends a signal."""

    def __call__(self) -> bool:
        return False

    def at_once(self, signals: object) -> AbstractContextManager[None]:
        return nullcontext()


def test_evaluations_during_the_training_change_nothing_and_are_told(
    job: EvalJob, data: Path, reference: RunDir, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, last = RunDir(tmp_path), job.train.schedule.iterations
    heartbeat = Heartbeat(run.status, last)
    assignment = micro_assignment(job, tmp_path, data, evaluate_every=2, checkpoint_every=100)
    with caplog.at_level(logging.INFO, "detector.worker"):
        train_to_final(assignment, run, world=ALONE, heartbeat=heartbeat, stop=NeverStop())
    assert_same_bits(final_weights(run), final_weights(reference))
    told = ap_by_iteration("\n".join(f": {record.getMessage()}" for record in caplog.records))
    assert list(told) == list(range(2, last, 2))
    # Before each the losses were looked at: weights that are not finite are never kept.
    assert [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()] == [
        1,
        *range(2, last + 1, 2),
    ]
    assert heartbeat.state.ap == told[max(told)]
    said = heartbeat.state
    assert said.seconds_per_iteration is not None
    assert 0 < said.seconds_per_iteration < 10
    assert said.images_per_second == pytest.approx(4 / said.seconds_per_iteration)
    assert said.data_share is not None
    assert 0 < said.data_share < 1
    assert said.device_busy is None
    assert 0 <= told[max(told)] <= 100


def test_a_record_tells_the_trainings_starts_and_an_evaluation_elsewhere_does_not_change_them(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    first, second, third = (Code(version="1", commit=letter * 40, modified=False) for letter in "abc")
    with pytest.raises(StopRequested):
        train(job, tmp_path, data, stop=StopAfter(3), code=first)
    run = train(job, tmp_path, data, code=second)
    evaluate_and_record(micro_assignment(job, tmp_path, data, code=third), job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert [(start.iteration, start.code) for start in record.starts] == [(0, first), (3, second)]
    assert record.code == second
    assert record.evaluation is not None
    assert record.evaluation.code == third
    assert record.environment == record.starts[-1].environment
    assert {"numba", "cpu_capability", "matmul_precision", "torch"} <= record.environment.keys()
    assert record.notes[0].startswith("resumed with other code (aaaaaaaa, then bbbbbbbb)")


def test_a_record_holds_what_was_read_and_what_was_found(job: EvalJob, data: Path, reference: RunDir) -> None:
    evaluate_and_record(micro_assignment(job, reference.root, data), job, reference, world=ALONE, heartbeat=None)
    record = reference.read_record(job.id)
    assert record is not None
    assert record.format == 2
    assert record.sha256 == content_hash(record)
    assert record.inputs is not None
    assert record.inputs.weights is None
    assert record.inputs.train_annotations == record.train_split.sha256
    assert record.inputs.train_images == images_digest(open_split(job.train.data, data, "train"))
    assert record.inputs.test_images == images_digest(open_split(job.train.data, data, "test"))
    assert record.health is not None
    # 64 pixels are too few for P5, and 8 iterations to learn anything.
    assert [health.name for health in record.health] == ["dead level", "collapsed"]
    assert record.scores is not None
    negative, count = record.scores.negative_sums[0], sum(record.scores.negatives)
    assert record.metrics["negative_score"] == negative / count
    assert record.curves is not None
    assert record.curves.iterations == (1, 2, 4, 6, 8)
    assert {"loss", "lr", "gradient_backbone", "gradient_pyramid", "gradient_classifier", "gradient_boxes"} <= set(
        record.curves.values
    )
    assert reference.record(job.id).stat().st_size < 40_000


def test_a_record_names_the_weights_that_the_training_began_with_by_their_content(
    job: EvalJob, data: Path, tmp_path: Path, reference: RunDir
) -> None:
    sha256 = hashlib.sha256(reference.final.read_bytes()).hexdigest()
    begun = replace(job.train, model=replace(job.train.model, weights=f"sha256:{sha256}"))
    run = train(replace(job, train=begun), tmp_path, data, weights_file=str(reference.final))
    assert checkpoint.load(run.final)["inputs"]["weights"] == {"name": "final.pt", "sha256": sha256}


def test_what_older_final_weights_do_not_tell_is_unknown_in_the_record(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    run = train(job, tmp_path, data)
    state = checkpoint.load(run.final)
    for later in ("starts", "inputs", "health", "train_split"):
        del state[later]
    checkpoint.save(run.final, {**state, "executions": [[1, 1, True]]})
    evaluate_and_record(micro_assignment(job, tmp_path, data), job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert record.notes == ("1 processes of 1 threads, compiled: equal to other runs up to float rounding only",)
    assert (record.code.version, record.code.commit, record.environment) == ("unknown", None, {})
    assert [health.name for health in record.health or ()] == ["collapsed"]  # which the evaluation found
    assert record.inputs is not None
    assert record.inputs.train_images is None
    assert record.inputs.test_images is not None
    assert record.evaluation is not None
    assert (record.train_split.images, len(record.train_split.sha256)) == (24, 64)


def test_a_training_does_not_go_on_with_other_images(job: EvalJob, data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data, tmp_path / "data")
    with pytest.raises(StopRequested):
        train(job, tmp_path / "run", root, stop=StopAfter(3))
    path = root / "train2017" / "000000000001.png"
    with Image.open(path) as image:
        inverted = ImageOps.invert(image)
    inverted.save(path)
    with pytest.raises(DataError, match=r"began with other files, .*: training images: sha256 .* Put the first ones b"):
        train(job, tmp_path / "run", root)


def test_evaluate_writes_the_record_last_and_repeats_exactly(job: EvalJob, data: Path, reference: RunDir) -> None:
    assignment = micro_assignment(job, reference.root, data, notes=("a note",))
    evaluate_and_record(assignment, job, reference, world=ALONE, heartbeat=None)
    record = reference.read_record(job.id)
    assert record is not None
    assert (record.eval_id, record.train_id, record.job) == (job.id, job.train.id, job)
    assert (record.train_split.images, record.test_split.images) == (24, 6)
    assert record.notes == ("a note",)
    assert 0 <= record.metrics["AP"] <= 100
    assert 0 < record.metrics["negative_score"] < 1
    assert 0 < record.metrics["positive_score"] < 1
    first = reference.detections(job.id).read_bytes()
    evaluate_and_record(assignment, job, reference, world=ALONE, heartbeat=None)
    assert reference.detections(job.id).read_bytes() == first
    text = reference.record(job.id).read_text()
    assert str(data) not in text  # no path of this machine


def test_training_data_is_a_function_of_seed_iteration_and_image(job: EvalJob, data: Path) -> None:
    index = open_split(job.train.data, data, "train")
    one = TrainingData(job.train, index, rank=0, world_size=1)
    halves = [TrainingData(job.train, index, rank=rank, world_size=2) for rank in (0, 1)]
    for iteration in (5, 0, 3):
        whole, parts = one[iteration], [group for half in halves for group in half[iteration]]
        assert len(whole) == len(parts) == 2
        for a, b in zip(whole, parts, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))
            assert all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a.targets, b.targets, strict=True))


def test_training_batches_do_not_touch_the_global_random_state(job: EvalJob, data: Path) -> None:
    training = TrainingData(job.train, open_split(job.train.data, data, "train"), rank=0, world_size=1)
    before = torch.get_rng_state()
    assert len(list(training_batches(training, range(2), workers=0))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_micro_batches_join_groups_of_one_shape() -> None:
    def group(height: int, width: int) -> Group:
        return Group([torch.zeros(3, height, width)] * 2, [{}] * 2)

    groups = [group(60, 64), group(33, 40), group(64, 100), group(64, 64), group(64, 64)]
    sizes = [[member.padded_shape for member in micro] for micro in micro_batches(groups, 2)]
    assert sizes == [[(64, 64), (64, 64)], [(64, 64), (64, 64)], [(64, 128)]]
    assert [micro for (micro,) in micro_batches(groups, 1)] == groups  # in their own order


def test_a_missing_image_stops_with_file_and_id(job: EvalJob, data: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    victim = sorted((broken / "train2017").iterdir())[0]
    victim.write_bytes(b"not an image")
    with pytest.raises(DataError, match=rf"{victim.name} \(image id \d+\) cannot be read.*harness data verify"):
        train(job, tmp_path / "run", broken)


def test_open_split_refuses_another_generated_set(job: EvalJob, data: Path) -> None:
    other = replace(job.train.data, seed=5)
    with pytest.raises(DataError, match="holds another generated set"):
        open_split(other, data, "train")
