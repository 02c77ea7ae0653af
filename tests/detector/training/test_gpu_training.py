"""Trainings on a GPU; what has a meaning on the CPU runs there too.

The learning rate is small: then a last digit that differs in one step stays a last digit, and what two trainings
learned can be compared as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from msgspec.structs import replace
from torch import Tensor

from detector.build import build_model
from detector.data.loader import Group, TrainingData
from detector.data.splits import open_split
from detector.data.transfer import Transfer
from detector.device.agreement import Agreement
from detector.device.world import World, share_state
from detector.errors import TrainingError
from detector.model.retinanet import RetinaNet
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob, Precision
from detector.training.pace import Pace
from detector.training.passes import Passes
from detector.training.train import StopRequested
from detector.worker.run import evaluate_and_record, train_to_final
from harness.failures.classes import classify
from support.final_weights import assert_same_bits, final_weights
from support.micro import micro_assignment, micro_job, write_experiments
from tests.devices import DEVICES, host_never_waits

ROUNDING = 1e-2  # of what was learned


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def slow_job(job: EvalJob) -> EvalJob:
    """The micro job with a hundredth of its learning rate."""
    optimizer = replace(job.train.optimizer, lr=job.train.optimizer.lr / 100)
    return replace(job, train=replace(job.train, optimizer=optimizer))


def world_of(device: str) -> World:
    return World(0, 1, torch.device(device))


def train(
    job: EvalJob, folder: Path, data: Path, device: str, stop: Callable[[], bool] = lambda: False, **changes: Any
) -> RunDir:
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    assignment = micro_assignment(job, folder, data, device=device, **changes)
    train_to_final(assignment, run, world=world_of(device), heartbeat=None, stop=stop)
    return run


def losses(run: RunDir) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]


def initial_weights(job: EvalJob) -> dict[str, Tensor]:
    torch.manual_seed(job.train.seed)
    return build_model(job.train, num_classes=3, test=job.test).state_dict()


def assert_learned_the_same(found: RunDir, expected: RunDir, job: EvalJob) -> None:
    """What both learned, all weights together, differs by rounding only."""
    ours, theirs, start = final_weights(found), final_weights(expected), initial_weights(job)
    names = [name for name, value in theirs.items() if value.is_floating_point()]
    learned = sum((theirs[name] - start[name]).double().square().sum() for name in names) ** 0.5
    apart = sum((ours[name] - theirs[name]).double().square().sum() for name in names) ** 0.5
    assert learned > 0
    assert apart <= ROUNDING * learned


class StopAfter:
    """Says stop at the n-th look, as a signal would."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self) -> bool:
        self.looks -= 1
        return self.looks <= 0


class DieAfter(StopAfter):
    """Ends the training at the n-th look, without a checkpoint of its own."""

    def __call__(self) -> bool:
        if super().__call__():
            raise KeyboardInterrupt
        return False


@pytest.mark.parametrize("device", DEVICES)
def test_killed_and_resumed_it_goes_on_within_rounding(
    slow_job: EvalJob, data: Path, tmp_path: Path, device: str
) -> None:
    whole = train(slow_job, tmp_path / "whole", data, device)
    with pytest.raises(KeyboardInterrupt):
        train(slow_job, tmp_path / "parts", data, device, DieAfter(5))
    with pytest.raises(StopRequested):  # a GPU stops two steps after it was asked
        train(slow_job, tmp_path / "parts", data, device, StopAfter(1))
    parts = train(slow_job, tmp_path / "parts", data, device)
    assert_learned_the_same(parts, whole, slow_job)


@pytest.mark.parametrize("device", DEVICES)
def test_a_one_process_group_steps_as_no_group_does(job: EvalJob, data: Path, tmp_path: Path, device: str) -> None:
    """NCCL on a GPU, gloo on the CPU; the world says that it has two processes, so that all exchanges are made."""
    pair = World(0, 2, torch.device(device))
    store = dist.FileStore(str(tmp_path / "store"), 1)
    gradients = []
    for world in (world_of(device), pair):
        if world is pair:
            dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)
        try:
            torch.manual_seed(0)
            model = build_model(job.train, num_classes=3, test=job.test).to(device).train()
            share_state(model, world)
            groups = Transfer(world.device)(first_groups(job, data))
            passes(model, world, groups_per_forward=1).run(groups)
            gradients.append([p.grad.cpu().clone() for p in model.parameters() if p.grad is not None])
            if world is pair:
                assert Agreement(world)(False) is False
                heard: list[Any] = [None]
                dist.all_gather_object(heard, {"rank": 0})
                assert heard == [{"rank": 0}]
        finally:
            if world is pair:
                dist.destroy_process_group()
    assert len(gradients[0]) == len(gradients[1]) > 0
    for alone, shared in zip(*gradients, strict=True):
        # A sum over one process, divided by two.
        torch.testing.assert_close(2 * shared, alone, rtol=0, atol=2e-5 * float(alone.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_passes_equal_eager_ones(job: EvalJob, data: Path, precision: Precision) -> None:
    """The first pass of a shape is run, the second captured, the third replayed."""
    groups = Transfer(torch.device("cuda"))(first_groups(job, data))
    found = []
    for captured in (False, True):
        torch.manual_seed(0)
        model = build_model(job.train, num_classes=3, test=job.test).to("cuda").train()
        steps = passes(model, world_of("cuda"), precision=precision, groups_per_forward=2, cuda_graphs=captured)
        for _ in range(3):
            values = {name: float(value) for name, value in steps.run(groups).items()}
            found.append((values, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    expected_losses, expected_gradients = found[0]
    rounding = 2e-5 if precision == "fp32" else 2e-2
    for losses_found, gradients_found in found[1:]:
        assert losses_found == pytest.approx(expected_losses, rel=rounding)
        for gradient, expected in zip(gradients_found, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=0, atol=rounding * float(expected.abs().max()))


@pytest.mark.gpu
def test_captured_and_eager_trainings_learn_the_same(slow_job: EvalJob, data: Path, tmp_path: Path) -> None:
    captured, eager = (
        train(slow_job, tmp_path / str(on), data, "cuda", cuda_graphs=on, checkpoint_every=100) for on in (True, False)
    )
    assert losses(captured) == pytest.approx(losses(eager), rel=1e-3)
    assert_learned_the_same(captured, eager, slow_job)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_deterministic_training_resumes_to_the_last_bit(
    job: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    ways = {"deterministic": True, "cuda_graphs": cuda_graphs}
    whole = train(job, tmp_path / "whole", data, "cuda", **ways)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "parts", data, "cuda", DieAfter(5), **ways)
    parts = train(job, tmp_path / "parts", data, "cuda", **ways)
    assert_same_bits(final_weights(parts), final_weights(whole))


@pytest.mark.gpu
def test_a_step_never_makes_the_host_wait(job: EvalJob, data: Path) -> None:
    """After the shapes were met: eager passes, and captured ones."""
    groups = Transfer(torch.device("cuda"))(first_groups(job, data))
    for captured in (False, True):
        model = build_model(job.train, num_classes=3, test=job.test).to("cuda").train()
        steps = passes(model, world_of("cuda"), groups_per_forward=2, cuda_graphs=captured)
        for _ in range(2):
            steps.run(groups)
        torch.cuda.synchronize()
        with host_never_waits():
            steps.run(groups)


def first_groups(job: EvalJob, data: Path) -> list[Group]:
    return TrainingData(job.train, open_split(job.train.data, data, "train"), rank=0, world_size=1)[0]


def passes(model: RetinaNet, world: World, *, precision: Precision = "fp32", **changes: Any) -> Passes:
    pace = Pace(checkpoint_every=8, loader_workers=0, **changes)
    scaler = torch.amp.GradScaler(world.device.type, enabled=False)
    return Passes(model, precision=precision, scaler=scaler, world=world, pace=pace)


def too_much(device: str) -> None:
    """More than any GPU has; on the CPU torch's error as it would be."""
    if device == "cuda":
        torch.empty(2**50, dtype=torch.uint8, device=device)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has none.")


@pytest.mark.parametrize("device", DEVICES)
def test_a_lack_of_memory_says_what_helps(
    job: EvalJob, data: Path, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RetinaNet, "losses", lambda *inputs: too_much(device))
    with pytest.raises(TrainingError) as caught:
        train(job, tmp_path / "run", data, device)
    text = str(caught.value)
    assert classify(text) == "GPU memory"
    assert "in a pass of 2 groups, 4 images of 64 x 64 pixels, precision fp32. Tried to allocate" in text
    assert "groups_per_forward in the profile, below 2" in text


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "fp32"),
        ("cpu", "bf16"),
        *(pytest.param("cuda", precision, marks=pytest.mark.gpu) for precision in ("fp32", "tf32", "bf16", "fp16")),
    ],
)
def test_every_precision_learns(data: Path, tmp_path: Path, device: str, precision: Precision) -> None:
    job = micro_job(write_experiments(tmp_path / "experiments", iterations=20 if device == "cpu" else 60))
    job = replace(job, train=replace(job.train, precision=precision))
    run = train(job, tmp_path / "run", data, device, checkpoint_every=100)
    found = losses(run)
    assert found[-1] < 0.9 * found[0]
    assert all(value.isfinite().all() for value in final_weights(run).values())


@pytest.mark.gpu
def test_detections_of_both_devices_score_the_same(job: EvalJob, data: Path, tmp_path: Path) -> None:
    run = train(job, tmp_path, data, "cpu")
    metrics = []
    for device in ("cpu", "cuda"):
        assignment = micro_assignment(job, tmp_path, data, device=device)
        evaluate_and_record(assignment, job, run, world=world_of(device), heartbeat=None)
        record = run.read_record(job.id)
        assert record is not None
        metrics.append(record.metrics)
    assert metrics[1] == pytest.approx(metrics[0], abs=0.5)
