"""What runs cost: times measured, stated or unknown; disk as the networks are really built; requeues."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from detector.build import build_model
from detector.errors import UsageError
from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.record import Record, SplitFingerprint
from harness.planning.costs import Rates, RunCost, parse_duration, parse_wall_time, run_cost
from harness.planning.network_size import network_size
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.report.costs import costs_as_data, costs_as_lines
from support.micro import write_experiments
from tests.command import error, invoke

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(PROJECT / "experiments")


def job_of(registry: Registry, ref: str, profile: str = "paper", *, from_scratch: bool = False) -> EvalJob:
    return eval_job(resolve(registry, ref, registry.profile(profile), from_scratch=from_scratch), 0)


def record_of(
    job: EvalJob, *, train_seconds: float, eval_seconds: float, device: str = "cuda (A)", processes: int = 1
) -> Record:
    split = SplitFingerprint(images=1000, boxes=1, sha256="0")
    return Record(
        format=1,
        eval_id=job.id,
        train_id=job.train.id,
        profile="paper",
        job=job,
        metrics={},
        train_split=split,
        test_split=split,
        environment={"device": device, "processes": str(processes)},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=train_seconds,
        eval_seconds=eval_seconds,
        finished="",
        notes=(),
    )


def cost_of(registry: Registry, job: EvalJob, records: tuple[Record, ...] = (), run: Path = Path("/none")) -> RunCost:
    return run_cost(Rates(registry.profile("paper"), records), job.train, [job], RunDir(run))


@pytest.mark.parametrize(
    ("ref", "profile"),
    [
        ("table2/L6", "paper"),
        ("table4/dr-r101", "paper"),
        ("table4/dr-x101", "paper"),
        ("table2/L6", "smoke"),
        ("table2/L6", "overfit"),
        ("table2/L6", "small"),
        ("table2/L6", "tiny"),
    ],
)
@pytest.mark.parametrize("from_scratch", [False, True])
def test_network_size_is_that_of_the_network_as_built(
    registry: Registry, ref: str, profile: str, from_scratch: bool
) -> None:
    job = job_of(registry, ref, profile, from_scratch=from_scratch)
    with torch.device("meta"):
        model = build_model(job.train, num_classes=7, test=job.test, pretrained=False)
    size = network_size(job.train.model, 7)
    assert size.stored == sum(value.numel() for value in model.state_dict().values())
    assert size.trained == sum(value.numel() for value in model.parameters() if value.requires_grad)


@pytest.mark.parametrize(
    "change",
    [
        {"p6_from": "p5"},
        {"fpn_levels": (3, 6)},
        {"head_norm": "group"},
        {"frozen_stages": 5},
        {"aspect_ratios": (1.0,), "head_convs": 1},
    ],
)
def test_network_size_follows_the_settings(registry: Registry, change: dict) -> None:
    job = job_of(registry, "table2/L6")
    train = replace(job.train, model=replace(job.train.model, **change))
    with torch.device("meta"):
        model = build_model(train, num_classes=80, test=job.test, pretrained=False)
    size = network_size(train.model, 80)
    assert size.stored == sum(value.numel() for value in model.state_dict().values())
    assert size.trained == sum(value.numel() for value in model.parameters() if value.requires_grad)


def test_final_weights_take_the_stated_bytes_on_the_disk(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "tiny")
    model = build_model(job.train, num_classes=6, test=job.test, pretrained=False)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    expected = network_size(job.train.model, 6).final_bytes
    assert expected < len(buffer.getvalue()) < 1.03 * expected


def test_cost_is_the_stated_one_without_any_run(registry: Registry) -> None:
    cost = cost_of(registry, job_of(registry, "table2/L6"))
    assert cost.train_seconds.value == pytest.approx(90_000 * 0.483)
    assert cost.test_seconds.value == pytest.approx(5_000 * 0.125 / 8)
    assert cost.device_hours == pytest.approx((90_000 * 0.483 * 8 + 5_000 * 0.125) / 3600)
    assert cost.train_seconds.basis == "stated"
    assert "P100" in cost.train_seconds.text()


def test_cost_grows_with_pixels_and_batch(registry: Registry) -> None:
    many = cost_of(registry, job_of(registry, "table4/dr-r101-ms"))
    sides = [400, 500, 600, 700, 800, 900, 1000, 1100, 1200]
    assert many.test_seconds.value == pytest.approx(5_000 * 0.156 / 8 * sum((side / 800) ** 2 for side in sides))
    jitter = sum((side / 800) ** 2 for side in (640, 672, 704, 736, 768, 800)) / 6
    assert many.seconds_per_iteration.value == pytest.approx(0.666 * jitter)
    # Eight images are four groups, which keep no more than four GPUs busy: half the work on half the GPUs.
    half = cost_of(registry, job_of(registry, "ablations/base-schedule"))
    assert half.devices == 4
    assert half.seconds_per_iteration.value == pytest.approx(0.483)


def test_measured_runs_take_the_place_of_stated_figures(registry: Registry) -> None:
    job = job_of(registry, "table2/L6")
    other, busy = job_of(registry, "table2/hinge"), job_of(registry, "table2/L4")
    again = replace(job, test=replace(job.test, score_threshold=0.05))
    records = (
        record_of(job, train_seconds=18_000.0, eval_seconds=25.0, processes=4),
        record_of(again, train_seconds=18_000.0, eval_seconds=25.0, processes=4),  # the same training
        record_of(other, train_seconds=27_000.0, eval_seconds=25.0, processes=4),
        record_of(busy, train_seconds=90_000.0, eval_seconds=99.0, processes=4),  # beside a busy neighbour
    )
    cost = cost_of(registry, job_of(registry, "table2/focal"), records)
    assert cost.train_seconds.basis == "measured"
    assert cost.train_seconds.runs == 3
    assert cost.devices == 4
    assert cost.train_seconds.value == pytest.approx(27_000.0)
    assert cost.test_seconds.value == pytest.approx(5 * 25.0)  # 5,000 images; measured on 1,000
    assert cost.test_seconds.runs == 4
    assert cost_of(registry, job_of(registry, "table4/dr-r101"), records).train_seconds.basis == "stated"


def test_records_without_times_measure_nothing(registry: Registry) -> None:
    job = job_of(registry, "table2/L6")
    cost = cost_of(registry, job, (record_of(job, train_seconds=0.0, eval_seconds=0.0),))
    assert cost.train_seconds.basis == "stated"
    on_cpu = cost_of(registry, job, (record_of(job, train_seconds=0.0, eval_seconds=9.0, device="cpu (x86_64)"),))
    assert on_cpu.train_seconds.basis == "unknown"  # the stated figure is of a GPU
    assert on_cpu.device_hours is None


def test_runs_with_a_gpu_stand_before_those_without(registry: Registry) -> None:
    job = job_of(registry, "table2/L6")
    slow = record_of(job, train_seconds=9e6, eval_seconds=9.0, device="cpu (x86_64)")
    fast = record_of(job_of(registry, "table2/hinge"), train_seconds=9e4, eval_seconds=9.0)
    cost = cost_of(registry, job, (slow, fast))
    assert (cost.unit, cost.train_seconds.value) == ("GPU", pytest.approx(9e4))


def test_only_what_is_left_costs_anything(registry: Registry, tmp_path: Path) -> None:
    job = job_of(registry, "table2/L6")
    run = RunDir(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "0060000.pt").touch()
    (run.checkpoints / "0059000.pt").touch()
    assert cost_of(registry, job, run=run.root).iterations == 30_000
    run.final.touch()
    trained = cost_of(registry, job, run=run.root)
    assert (trained.train_seconds.value, trained.test_seconds.value) == (0.0, pytest.approx(78.125))
    run.record(job.id).parent.mkdir(parents=True)
    run.record(job.id).touch()
    assert cost_of(registry, job, run=run.root).device_hours == 0


def test_unknown_is_never_zero(registry: Registry) -> None:
    job = job_of(registry, "table2/L6", "overfit")
    unknown = run_cost(Rates(registry.profile("overfit"), ()), job.train, [job], RunDir(Path("/none")))
    assert unknown.train_seconds.value is None
    assert unknown.requeues(3600) is None
    known = cost_of(registry, job_of(registry, "table2/L6"))
    data = costs_as_data([unknown, known], 4 * 3600)
    assert data["gpu_hours"] == {"value": None, "known": known.device_hours, "unknown_runs": 1}
    assert data["requeues"] == {"value": None, "known": 3, "unknown_runs": 1}
    text = "\n".join(costs_as_lines([unknown, known], None))
    assert "GPU-hours: at least 96.8 (unknown for 1 runs)" in text
    assert "slim: training unknown" in text


def test_requeues_are_the_starts_beyond_the_first(registry: Registry) -> None:
    cost = cost_of(registry, job_of(registry, "table2/L6"))
    seconds = cost.wall_seconds
    assert seconds == pytest.approx(43_548.125)
    assert cost.requeues(4 * 3600) == 3  # 43,548 / (14,400 - 180) = 3.06 starts
    assert cost.requeues(seconds + 180) == 0
    assert cost.requeues(seconds + 179) == 1
    assert cost.requeues(seconds / 2 + 180) == 1


@pytest.mark.parametrize(("text", "seconds"), [("4h", 14400), ("90min", 5400), ("1d12h", 129600), ("1.5h", 5400)])
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text, "--wall-time") == seconds


@pytest.mark.parametrize("text", ["", "4", "h", "4 h", "-4h", "0h", "4h!", "4x"])
def test_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--wall-time takes a time such as 4h"):
        parse_duration(text, "--wall-time")


def test_wall_time_of_a_mere_start_is_refused() -> None:
    with pytest.raises(UsageError, match="every start takes about 180 s"):
        parse_wall_time("3min")


def test_plan_prints_costs_with_their_basis() -> None:
    text = invoke("plan", "all", "--wall-time", "4h").stdout
    assert "stated (Detectron's model zoo, 8 P100)" in text
    assert "1,451.6" in text  # 15 trainings of ResNet-50, 96.8 GPU-hours each
    assert "Disk: 2.9 GB of final weights" in text
    assert "Requeues with 4.0 h per start" in text
    data = json.loads(invoke("plan", "all", "--wall-time", "4h", "--json").stdout)["costs"]
    assert len(data["runs"]) == 17
    assert data["gpu_hours"]["value"] == pytest.approx(sum(run["device_hours"] for run in data["runs"]))
    assert data["runs"][0]["train_seconds"]["basis"] == "stated"
    assert data["runs"][0]["requeues"] == 3
    assert "Requeues" not in invoke("plan", "all").stdout
    assert "takes a time" in error("plan", "all", "--wall-time", "soon")


def test_plan_measures_by_the_committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    data = json.loads(invoke("plan", "table2", "--profile", "tiny", "--json").stdout)["costs"]
    (found,) = {(run["train_seconds"]["basis"], run["unit"]) for run in data["runs"]}
    assert found == ("measured", "CPU")
    assert data["runs"][0]["train_seconds"]["runs"] > 50
    assert 5 < data["runs"][0]["train_seconds"]["value"] < 200


def test_stated_speed_is_checked_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_experiments(tmp_path / "experiments")
    path = folder / "profiles" / "paper.yaml"
    path.write_text(path.read_text().replace("resnet50: 0.483", "resnet51: 0.483"))
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    assert "paper.yaml:" in error("plan", "table2")


def test_plan_with_costs_and_budget_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from harness.cli import app\n"
        "for more in ([], ['--budget', '400gpuh'], ['--gpus', '8xH100']):\n"
        "    assert CliRunner().invoke(app, ['plan', 'all', *more]).exit_code == 0\n"
        "assert not {'torch', 'pandas', 'scipy.stats'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PROJECT)
