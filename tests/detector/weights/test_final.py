"""The weights of a run: its own are read, and every other file is refused in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace

from detector.build import build_model
from detector.errors import HarnessError, RecordError, WeightsError
from detector.evaluation.training_part import UNNAMED, training_part
from detector.model.criterion import without_loss_state
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob, TrainJob
from detector.weights import checkpoint
from detector.weights.final import architecture_of, check_job, read_final
from detector.weights.network import expected_shapes, network_of
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from support.micro import micro_job, write_experiments

BIAS = "head.classification_head.cls_logits.bias"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    return micro_job(write_experiments(tmp_path_factory.mktemp("final") / "experiments"))


@pytest.fixture(scope="module")
def job(evaluation: EvalJob) -> TrainJob:
    return evaluation.train


@pytest.fixture(scope="module")
def own(evaluation: EvalJob) -> dict[str, Any]:
    """What a training of ``job`` writes."""
    job, test = evaluation.train, evaluation.test
    torch.manual_seed(0)
    return {
        "train_id": job.id,
        "model": build_model(job, num_classes=3, test=test).state_dict(),
        "network": to_builtins(network_of(job)),
        "category_ids": [1, 2, 3],
        "category_names": ["a", "b", "c"],
        "executions": [[1, 1]],
        "seconds": 1.0,
    }


@pytest.fixture
def run(tmp_path: Path, job: TrainJob) -> RunDir:
    return RunDir(tmp_path / job.id)


def test_a_runs_own_weights_are_read_to_the_bit(run: RunDir, job: TrainJob, own: dict[str, Any]) -> None:
    model = own["model"] | {"criterion.classification_loss.counts": torch.full((3,), float("nan"))}
    checkpoint.save(run.final, own | {"model": model})

    found = read_final(run, job)

    assert found["category_names"] == ["a", "b", "c"]
    assert all(torch.equal(value, found["model"][name]) for name, value in own["model"].items())


def test_one_changed_bit_is_found(run: RunDir, job: TrainJob, own: dict[str, Any]) -> None:
    checkpoint.save(run.final, own)
    content = bytearray(run.final.read_bytes())
    content[len(content) // 2] ^= 4
    run.final.write_bytes(content)
    with pytest.raises(WeightsError, match=r"final\.pt is not a readable checkpoint: Bad CRC-32"):
        read_final(run, job)


def test_the_weights_of_another_training_are_refused(run: RunDir, job: TrainJob, own: dict[str, Any]) -> None:
    other = replace(job, seed=1)
    checkpoint.save(run.final, own | {"train_id": other.id})
    with pytest.raises(
        WeightsError, match=rf"final\.pt holds the weights of another training: {other.id}, not {job.id}\..*--fresh"
    ):
        read_final(run, job)


def test_the_job_is_that_of_the_folders_name(tmp_path: Path, job: TrainJob) -> None:
    edited = replace(job, seed=7)
    for name in (job.id, f"{job.id}.replaced-2026-01-01"):
        check_job(RunDir(tmp_path / name), job)
        with pytest.raises(RecordError, match=rf"job\.json is not the job of its folder: its id is {edited.id}"):
            check_job(RunDir(tmp_path / name), edited)
    check_job(RunDir(tmp_path / "best"), edited)  # a name of the user's
    (tmp_path / "link").symlink_to(tmp_path / job.id)
    with pytest.raises(RecordError, match="not the job of its folder"):
        check_job(RunDir(tmp_path / "link"), edited)


def test_what_an_earlier_version_wrote_is_read_and_told(
    run: RunDir, job: TrainJob, own: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    older = {name: value for name, value in own.items() if name not in ("train_id", "network")}
    checkpoint.save(run.final, older)
    with caplog.at_level(logging.WARNING):
        found = read_final(run, job)
    assert "final.pt does not say of which training it is" in caplog.text
    assert UNNAMED in training_part(found, job.precision).notes
    assert UNNAMED not in training_part(own, job.precision).notes


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The content with another entry; None takes it away."""
    return lambda own: {key: item for key, item in (own | {name: value}).items() if item is not None}


def tensor(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """As ``changed``, of a tensor; a function changes what is there."""

    def change(own: dict[str, Any]) -> dict[str, Any]:
        new = value(own["model"][name]) if callable(value) else value
        return own | {"model": {key: item for key, item in (own["model"] | {name: new}).items() if item is not None}}

    return change


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "nan": (tensor(BIAS, lambda value: value * float("nan")), f"{BIAS} is not finite"),
    "infinite": (tensor(BIAS, lambda value: value + float("inf")), f"{BIAS} is not finite"),
    "missing": (tensor(BIAS, None), f"lacks {BIAS}"),
    "extra": (tensor("head.more.weight", torch.zeros(1)), r"has an unknown head\.more\.weight"),
    "shape": (tensor(BIAS, torch.zeros(5)), rf"{BIAS} is \[5\], not \[\d+\]"),
    "kind": (tensor(BIAS, lambda value: value.double()), f"{BIAS} is float64, not float32"),
    "no tensor": (tensor(BIAS, "text"), f"{BIAS} is a str, not float32"),
    "classes": (
        lambda own: own | {"category_ids": [1, 2], "category_names": ["a", "b"]},
        r"cls_logits\.weight is \[\d+, .*\], not \[\d+",
    ),
    "two of one": (changed("category_ids", [1, 2, 2]), "has 3 names for 2 categories"),
    "names": (changed("category_names", ["a", "b"]), "has 2 names for 3 categories"),
    "no names": (changed("category_names", None), "missing required field `category_names`"),
    "ids of text": (changed("category_ids", ["1", "2", "3"]), "Expected `int`, got `str`"),
    "no model": (changed("model", None), "it has no 'model'"),
    "a list": (changed("model", [1]), "it has no 'model'"),
    "no seconds": (changed("seconds", None), "missing required field `seconds`"),
    "network": (changed("network", {"body": 1}), "missing required field|Expected `object`"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_are_not_the_networks_are_refused(
    fault: str, run: RunDir, job: TrainJob, own: dict[str, Any]
) -> None:
    change, message = FAULTS[fault]
    checkpoint.save(run.final, change(own))
    with pytest.raises(WeightsError, match=message) as caught:
        read_final(run, job)
    assert str(run.final) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_a_network_that_places_boxes_otherwise_are_refused(
    run: RunDir, job: TrainJob, own: dict[str, Any]
) -> None:
    """The tensors alone would fit."""
    other = replace(job, model=replace(job.model, anchor_scale=2 * job.model.anchor_scale))
    checkpoint.save(run.final, own | {"network": to_builtins(network_of(other))})
    with pytest.raises(WeightsError, match=r"is of another network than its job\.json says"):
        read_final(run, job)


@pytest.mark.parametrize("state", [{"starts": 5}, {"executions": [["x"]]}, {"executions": 1}, {}, {"starts": [{}]}])
def test_a_history_that_no_version_wrote_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match="do not say how they were trained"):
        training_part(state, "fp32")


@pytest.mark.parametrize("name", ["dr-r50-1x", "torchvision-r50", "dr-r101-2x"])
def test_the_shapes_of_a_job_are_those_of_its_model(name: str) -> None:
    job, test = jobs(recipe(Registry(), name), seed=0)
    with torch.device("meta"):
        state = build_model(job, num_classes=7, test=test, pretrained=False).state_dict()
    expected = {name: value.shape for name, value in without_loss_state(state).items()}
    assert expected_shapes(architecture_of(job, num_classes=7)) == expected
