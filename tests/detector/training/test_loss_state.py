"""A loss with running statistics, of a package: its training resumes to the last bit, however its groups are spread."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

from detector.build import build_model
from detector.data.loader import TrainingData
from detector.data.splits import open_split
from detector.errors import TrainingError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.origin import loss_package
from detector.runs.origin.loss_package import check_loss_package, recorded_source, source_notes
from detector.training.loss_state import LossState, loss_buffers
from detector.training.pace import Pace
from detector.training.passes import Passes
from detector.training.train import StopRequested
from detector.weights import checkpoint
from detector.worker import missing_loss
from detector.worker.run import evaluate_and_record
from drloss import plugins
from harness.failures.classes import classify
from support.final_weights import assert_same_bits, final_weights
from support.loss_package import LOSS, install_package
from support.micro import ALONE, micro_assignment
from support.processes import outputs, run_processes
from tests.detector.training.test_train import StopAfter, train


@pytest.fixture(scope="module")
def with_loss(job: EvalJob, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvalJob]:
    """The micro job with the page's loss."""
    site = install_package(tmp_path_factory.mktemp("package"))
    sys.path.insert(0, str(site))
    invalidate_caches()
    plugins.plugins.cache_clear()
    (plugin,) = plugins.plugins()
    assert plugin.spec is not None, plugin.problem
    loss: Any = plugin.spec.config(momentum=0.5, initial_positives=30.0)
    yield replace(job, train=replace(job.train, loss=loss, loss_package=plugin.release))
    sys.path.remove(str(site))
    plugins.plugins.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == LOSS]:
        del sys.modules[name]


def test_a_loss_with_state_resumes_to_the_last_bit_and_is_recorded(
    with_loss: EvalJob, data: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole = train(with_loss, tmp_path / "whole", data)
    with pytest.raises(StopRequested):
        train(with_loss, tmp_path / "stopped", data, stop=StopAfter(3))
    kept = checkpoint.load_newest(RunDir(tmp_path / "stopped").checkpoints)
    assert kept is not None
    (state,) = (value for name, value in kept["model"].items() if name.endswith(".positives"))
    assert float(state) != 30.0, "the checkpoint lacks the loss's state"
    resumed = train(with_loss, tmp_path / "stopped", data)
    assert_same_bits(final_weights(resumed), final_weights(whole))
    assert any(name.endswith(".positives") for name in final_weights(whole))
    assignment = micro_assignment(with_loss, whole.root, data)
    evaluate_and_record(assignment, with_loss, whole, world=ALONE, heartbeat=None)
    text = whole.record(with_loss.id).read_text()
    assert f'"loss_sha256":"{plugins.source_sha256(with_loss.train.loss)}"' in text.replace(" ", "")


def test_a_package_whose_source_changes_between_two_starts_is_noted_in_the_record(
    with_loss: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StopRequested):
        train(with_loss, tmp_path, data, stop=StopAfter(3))
    monkeypatch.setattr("detector.training.train.loss_source", lambda job: "e" * 64)
    run = train(with_loss, tmp_path, data)
    evaluate_and_record(micro_assignment(with_loss, tmp_path, data), with_loss, run, world=ALONE, heartbeat=None)
    record = json.loads(run.record(with_loss.id).read_bytes())
    assert record["code"]["loss_sha256"] not in ("e" * 64, plugins.source_sha256(with_loss.train.loss))
    assert any("changed between two starts" in note for note in record["notes"])


def test_the_state_after_a_step_does_not_depend_on_how_groups_share_passes(with_loss: EvalJob, data: Path) -> None:
    groups = TrainingData(with_loss.train, open_split(with_loss.train.data, data, "train"), rank=0, world_size=1)[0]
    model = build_model(with_loss.train, num_classes=3, test=with_loss.test).train()
    (buffer,) = buffers = loss_buffers(model)
    found = []
    for groups_per_forward in (1, 2):
        buffer.fill_(30.0)
        state = LossState(buffers)
        scaler, pace = torch.amp.GradScaler("cpu", enabled=False), Pace(8, groups_per_forward, 0)
        losses = Passes(model, precision="fp32", scaler=scaler, world=ALONE, pace=pace).run(groups, state)
        assert float(buffer) == 30.0  # each pass began with it
        state.close(ALONE)
        found.append((float(buffer), float(losses["classification"])))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][0] != 30.0


@pytest.mark.slow
def test_two_processes_leave_the_state_and_weights_of_one(
    with_loss: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    alone = train(with_loss, tmp_path / "alone", data)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")]))
    run = RunDir(tmp_path / "two")
    assert run_processes(micro_assignment(with_loss, run.root, data, groups_per_forward=1), 2) == [0, 0], outputs(run)
    ours, theirs = final_weights(run), final_weights(alone)
    (name,) = (name for name in ours if name.endswith(".positives"))
    assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6)
    assert float(ours[name]) != 30.0
    assert all(torch.allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5) for key in theirs)


def test_the_first_batch_stops_a_loss_of_a_package_that_is_not_what_it_says(
    with_loss: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from running_focal import loss  # type: ignore[import-not-found]

    half = loss.RunningFocalLoss.forward
    monkeypatch.setattr(loss.RunningFocalLoss, "forward", lambda *args, **named: half(*args, **named) / 2)
    with pytest.raises(TrainingError, match="The first classification loss is"):
        train(with_loss, tmp_path, data)


def test_a_worker_refuses_another_version_of_the_package_than_the_job_names(with_loss: EvalJob) -> None:
    check_loss_package(with_loss.train)
    other = replace(with_loss.train, loss_package="running-focal==0.2.0")
    assert other.id != with_loss.train.id
    with pytest.raises(TrainingError, match=r"of running-focal==0\.2\.0, and running-focal==0\.1\.0 is"):
        check_loss_package(other)


def test_a_worker_without_the_package_reports_what_it_lacks(
    with_loss: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process's union of losses was made before the package was installed: it cannot read the job either.
    data = missing_loss.encode(micro_assignment(with_loss, tmp_path / "run", tmp_path))
    monkeypatch.setattr(loss_package, "plugins", lambda: ())
    unread = missing_loss.decode(data)
    assert isinstance(unread, missing_loss.MissingLoss)
    with pytest.raises(TrainingError, match=r"its loss 'running_focal' is that of running-focal==0\.1\.0\. .*Install"):
        unread()
    status = RunDir(tmp_path / "run").read_status()
    assert status is not None
    assert status.phase == "failed"
    assert "not installed" in status.message
    assert classify(status.message) == "import"


def test_buffers_of_the_network_and_whole_numbers() -> None:
    model = nn.Module()
    model.backbone, model.loss = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    buffers = loss_buffers(model)
    assert [value.shape for value in buffers] == [(2,), (2,), ()]
    state = LossState(buffers)
    for share in (0.5, 0.5):
        model.loss(torch.randn(4, 2))
        state.take(share)
    state.close(ALONE)
    assert int(model.loss.num_batches_tracked) == 1
    assert model.loss.num_batches_tracked.dtype == torch.int64


def test_a_source_that_changed_between_starts_is_neither_one() -> None:
    assert recorded_source([]) is None
    assert recorded_source(["a"]) == "a"
    assert recorded_source(["a", "b"]) not in ("a", "b", None)
    assert source_notes(["a"]) == ()
    assert "changed between two starts" in source_notes(["a", "b"])[0]
