"""Each check of ``harness audit`` with made-up records that it must see, and with sound ones that it must pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from detector.runs.code import Code
from detector.runs.findings import Health
from detector.runs.provenance import FileDigest, ImagesDigest, Inputs
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.audit.audit import CHECKS, audit
from harness.audit.evidence import Finding
from harness.cli import app
from harness.folders import experiments_folder
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of
from tests.command import invoke

pytestmark = pytest.mark.usefixtures("empty_folders")
Put = Callable[..., Path]
# Ours at the paper's scale where nothing is wrong: some cells above the paper's numbers, some below.
SOUND = {"table2/focal": 36.3, "table2/hinge": 35.6, "table2/rho0.5": 37.0, "table2/L6": 37.5, "table2/L10": 36.9}


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write the record of one seed of a row, with another AP in the last digits for each."""
    registry = Registry()

    def write(ref: str, ap: float = 24.0, *, seed: int = 0, profile: str = "tiny", **changes: Any) -> Path:
        job = eval_job(resolve(registry, ref, registry.profile(profile)), seed)
        record = record_of(job)
        metrics = {"AP": ap + 1e-6 * int(job.id[:6], 16) / 16**6, "positive_score": 0.5}
        record = replace(record, **{"profile": profile, "metrics": metrics, **changes})
        if record.format == 2:
            record = replace(record, sha256=content_hash(record))
        path = tmp_path / "results" / "records" / profile / f"{job.id}.json"
        write_json(path, record)
        return path

    return write


def look(profile: str = "tiny", target: str = "all") -> list[Finding]:
    return list(audit(Selection(target, profile, [], None)).findings)


def only(profile: str = "tiny", target: str = "all") -> Finding:
    (finding,) = look(profile, target)
    return finding


def sealed(path: Path) -> Record:
    """The record of a file, in format 2 and with its hash, written back."""
    record = replace(msgspec.json.decode(path.read_bytes(), type=Record), format=2)
    record = replace(record, sha256=content_hash(record))
    write_json(path, record)
    return record


def test_nothing_is_found_in_sound_records(put: Put) -> None:
    for seed in range(2):
        for ref in ("table2/focal", "table2/L6", "table1/hp-e_hn-e"):
            sealed(put(ref, 20.0 + seed, seed=seed))
    assert look() == []


def test_nothing_is_found_where_nothing_was_run() -> None:
    assert look() == look("paper") == []


# Files


def test_a_damaged_file_is_a_finding_and_no_error(put: Put) -> None:
    path = put("table2/L6")
    path.write_text(path.read_text()[:200])
    finding = only()
    assert finding.check == "unreadable record"
    assert finding.where == (f"tiny/{path.name}",)


def test_a_record_with_another_content_than_its_hash_is_edited(put: Put) -> None:
    path = put("table2/L6")
    record = sealed(path)
    assert look() == []
    write_json(path, replace(record, metrics={**record.metrics, "AP": 40.0}))
    assert [finding.check for finding in look()] == ["unreadable record"]
    assert "it was edited after it was written" in only().found


def test_equal_metrics_under_two_seeds_are_a_copy(put: Put) -> None:
    put("table2/L6", seed=0, metrics={"AP": 24.125, "AP50": 50.0})
    put("table2/L6", seed=1, metrics={"AP": 24.125, "AP50": 50.0})
    finding = only()
    assert finding.check == "duplicate record"
    assert "seeds 0, 1" in finding.found


def test_rows_that_collapsed_to_zero_are_no_copies(put: Put) -> None:
    for seed in range(2):
        put("ablations/worst-case", seed=seed, metrics={"AP": 0.0, "AP50": 0.0})
    assert look() == []


def test_a_local_run_with_other_numbers_than_the_committed_one_is_said(put: Put, tmp_path: Path) -> None:
    record = msgspec.json.decode(put("table2/L6").read_bytes(), type=Record)
    local = tmp_path / "runs" / record.train_id / "evals" / record.eval_id / "record.json"
    write_json(local, record)
    assert look() == []
    write_json(local, replace(record, metrics={"AP": 25.0}))
    finding = only()
    assert finding.check == "two results of one id"
    assert finding.found == "The same job gave an AP of 24.00, 25.00."


def test_a_run_folder_that_was_set_aside_is_not_counted(put: Put, tmp_path: Path) -> None:
    record = msgspec.json.decode(put("table2/L6").read_bytes(), type=Record)
    aside = tmp_path / "runs" / f"{record.train_id}.replaced-2026" / "evals" / record.eval_id / "record.json"
    write_json(aside, replace(record, metrics={"AP": 25.0}))
    assert look() == []


def test_a_record_of_no_row_is_an_orphan_unless_it_says_what_it_is(put: Put, tmp_path: Path) -> None:
    registry = Registry()
    changed = resolve(registry, "table2/L6", registry.profile("tiny"), overrides={"optimizer.lr": 0.05})
    record = replace(record_of(eval_job(changed, 0)), metrics={"AP": 20.0})
    path = tmp_path / "results" / "records" / "tiny" / f"{record.eval_id}.json"
    write_json(path, replace(record, notes=("overridden by --set, not the paper's: optimizer.lr=0.05",)))
    assert look() == []
    write_json(path, record)
    assert only().check == "record of no row"
    assert look(target="table2") == []  # a matter of the whole store


# Settings


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the experiments, for a test to change."""
    folder = tmp_path / "experiments"
    shutil.copytree(experiments_folder(), folder)
    monkeypatch.setattr("harness.registry.load.experiments_folders", lambda new=None: (folder,))
    return folder


def test_a_row_with_another_learning_rate_than_its_recipe_is_seen(experiments: Path) -> None:
    assert look("paper") == []
    path = experiments / "table2.yaml"
    text = path.read_text()
    assert "  - id: hinge\n" in text
    path.write_text(
        text.replace("loss.surrogate: {name: hinge}", "loss.surrogate: {name: hinge}, optimizer.momentum: 0.8")
    )
    found = {finding.check: finding for finding in look("paper")}
    assert found.keys() == {"settings beyond the ledger", "unequal contrast"}
    assert "optimizer.momentum is 0.8, not 0.9" in found["settings beyond the ledger"].found
    assert "smooth-beats-hinge" in found["unequal contrast"].where


# Conditions


def test_two_commits_in_one_contrast_are_mixed(put: Put) -> None:
    for ref, commit in (("table2/L6", "a" * 40), ("table1/hp-e_hn-e", "a" * 40), ("table2/focal", "b" * 40)):
        put(ref, code=Code(version="0", commit=commit, modified=False))
    finding = only()
    assert finding.check == "mixed code"
    assert "table1/hp-e_hn-e against table2/focal" in finding.where
    assert "commit bbbbbbbb (1 record)" in finding.found


def test_two_commits_in_rows_that_no_claim_compares_are_not_mixed(put: Put) -> None:
    put("table1/hp-e_hn-3.5", code=Code(version="0", commit="a" * 40, modified=False))
    put("table2/hinge", code=Code(version="0", commit="a" * 40, modified=False))
    put("ablations/all-logistic", code=Code(version="0", commit="b" * 40, modified=False))
    assert look() == []


def test_of_mixed_libraries_those_that_differ_are_named(put: Put) -> None:
    put("table2/L6", environment={"torch": "2.7", "numpy": "2.4", "threads": "1"})
    put("table2/L6", environment={"torch": "2.8", "numpy": "2.4", "threads": "1"}, seed=1)
    finding = only()
    assert finding.check == "mixed libraries"
    assert finding.found.endswith("torch 2.7 (1 record) and torch 2.8 (1 record).")


def test_mixed_threads_are_a_matter_of_execution(put: Put) -> None:
    put("table2/L6", environment={"threads": "1"})
    put("table2/L6", environment={"threads": "4"}, seed=1)
    assert only().check == "mixed hardware or execution"


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("initial weights", [Inputs(weights=FileDigest(name="R-50.pkl", sha256=digit * 64)) for digit in "ab"]),
        ("images", [Inputs(train_images=ImagesDigest(images=1, bytes=1, names_and_sizes=d * 64)) for d in "ab"]),
    ],
)
def test_unequal_inputs_of_one_row_are_mixed(put: Put, kind: str, inputs: list[Inputs]) -> None:
    for seed, item in enumerate(inputs):
        put("table2/L6", seed=seed, format=2, inputs=item)
    assert f"mixed {kind}" in {finding.check for finding in look()}


def test_what_a_training_found_wrong_is_repeated(put: Put) -> None:
    put("table2/L6", format=2, health=(Health(name="no learning", message="loss 2.033 of 2.032"),))
    finding = only()
    assert finding.check == "ill run"
    assert "seed 0: no learning (loss 2.033 of 2.032)" in finding.found


def test_a_row_far_below_the_others_is_a_finding_unless_a_claim_expects_it(put: Put) -> None:
    for ref, ap in (("table2/L6", 24.0), ("table2/focal", 21.0), ("table3/all", 5.0)):
        put(ref, ap)
    assert "collapsed row" not in {finding.check for finding in look()}
    put("table1/hp-e_hn-20", 5.0)
    (finding,) = [finding for finding in look() if finding.check == "collapsed row"]
    assert finding.where == ("table1/hp-e_hn-20",)


# Numbers, at the paper's scale


def at_papers_scale(put: Put, values: dict[str, float]) -> set[str]:
    for ref, ap in values.items():
        put(ref, ap, profile="paper")
    return {finding.check for finding in look("paper")}


def test_a_table_that_is_off_by_one_offset_is_shifted(put: Put) -> None:
    published = {f"table2/{row.id}": row.published for row in Registry().table("table2").rows}
    found = at_papers_scale(put, {ref: published[ref][0] + 1.0 for ref in SOUND})  # type: ignore[index]
    assert "shifted table" in found


def test_a_table_with_cells_on_both_sides_is_not_shifted(put: Put) -> None:
    assert at_papers_scale(put, SOUND) <= {"provisional verdicts"}


def test_a_focal_baseline_at_drs_number_is_seen(put: Put) -> None:
    found = at_papers_scale(put, {**SOUND, "table1/hp-e_hn-e": 37.2, "table2/focal": 37.4})
    assert "baseline at the better row's number" in found
    (finding,) = [finding for finding in look("paper") if finding.check.startswith("baseline")]
    assert finding.where[0] == "table2/focal"


# Seeds


def test_a_verdict_by_one_seed_is_provisional(put: Put) -> None:
    for seed in range(2):
        put("table3/dr", 24.0 + seed / 10, seed=seed)
    put("table3/all", 3.0)
    (finding,) = [finding for finding in look() if finding.check == "provisional verdicts"]
    assert finding.where == ("all-pairs-collapse supported",)


def test_a_row_without_one_of_its_seeds_has_a_gap(put: Put) -> None:
    for seed in (0, 2):
        put("table2/L6", 24.0 + seed, seed=seed)
    finding = only()
    assert finding.check == "seeds with gaps"
    assert finding.found == "table1/hp-e_hn-3.5 has seeds 0, 2, not 1."


def fill(put: Put, dr: list[float], focal: list[float]) -> None:
    """Two seeds of most rows; of DR and focal as many as are given, finished one after another."""
    for seed in range(2):
        for i, ref in enumerate(("table2/hinge", "table2/L4", "table2/L8", "table1/hp-20_hn-3.5")):
            put(ref, 24.0 + seed + i / 10, seed=seed)
    for ref, values in (("table1/hp-e_hn-e", dr), ("table2/focal", focal)):
        for seed, ap in enumerate(values):
            put(ref, ap, seed=seed, finished=f"2026-01-0{seed + 1}T00:00:00+00:00")


def test_a_verdict_that_came_with_seeds_of_its_rows_alone_is_said(put: Put) -> None:
    fill(put, [24.0, 25.1, 26.9, 27.1, 26.9, 27.0], [22.9, 24.9, 21.0, 20.9, 21.1, 21.0])
    (finding,) = [finding for finding in look() if finding.check == "seeds added until a verdict"]
    assert finding.where[0] == "dr-beats-focal"
    assert finding.found.startswith("supported with 6 seeds, undecided with the 2")


def test_a_verdict_that_the_first_seeds_give_too_needs_no_word(put: Put) -> None:
    fill(put, [34.0, 35.0, 34.0], [22.0, 23.0, 22.0])
    assert "seeds added until a verdict" not in {finding.check for finding in look()}


# The command


def test_audit_prints_what_it_means_and_what_to_do_in_80_columns(put: Put) -> None:
    put("table2/L6", format=2, health=(Health(name="no learning", message="loss 2.033 of 2.032"),))
    text = invoke("audit", "all", "--profile", "tiny").stdout
    assert "ILL RUN\n    table1/hp-e_hn-3.5\n    Found: seed 0: no learning" in text
    assert "    Means: " in text
    assert "    Do: " in text
    assert max(map(len, text.splitlines())) <= 80


def test_check_says_in_one_line_what_an_audit_finds(put: Put) -> None:
    put("table2/L6")
    assert f"Audit: {len(CHECKS)} checks found nothing." in invoke("check", "table2", "--profile", "tiny").stdout
    put("table2/L6", seed=2)
    line = "Audit: 1 finding (seeds with gaps); next: harness audit table2 --profile tiny"
    assert line in invoke("check", "table2", "--profile", "tiny").stdout
    assert json.loads(invoke("check", "table2", "--profile", "tiny", "--json").stdout)["audit"] == line
    assert "Audit" not in invoke("check", "table2", "--profile", "tiny", "--format", "md").stdout


def test_audit_json_has_every_finding_and_strict_exits_with_1(put: Put) -> None:
    put("table2/L6", format=2, health=(Health(name="no learning", message="loss 2.033 of 2.032"),))
    data = json.loads(invoke("audit", "table2", "--profile", "tiny", "--json").stdout)
    assert (data["checks"], data["records"]) == (len(CHECKS), 1)
    assert [finding["check"] for finding in data["findings"]] == ["ill run"]
    strict = ["--profile", "tiny", "--strict"]
    assert CliRunner().invoke(app, ["audit", "all", *strict]).exit_code == 1
    invoke("audit", "table4", *strict)
