"""Identity: what makes two trainings one, and what does not."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import msgspec
import pytest
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs import job as jobs
from detector.runs.job import LARGEST, EvalJob, ModelSettings, Settings, TrainJob, _hashed
from drloss.config import CrossEntropyConfig, DRLossConfig, Hinge, Logistic
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve


@pytest.fixture
def evaluation() -> EvalJob:
    registry = Registry()
    return eval_job(resolve(registry, "table2/L6", registry.profile("tiny")), seed=0)


def test_id_is_stable_over_a_round_trip_through_json(evaluation: EvalJob) -> None:
    again = msgspec.json.decode(msgspec.json.encode(evaluation), type=EvalJob)
    assert again == evaluation
    assert (again.id, again.train.id) == (evaluation.id, evaluation.train.id)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"precision": "bf16"},
        {"loss": DRLossConfig(surrogate=Hinge())},
        {"loss": DRLossConfig(surrogate=Logistic(L=6.5))},
        {"loss": DRLossConfig(h_neg=3.6)},
    ],
)
def test_id_changes_with_everything_that_decides_the_weights(evaluation: EvalJob, change: dict[str, Any]) -> None:
    assert replace(evaluation.train, **change).id != evaluation.train.id


def test_id_changes_with_every_single_setting(evaluation: EvalJob) -> None:
    ids = {evaluation.train.id}
    count = 1
    for block in ("data", "model", "matching", "regression", "optimizer", "schedule", "batch", "augmentation"):
        settings = getattr(evaluation.train, block)
        for name in settings.__struct_fields__:
            changed = replace(settings, **{name: _other(getattr(settings, name))})
            ids.add(replace(evaluation.train, **{block: changed}).id)
            count += 1
    assert len(ids) == count


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return ("x",) if isinstance(value, tuple) else f"{value}x"


def test_train_id_does_not_depend_on_the_test(evaluation: EvalJob) -> None:
    other = replace(evaluation, test=replace(evaluation.test, score_threshold=0.3))
    assert other.train.id == evaluation.train.id
    assert other.id != evaluation.id
    assert replace(evaluation, split="test-dev2017").id != evaluation.id


def test_id_takes_6_and_6_point_0_as_one_number(evaluation: EvalJob) -> None:
    loss = evaluation.train.loss
    assert isinstance(loss, DRLossConfig)
    as_integer = replace(loss, surrogate=Logistic(L=6))
    assert replace(evaluation.train, loss=as_integer).id == evaluation.train.id


def test_id_takes_0_and_minus_0_as_one_number(evaluation: EvalJob) -> None:
    ids = {replace(evaluation.train, loss=DRLossConfig(margin=margin)).id for margin in (0.0, -0.0)}
    assert len(ids) == 1


def test_id_takes_e_and_its_digits_as_one_base(evaluation: EvalJob) -> None:
    same = [DRLossConfig(h_pos=h, h_neg=h) for h in ("e", math.e, math.nextafter(math.e, 3))]  # type: ignore[arg-type]
    assert same[0] == same[1] == same[2]
    assert len({replace(evaluation.train, loss=loss).id for loss in same}) == 1
    other = DRLossConfig(h_pos=2.718, h_neg="e")
    assert replace(evaluation.train, loss=other).id != replace(evaluation.train, loss=same[0]).id


def test_ids_of_the_largest_seeds_differ(evaluation: EvalJob) -> None:
    seeds = (0, 1, LARGEST - 1, LARGEST)
    assert len({replace(evaluation.train, seed=seed).id for seed in seeds}) == len(seeds)


@pytest.mark.parametrize("seed", [LARGEST + 1, 10**400])
def test_a_seed_that_would_share_anothers_id_is_refused(evaluation: EvalJob, seed: int) -> None:
    with pytest.raises(UsageError, match="whole number of .* digits; the largest is 2\\^53"):
        _ = replace(evaluation.train, seed=seed).id
    text = msgspec.json.encode(evaluation.train).replace(b'"seed":0,"box', b'"seed":%d,"box' % seed)
    with pytest.raises(msgspec.ValidationError, match="seed"):
        msgspec.json.decode(text, type=TrainJob)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_has_no_id(evaluation: EvalJob, value: float) -> None:
    """JSON writes all three as null, so they would share an id."""
    with pytest.raises(UsageError, match="only finite numbers"):
        _ = replace(evaluation.train, loss=DRLossConfig(margin=value)).id


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (CrossEntropyConfig, {"ratio": 5.0}, "ratio is 5.0, but has no effect with mining 'none'"),
        (DRLossConfig, {"pairing": "neg_only", "h_pos": 20.0}, "h_pos is 20.0, but has no effect with pairing"),
        (DRLossConfig, {"pairing": "all", "h_neg": "e"}, "h_neg is e, but has no effect with pairing 'all'"),
        (DRLossConfig, {"pairing": "worst_case", "h_neg": 20.0}, "leave it out, or give 3.5"),
    ],
)
def test_a_parameter_without_effect_is_refused(kind: type, arguments: dict[str, Any], message: str) -> None:
    """Two jobs of one result would have two ids."""
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**arguments)


@pytest.mark.parametrize(
    ("ref", "overrides", "message"),
    [
        ("ablations/cross-entropy", {"loss.ratio": 5}, "ratio is 5.0, but has no effect"),
        ("table3/all", {"loss.h_neg": 20}, "h_neg is 20.0, but has no effect"),
        ("table2/L6", {"schedule.warmup_iterations": 2**53 + 1}, "<= 9007199254740992"),
        ("table2/L6", {"loss.h_neg": 10**400}, "out of range"),
    ],
)
def test_an_override_that_has_no_id_of_its_own_is_one_clear_error(
    ref: str, overrides: dict[str, Any], message: str
) -> None:
    registry = Registry()
    with pytest.raises(UsageError, match=f"^--set: .*{message}"):
        resolve(registry, ref, registry.profile("tiny"), overrides=overrides)


def test_id_changes_with_a_bumped_component(evaluation: EvalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (evaluation.train.id, evaluation.id)
    monkeypatch.setitem(jobs.EVAL_SEMANTICS, "evaluation", 2)
    assert evaluation.train.id == before[0]
    assert evaluation.id != before[1]
    monkeypatch.setitem(jobs.TRAIN_SEMANTICS, "loss", 2)
    assert evaluation.train.id != before[0]


class _Before(Settings):
    lr: float


class _After(Settings):
    added: ClassVar[tuple[str, ...]] = ("clip_norm",)

    lr: float
    clip_norm: float | None = None


def test_a_field_added_later_keeps_the_ids_of_older_jobs() -> None:
    assert _hashed(_After(lr=0.1)) == _hashed(_Before(lr=0.1))
    assert _hashed(_After(lr=0.1, clip_norm=1.0)) != _hashed(_Before(lr=0.1))


def test_no_setting_of_a_job_has_a_default_unless_it_was_added_later() -> None:
    blocks = [TrainJob, EvalJob, *Settings.__subclasses__()]
    for block in blocks:
        if block.__module__ == "detector.runs.job":
            with_default = {
                name
                for name, field in zip(block.__struct_fields__, msgspec.structs.fields(block), strict=True)
                if not field.required
            }
            assert with_default == set(block.added), block


def test_paths_and_execution_are_in_no_id(evaluation: EvalJob) -> None:
    text = msgspec.json.encode(evaluation).decode()
    for word in ("path", "root", "workers", "threads", "gpus", "profile", "checkpoint"):
        assert word not in text


def test_golden_ids_of_the_papers_runs() -> None:
    """An id that changes orphans every record under it: only on purpose, with a bumped semantics number."""
    registry = Registry()
    paper = registry.profile("paper")
    found = {ref: eval_job(resolve(registry, ref, paper), 0).train.id for ref in ("table2/focal", "table2/L6")}
    assert found == GOLDEN


def test_a_job_from_before_box_conventions_keeps_its_id(evaluation: EvalJob) -> None:
    model = replace(evaluation.train.model, norm_epsilon=1e-5)
    older = msgspec.to_builtins(replace(evaluation.train, box_convention="modern", model=model))
    for block, names in ((older, TrainJob.added), (older["model"], ModelSettings.added)):
        for name in names:
            del block[name]
    assert msgspec.convert(older, TrainJob).id == "042d25f862ee1a06"


GOLDEN = {
    "table2/focal": "9d66f8b0dc0fbf4b",
    "table2/L6": "f83c6dad944b08a5",
}
