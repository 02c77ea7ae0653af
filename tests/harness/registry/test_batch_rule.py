"""Remark 2: another mini-batch, the same epochs."""

from __future__ import annotations

import pytest

from detector.errors import UsageError
from harness.registry.load import Registry
from harness.registry.resolution import Resolution
from harness.registry.resolve import resolve


def rescaled(ref: str, images: int, profile: str = "paper") -> Resolution:
    registry = Registry()
    return resolve(registry, ref, registry.profile(profile), batch_size=images)


def test_a_quarter_of_the_batch_takes_four_times_the_iterations_at_a_quarter_of_the_rate() -> None:
    found = rescaled("table4/dr-r101", 4)
    assert found.get("batch.images") == 4
    assert found.get("optimizer.lr") == pytest.approx(0.0025)
    assert found.get("schedule.iterations") == 720_000
    assert found.get("schedule.warmup_iterations") == 2_000
    assert found.get("schedule.milestones") == [480_000, 640_000]
    assert found.origins["schedule.warmup_iterations"] == "--batch-size 4 (Remark 2)"


def test_the_base_codebases_own_half_batch_schedule_is_what_the_rule_gives() -> None:
    registry = Registry()
    base = resolve(registry, "ablations/base-schedule", registry.profile("paper"))
    found = rescaled("table2/focal", 8)
    for path in ("batch.images", "optimizer.lr", "schedule.iterations", "schedule.milestones"):
        assert found.get(path) == base.get(path), path


def test_epochs_are_kept_to_the_nearest_iteration() -> None:
    found = rescaled("table2/L6", 14)
    assert found.get("schedule.iterations") == 102_857  # 90,000 * 16 / 14
    assert found.get("optimizer.lr") == pytest.approx(0.01 * 14 / 16)


def test_the_profiles_own_scale_comes_first() -> None:
    found = rescaled("table2/L6", 32, "tiny")
    assert found.get("schedule.iterations") == 200
    assert found.get("optimizer.lr") == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("images", "profile", "message"),
    [
        (34, "paper", r"learning rate of 0\.02125, .* smoothness .* 0\.02 is known to train, which is a batch of 32\."),
        (64, "tiny", r"learning rate of 0\.4, .* 0\.2 is known to train, which is a batch of 32\."),
        (5, "paper", r"--batch-size 5 is not a multiple of the 2 images of a group"),
        (0, "paper", r"--batch-size 0 is not a multiple"),
    ],
)
def test_a_batch_that_the_rule_cannot_serve_is_refused_with_the_reason(images: int, profile: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rescaled("table2/L6", images, profile)


def test_a_schedule_cut_until_its_milestones_meet_is_refused() -> None:
    registry = Registry()
    overfit = registry.profile("overfit")
    short = resolve(registry, "table2/L6", overfit)
    short.put("schedule.iterations", 3, "test")
    short.put("schedule.milestones", [1, 2], "test")
    short.put("optimizer.lr", 0.001, "test")
    from harness.registry.batch_rule import rescale

    with pytest.raises(UsageError, match=r"leaves 0 iterations, too few to tell the milestones \[0, 0\] apart"):
        rescale(short, 8 * 16, overfit)
