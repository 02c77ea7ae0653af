"""Costs on GPUs that are named: measured there, carried over from elsewhere with each rule said, else as stated."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.job import EvalJob
from detector.runs.record import Record
from harness.planning.costs import Rates, wall_seconds_on
from harness.planning.gpus import parse_gpus
from harness.planning.rates import Speed
from harness.registry.load import Registry
from harness.registry.speeds import GpuKind, MeasuredSpeed, SpeedsFile
from tests.command import error, invoke
from tests.harness.planning.test_costs import cost_of, job_of, record_of

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]
H200 = "cuda (NVIDIA H200)"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(PROJECT / "experiments")


def kind(name: str, rate: float, bandwidth: float) -> GpuKind:
    rates: Any = {"fp32": rate / 10, "tf32": rate / 2, "bf16": rate}
    return GpuKind(name=name, names=(f"NVIDIA {name} 80GB",), tflops=rates, terabytes_per_second=bandwidth, source="s")


def row(of: Any, seconds: float, precision: Any = "bf16", **changes: Any) -> MeasuredSpeed:
    given: dict[str, Any] = {
        "gpu": "NVIDIA Fast 80GB",
        "gpus": 1,
        "backbone": "resnet50",
        "groups_per_forward": 8,
        "images": 16,
        "short_side": 800,
        "source": "a test",
    }
    return MeasuredSpeed(of=of, seconds_per_iteration=seconds, precision=precision, **(given | changes))


# On this GPU a training of bf16 takes 0.5 s, of which its step is 0.1 s; in tf32 the step takes three times as long.
FILE = SpeedsFile(
    gpus=(kind("Fast", 1000.0, 4.0), kind("Slow", 500.0, 1.0)),
    speeds=(row("training", 0.5), row("step", 0.1), row("step", 0.3, "tf32")),
)


def speed(
    registry: Registry,
    gpus: str,
    job: EvalJob,
    records: tuple[Record, ...] = (),
    *,
    profile: str = "one-gpu",
    file: SpeedsFile = FILE,
) -> Speed:
    on = parse_gpus(gpus, file, records)
    return Rates(registry.profile(profile), records, file, on).speed(job.train)


def seconds(found: Speed, job: EvalJob, devices: int = 1) -> float:
    """Per iteration of 16 images of the job's one size."""
    side = job.train.augmentation.short_sides[0]
    assert found.training.value is not None
    return found.training.value * 16 * side**2 / 1e6 / devices


@pytest.mark.parametrize("text", ["8xH100", "8xh100", "8 x NVIDIA H100 80GB HBM3", "8XNVIDIA-H100-80GB-HBM3"])
def test_gpus_are_known_by_every_spelling(registry: Registry, text: str) -> None:
    found = parse_gpus(text, registry.speeds, ())
    assert (found.count, found.name) == (8, "NVIDIA H100 80GB HBM3")


def test_gpus_keep_the_full_name_that_was_given(registry: Registry) -> None:
    assert parse_gpus("1xA100-PCIE-40GB", registry.speeds, ()).name == "NVIDIA A100-PCIE-40GB"
    assert parse_gpus("1xA100", registry.speeds, ()).name == "NVIDIA A100-SXM4-80GB"


@pytest.mark.parametrize("text", ["H100", "0xH100", "x8", "8x", "-1xH100", "8"])
def test_gpus_without_a_number_and_a_kind_are_refused(text: str) -> None:
    assert "--gpus takes a number and a kind of GPU, such as 8xH100" in error("plan", "table2", "--gpus", text)


def test_an_unknown_gpu_names_the_known_ones() -> None:
    message = error("plan", "table2", "--gpus", "8xH1000")
    assert "no GPU named 'H1000' is known. Known: B200, H200, H100, H100 PCIe, A100," in message
    assert "harness schema speeds" in message


def test_a_gpu_that_only_a_record_names_is_known(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    record = replace(record_of(job, train_seconds=900.0, eval_seconds=5.0, device="cuda (Odd 7)"), profile="one-gpu")
    found = speed(registry, "1xodd 7", job, (record,))
    assert (found.training.basis, seconds(found, job)) == ("measured", pytest.approx(0.01))
    with pytest.raises(UsageError, match="Known: Fast, Slow, Odd 7"):
        parse_gpus("1xEven", FILE, (record,))


def test_a_training_at_its_own_size_is_what_was_measured(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    large = replace(job, train=replace(job.train, augmentation=replace(job.train.augmentation, short_sides=(800,))))
    found = speed(registry, "1xFast", large)
    assert seconds(found, large) == pytest.approx(0.5)
    assert found.training.rules == ()
    assert found.training.text().startswith("measured, 0.5 s per iteration of 16 images of 800 px on 1 x NVIDIA Fast")


def test_fewer_pixels_make_the_step_shorter_and_nothing_else(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    found = speed(registry, "1xFast", job)
    assert seconds(found, job) == pytest.approx(0.4 + 0.1 / 4)
    assert any("image size: the step x 0.25" in rule for rule in found.training.rules)
    assert any("0.400 s per iteration" in rule and "0.025 s" in rule for rule in found.training.rules)


def test_another_gpu_scales_the_step_by_the_scarcer_of_rate_and_bandwidth(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    found = speed(registry, "1xSlow", job)
    assert seconds(found, job) == pytest.approx(0.4 + 4 * 0.1 / 4)  # bandwidth 4 times less, rate half
    assert any("Fast to Slow: the step x 4.00" in rule for rule in found.training.rules)


def test_another_precision_goes_by_the_measured_steps_else_by_the_rates(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    tf32 = replace(job, train=replace(job.train, precision="tf32"))
    assert seconds(speed(registry, "1xFast", tf32), tf32) == pytest.approx(0.4 + 0.3 / 4)
    fp32 = replace(job, train=replace(job.train, precision="fp32"))
    found = speed(registry, "1xFast", fp32)
    assert seconds(found, fp32) == pytest.approx(0.4 + 10 * 0.1 / 4)
    assert any("bf16 to fp32: the step x 10.00, by the peak rates of Fast" in rule for rule in found.training.rules)


def test_another_backbone_goes_by_what_the_profile_states(registry: Registry) -> None:
    job = job_of(registry, "table4/dr-r101", "one-gpu")
    jitter = sum((side / 800) ** 2 for side in (320, 336, 352, 368, 384, 400)) / 6
    found = speed(registry, "1xFast", job)
    assert found.training.value is not None
    pixels = sum(side**2 for side in job.train.augmentation.short_sides) / 6 / 1e6
    assert found.training.value * 16 * pixels == pytest.approx((0.4 + 0.1 * jitter) * 0.666 / 0.483)
    assert any("resnet50 to resnet101: x 1.38" in rule for rule in found.training.rules)


def test_more_gpus_take_as_many_gpu_seconds_and_it_is_said(registry: Registry) -> None:
    job = job_of(registry, "table2/L6")
    found = speed(registry, "8xFast", replace(job, train=replace(job.train, precision="bf16")), profile="paper")
    assert found.devices == 8
    assert seconds(found, job, devices=8) == pytest.approx(0.5 / 8)
    assert any("measured on 1 GPU, wanted on 8" in rule for rule in found.training.rules)


def test_finished_runs_on_that_gpu_stand_before_the_file(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    here = replace(record_of(job, train_seconds=9_000.0, eval_seconds=50.0, device="cuda (NVIDIA Fast 80GB)"))
    here = replace(here, profile="one-gpu")
    elsewhere = replace(here, environment={"device": "cuda (NVIDIA Slow 80GB)", "processes": "1"}, train_seconds=1.0)
    found = speed(registry, "1xFast", job, (here, elsewhere))
    assert (found.training.basis, found.training.runs) == ("measured", 1)
    assert seconds(found, job) == pytest.approx(0.1)
    assert found.testing.basis == "measured"


def test_runs_of_another_profile_are_carried_over(registry: Registry) -> None:
    large = job_of(registry, "table2/hinge")
    run = record_of(large, train_seconds=90_000.0, eval_seconds=9.0, device="cuda (NVIDIA Fast 80GB)", processes=2)
    job = job_of(registry, "table2/L6", "one-gpu")
    fp32 = replace(job, train=replace(job.train, precision="fp32"))
    found = speed(registry, "1xFast", fp32, (run,))
    assert seconds(found, fp32) == pytest.approx(2 / 4)  # 1 s on each of two GPUs; a quarter of the pixels
    assert "1 run of profile paper: 1 s per iteration of 16 images of 800 px on 2 x" in found.training.text()
    assert any("measured on 2 GPUs, wanted on 1" in rule for rule in found.training.rules)


def test_the_gpu_of_other_runs_picks_the_line_of_the_file(registry: Registry) -> None:
    """Without --gpus: a short run of another profile says which GPU is here; its own time says nothing."""
    short = job_of(registry, "table2/L6", "smoke")
    short = replace(short, train=replace(short.train, precision="bf16"))
    run = replace(record_of(short, train_seconds=60.0, eval_seconds=9.0, device=H200), profile="smoke")
    job = job_of(registry, "table2/L6", "one-gpu")
    found = Rates(registry.profile("one-gpu"), (run,), registry.speeds).speed(job.train)
    assert found.training.basis == "extrapolated"
    assert "0.54 s per iteration (0.43 to 0.65 seen)" in found.training.text()
    assert Rates(registry.profile("one-gpu"), (), registry.speeds).speed(job.train).training.basis == "stated"


def test_without_a_measurement_the_stated_figures_remain(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "one-gpu")
    found = speed(registry, "1xFast", job, file=SpeedsFile(gpus=FILE.gpus))
    assert found.training.basis == "stated"
    assert "8 P100" in found.training.text()
    assert found.devices == 1
    slim = job_of(registry, "table2/L6", "small")
    assert speed(registry, "1xFast", slim, profile="small").training.basis == "unknown"


def test_a_precision_that_the_gpu_lacks_is_refused() -> None:
    message = error("plan", "table2", "--profile", "one-gpu", "--gpus", "1xV100")
    assert "has no bf16, in which profile one-gpu trains. It has fp32, fp16" in message
    assert "runs of profile tiny are on the CPU" in error("plan", "table2", "--profile", "tiny", "--gpus", "1xH100")


def test_runs_go_side_by_side_where_they_fit(registry: Registry) -> None:
    job = job_of(registry, "table2/L6")
    one = dataclasses.replace(cost_of(registry, job), devices=2)
    assert one.wall_seconds is not None
    assert wall_seconds_on([one] * 3, 4) == pytest.approx(2 * one.wall_seconds)
    assert wall_seconds_on([one] * 3, 8) == pytest.approx(one.wall_seconds)
    assert wall_seconds_on([], 8) is None


def test_plan_on_gpus_prints_what_fits_a_terminal() -> None:
    text = invoke("plan", "table2", "--profile", "one-gpu", "--gpus", "1xH100", "--wall-time", "4h").stdout
    assert max(map(len, text.splitlines())) <= 80
    plain = " ".join(text.split())
    assert "on 1 x NVIDIA H100 80GB HBM3." in plain
    assert "before passes were captured in CUDA graphs" in plain
    assert "H200 to H100: the step x 1.43" in plain
    assert "GPU-hours in all: 97.8." in plain
    assert "Requeues with 4.0 h per start" in plain


def test_plan_on_gpus_as_data_has_every_basis() -> None:
    data = json.loads(invoke("plan", "all", "--gpus", "8xH100", "--json").stdout)["costs"]
    assert (data["gpus"]["count"], data["gpus"]["kind"]["name"]) == (8, "H100")
    assert data["gpus"]["wall_seconds"] == pytest.approx(data["wall_seconds"]["value"])
    assert {run["train_seconds"]["basis"] for run in data["runs"]} == {"extrapolated"}
    assert all(run["train_seconds"]["rules"] for run in data["runs"])
    assert {run["devices"] for run in data["runs"]} == {8}
    assert "gpus" not in json.loads(invoke("plan", "all", "--json").stdout)["costs"]


def test_budget_is_spent_at_the_speed_of_the_named_gpus() -> None:
    arguments = ("plan", "all", "--profile", "one-gpu", "--budget", "60gpuh")
    slow = json.loads(invoke(*arguments, "--json").stdout)
    fast = json.loads(invoke(*arguments, "--gpus", "2xH200", "--json").stdout)
    assert fast["num_runs"] > slow["num_runs"]
    assert "NVIDIA H200" in fast["speed"]["resnet50"]
    assert "the step x 0.25" in invoke(*arguments, "--gpus", "2xH200").stdout
