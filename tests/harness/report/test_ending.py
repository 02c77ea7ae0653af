"""What ``harness check`` ends with: sentences from the verdicts, and the cheapest command that would decide a claim."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.storage.files import write_json
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.report.ending import Step, ending, next_step
from harness.report.views import judge
from tests.command import invoke
from tests.harness.report.progress.test_in_flight import finish, job_of

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]
AP = {"focal": 20.7, "hinge": 23.8, "rho0.2": 23.7, "rho0.5": 23.2, "L4": 23.0, "L6": 23.1, "L8": 23.7, "L10": 23.9}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def train_table2(registry: Registry) -> None:
    for row, value in AP.items():
        finish(job_of(registry, f"table2/{row}"), value)


def step_of(profile: str = "tiny") -> Step:
    step = next_step(Selection("table2", profile, [], None))
    assert step is not None
    return step


def test_one_seed_of_a_table_ends_with_what_it_shows_and_with_one_command(registry: Registry) -> None:
    train_table2(registry)
    selection = Selection("table2", "tiny", [], None)
    lines = ending(judge(selection), selection).split("\n")
    text = " ".join(line.strip() for line in lines)
    assert text.startswith(
        "In short Measured at profile tiny: 8 of 8 rows of table2, 1 seed each; AP from 20.7 (table2/focal) to 23.9 "
        "(table2/L10). Of the 3 claims about these rows that it can decide: 0 supported, 0 contradicted, 3 undecided. "
        "One seed per row shows a collapse and no finer difference"
    )
    # Of six claims that the profile can decide, this one takes the fewest trainings: one row and a half of three seeds.
    assert "whether worst-case-fails holds: Ranking only the hardest" in text
    assert "It takes 2 rows with 3 seeds, 5 trainings to do, about " in text
    assert lines[-1] == "  harness run ablations/worst-case table3/dr --profile tiny --seeds 3"
    assert sum("harness run" in line for line in lines) == 1


def test_the_next_step_follows_what_is_decided(registry: Registry) -> None:
    train_table2(registry)
    first = step_of()
    for seed in range(3):
        finish(job_of(registry, "ablations/worst-case", seed), 1.0 + seed / 10)
        finish(job_of(registry, "table3/dr", seed), 23.0 + seed / 10)
    second = step_of()
    assert (first.claim.id, second.claim.id) == ("worst-case-fails", "all-pairs-collapse")
    assert second.rows == ("table3/all", "table3/dr")
    assert second.runs == 3  # those of table3/dr are done


def test_what_its_seeds_did_not_decide_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the committed records one claim is left, which has its three seeds; they would be made again as they are."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    assert next_step(Selection("table3", "tiny", [], None)) is None
    said = invoke("check", "table3", "-p", "tiny").stdout
    assert "In short" in said
    assert "harness run" not in said.split("In short")[1]


def test_the_time_is_that_of_the_cost_model(registry: Registry) -> None:
    train_table2(registry)
    before = step_of()
    for row in AP:
        job = job_of(registry, f"table2/{row}")
        path = RunDir(Path(os.environ["HARNESS_RUNS"]) / job.train.id).record(job.id)
        record = RunDir(path.parents[2]).read_record(job.id)
        assert record is not None
        write_json(path, replace(record, train_seconds=1000 * record.train_seconds))
    assert step_of().hours > 3 * before.hours
    assert step_of("paper").unit == "GPU"


def test_without_a_run_it_says_so_and_names_the_cheapest_claim_of_all() -> None:
    selection = Selection("table2", "paper", [], None)
    text = ending(judge(selection), selection)
    assert "None of the 8 rows of table2 was run at profile paper." in text
    assert text.endswith("harness run ablations/worst-case table3/dr --profile paper --seeds 3")


def test_check_ends_with_it_in_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    said = invoke("check", "table2", "-p", "tiny").stdout
    assert "\n\nIn short\n" in said
    assert "In short" not in invoke("check", "table2", "-p", "tiny", "--format", "md").stdout
    assert "In short" not in invoke("check", "table2", "-p", "tiny", "--json").stdout
