"""Model cards: every number and sum is the run's own, and nothing from data acts in them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.findings import Health
from detector.runs.job import CocoRelease
from detector.runs.provenance import FileDigest, Inputs
from detector.runs.record import Record
from harness.report.card.facts import began_with, card_facts, data_licence
from harness.report.card.head import card_head
from harness.report.card.text import CITATION, model_card
from tests.command import error, invoke
from tests.conftest import PROJECT
from tests.made_records import commit, made_record

pytestmark = pytest.mark.usefixtures("empty_folders")
AP = 23.123456789012344


def made(place: Path, seed: int = 0, **changes: Any) -> Record:
    record = made_record("table2/L6", seed)
    record = made_record("table2/L6", seed, metrics=record.metrics | {"AP": AP + seed, "APL": None}, **changes)
    commit(record, place / "results")
    return record


def head(card: str) -> dict[str, Any]:
    found = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_head_has_the_fields_of_hubs_with_unrounded_metrics(tmp_path: Path) -> None:
    record = made(tmp_path)
    card = model_card(card_facts("table2/L6", "tiny", None), "apache-2.0")
    fields = head(card)
    assert (fields["license"], fields["pipeline_tag"]) == ("apache-2.0", "object-detection")
    (model,) = fields["model-index"]
    assert model["name"] == f"retinanet-slim-dr-{record.train_id[:8]}"
    (result,) = model["results"]
    assert set(result) == {"task", "dataset", "metrics"}
    assert result["task"]["type"] == "object-detection"
    assert result["dataset"]["type"] == "generated-shapes"
    assert {item["type"]: item["value"] for item in result["metrics"]}["AP"] == AP
    assert fields["metrics"] == [item["type"] for item in result["metrics"]]
    assert "APL" not in fields["metrics"]
    assert "datasets" not in fields


def test_the_text_has_the_run_and_its_row_and_says_what_is_unknown(tmp_path: Path) -> None:
    made(tmp_path)
    alone = model_card(card_facts("table2/L6", "tiny", None))
    assert "| AP (AP at IoU 0.50:0.95, percent) | 23.1 |" in alone
    assert "One seed was run" in alone
    assert "These weights: unknown" in alone
    assert "APL are unknown" in alone
    assert "None is on the machine that wrote this card" in alone
    made(tmp_path, 1)
    several = model_card(card_facts("table2/L6", "tiny", 1))
    assert "table2/L6: mean ± deviation of 2 seeds" in several
    assert "| 24.1 | 23.6 ± 0.7 |" in several
    assert "One seed was run" not in several
    assert "| loss.surrogate.L | 6 | paper §4.3 |" in several
    assert "| matching.background_iou | 0.5 | silent | 0.5 | 0.4 |" in several


def test_only_a_profile_that_compares_puts_the_papers_numbers_beside(tmp_path: Path) -> None:
    made(tmp_path)
    facts = card_facts("table2/L6", "tiny", None)
    assert "37.4" not in model_card(facts)
    assert facts.profile is not None
    assert facts.row is not None
    compared = replace_facts(facts, compare_with_paper=True)
    assert "| AP | 23.1 | 37.4 |" in model_card(compared)


def replace_facts(facts: Any, *, compare_with_paper: bool) -> Any:
    from dataclasses import replace as replace_data

    return replace_data(facts, profile=replace(facts.profile, compare_with_paper=compare_with_paper))


def test_files_are_those_that_load_run_needs_with_their_sums(tmp_path: Path) -> None:
    record = made_record("table2/L6", 0)
    run = tmp_path / "runs" / record.train_id
    path = commit(record, tmp_path / "results")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "final.pt").write_bytes(b"weights")
    (run / "job.json").write_bytes(b"{}")
    (run / "evals" / record.eval_id).mkdir(parents=True)
    path.rename(run / "evals" / record.eval_id / "record.json")
    by_row, by_id = card_facts("table2/L6", "tiny", 0), card_facts(record.train_id[:8], "paper", None)
    by_folder = card_facts(str(run), "paper", None)
    assert by_id == by_folder
    assert by_row.record == by_id.record
    assert by_row.files["checkpoints/final.pt"] == hashlib.sha256(b"weights").hexdigest()
    assert list(by_row.files) == ["checkpoints/final.pt", "job.json", f"evals/{record.eval_id}/record.json"]
    card = model_card(by_row)
    assert model_card(by_id) == model_card(by_folder)
    assert str(tmp_path) not in card
    assert f'detector.load_run("{record.train_id}")' in card


def test_nothing_from_data_begins_a_tag_a_link_or_a_cell(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script> | [x](http://evil) \x1b[31m\n# heading"
    record = made(tmp_path, health=(Health(name="collapsed", message=hostile),), notes=(hostile,))
    card = model_card(card_facts(record.eval_id, "tiny", None))
    assert "<script" not in card
    assert "\x1b" not in card
    assert "](http" not in card
    assert not re.search(r"(?m)^# heading", card)
    assert card.count("alert(1)") == 2


def test_licences_are_what_is_known(tmp_path: Path) -> None:
    record = made(tmp_path)
    assert "no licence" in began_with(record)
    job = record.job
    train = replace(
        job.train,
        data=CocoRelease(release="2017", train_split="train2017", test_split="val2017"),
        model=replace(job.train.model, weights="caffe2"),
    )
    digest = Inputs(weights=FileDigest(name="R-50.pkl", sha256="a" * 64))
    coco = replace(record, job=replace(job, train=train), inputs=digest)
    assert "CC BY 4.0" in data_licence(coco)
    assert began_with(coco) == f"ImageNet weights R-50.pkl, sha256 {'a' * 64}, licence unknown"
    from dataclasses import replace as replace_data

    facts = replace_data(card_facts("table2/L6", "tiny", None), record=coco)
    assert head(card_head(facts, "other"))["datasets"] == ["coco"]
    with pytest.raises(UsageError, match="is no name of a licence"):
        card_head(facts, "Apache 2.0: [x]")


def test_the_command_prints_or_writes_the_card_and_refuses_what_is_no_run(tmp_path: Path) -> None:
    made(tmp_path)
    printed = invoke("weights", "card", "table2/L6", "--profile", "tiny").stdout
    out = tmp_path / "card.md"
    invoke("weights", "card", "table2/L6", "--profile", "tiny", "--out", str(out))
    assert out.read_text() == printed
    assert "No finished run of table2/L6, seed 5, profile tiny. It has the seeds 0." in error(
        "weights", "card", "table2/L6", "--profile", "tiny", "--seed", "5"
    )
    assert "Make it: harness run table2/L8 --profile tiny --seeds 1" in error(
        "weights", "card", "table2/L8", "--profile", "tiny"
    )


def test_the_citation_is_that_of_the_readme() -> None:
    assert CITATION in (PROJECT / "README.md").read_text()
