"""Commands that train nothing: what they print, their exit codes, and errors without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.app import _message
from tests.command import error, invoke

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]
COMMANDS = [
    "list",
    "plan",
    "run",
    "table",
    "check",
    "audit",
    "explain",
    "collect",
    "eval",
    "export",
    "record",
    "status",
    "logs",
    "cancel",
    "score",
    "detect",
    "schema",
    "doctor",
]


def run(*arguments: str) -> str:
    return invoke(*arguments).stdout


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_list_json_carries_every_row_with_its_published_numbers() -> None:
    data = run_json("list")
    rows = {row["ref"]: row for table in data["tables"] for row in table["rows"]}
    paper = [row for ref, row in rows.items() if not ref.startswith("ablations/")]
    assert len(paper) == 34
    assert all(set(row["published"]) == {"AP", "AP50", "AP75", "APS", "APM", "APL"} for row in paper)
    assert rows["table2/L6"]["published"]["AP"] == 37.4
    profiles = {"paper", "one-gpu", "small", "tiny", "smoke", "overfit"}
    assert {profile["name"] for profile in data["profiles"]} == profiles
    assert "37.4" in run("list")


def test_plan_counts_trainings_after_deduplication() -> None:
    assert "8 cells -> 8 trainings, 8 to do" in run("plan", "table2", "--profile", "tiny")
    data = run_json("plan", "all", "--profile", "paper", "--seeds", "2")
    assert data["cells"] == 21 * 2
    assert len(data["trainings"]) == 17 * 2
    assert data["resolution"]["seeds_needed"]["0.2"] == 13
    assert data["resolution"]["seeds_needed_if_common"]["0.2"] == 4


def test_plan_uses_the_share_of_the_seed_where_it_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "0.2 AP: 13 [4]" in run("plan", "table2")
    assert "in brackets, if 70%, as at the profile tiny" in run("plan", "table2")
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    text = run("plan", "table2", "--profile", "tiny", "--seeds", "3")
    assert "Seed deviation measured: 0.63 AP.\n70% of its variance is the seed's" in text
    assert "[" not in text.splitlines()[-1]


def test_check_takes_looks_and_warns_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    plain = run("check", "all", "--profile", "tiny")
    assert "70% of the variance (95% interval 33 to 99%) is the seed's" in plain
    assert "turns a false verdict in 5% of cases into 12%" in " ".join(plain.split())
    looked = run("check", "all", "--profile", "tiny", "--looks", "2,3,5")
    assert "Looks named beforehand" in looked
    assert "Whoever adds seeds" not in looked
    assert "--looks takes the numbers of seeds" in error("check", "all", "--looks", "3,2")


def test_plan_of_a_folder_profile_says_that_ids_wait_for_the_data(coco_tiny: Path) -> None:
    assert "with --data DIR" in run("plan", "table2/L6", "--profile", "smoke")
    named = run_json("plan", "table2/L6", "--profile", "smoke", "--data", str(coco_tiny))
    assert named["identity_is_open"] is False


def test_explain_gives_every_value_and_its_source() -> None:
    data = run_json("explain", "table2/L6")
    settings = {item["path"]: item for item in data["settings"]}
    assert settings["loss.tau"] == {"path": "loss.tau", "value": 4.0, "source": "paper §3.3"}
    assert settings["matching.background_iou"]["source"] == "released config"
    assert data["same_training"] == ["table1/hp-e_hn-3.5", "table3/dr", "ablations/dr-base-test"]
    text = run("explain", "table2/L6", "--profile", "tiny")
    assert "lambda_neg = 0.0798" in text
    assert "test.flip                      no" in text


def test_plan_rescales_the_whole_schedule_with_the_batch_size() -> None:
    text = run("plan", "table2", "--batch-size", "4")
    assert "learning rate 0.0025, 360,000 iterations, warm-up 2,000, milestones 240,000, 320,000" in text
    assert "fill no table's cell" in text


@pytest.mark.parametrize("fmt", ["text", "md", "latex", "csv", "json", "html"])
def test_table_and_check_render_in_every_format_without_any_run(fmt: str) -> None:
    assert "37.4" in run("table", "all", "--format", fmt)
    assert "smooth-beats-hinge" in run("check", "all", "--format", fmt) or fmt in ("md", "latex", "html")


@pytest.mark.parametrize("kind", ["table", "recipe", "profile", "claims", "ledger", "speeds"])
def test_schema_is_a_json_schema(kind: str) -> None:
    assert "$defs" in json.loads(run("schema", kind))


def test_doctor_finds_nothing_that_fails_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    findings = json.loads(result.stdout)
    assert [finding for finding in findings if finding["state"] == "fail"] == []
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table", "tabel2"), "Unknown table 'tabel2'. Known: table1"),
        (("table", "table2", "--format", "pdf"), "Unknown format 'pdf'. Known: text, md"),
        (("plan", "table2/L7"), "Unknown row 'L7' of table2. Known: focal"),
        (("plan", "table2", "--profile", "big"), "Unknown profile 'big'. Known: one-gpu, overfit"),
        (("explain", "table2"), "explain takes one row"),
        (("schema", "row"), "Unknown kind of file 'row'"),
        (("run", "table2", "--profile", "smoke"), "A COCO root"),
        (("run", "table2", "--profile", "smoke", "--data", "/no/such/folder"), "the root folder does not exist"),
        (("run", "table2", "--profile", "tiny", "--set", "loss.tau"), "--set takes PATH=VALUE"),
        (("run", "table2", "--profile", "tiny", "--set", "batch.images=5"), "--set: batch.images is 5: not a multiple"),
        (("run", "table2", "--profile", "tiny", "--set", "test.short_sides=[]"), "--set: test.short_sides is empty"),
        (("run", "table2", "--profile", "tiny", "--set", "optimizer.lr=.inf"), "--set: optimizer.lr is inf"),
        (("run", "table2", "--profile", "tiny", "--set", "matching.background_iou=0.9"), "0.9: above foreground_iou"),
        (("run", "table2", "--profile", "tiny", "--set", "loss.name=focal"), "--set: unknown key 'h_pos'"),
        (("detect", "a.jpg", "--out", "b", "--profile", "tiny"), "No trained weights of table2/L6, seed 0"),
        (("detect", "a.jpg", "--out", "b", "--profile", "tiny", "--run", "table2"), "One row is needed"),
        (("eval", "table2", "--profile", "tiny"), "One row is needed"),
        (("eval", "table2/L6", "--backend", "fast"), "--backend goes with --weights; a record has the numbers of"),
        (("score", "no.json", "--data", "/no/such/folder"), "/no/such/folder"),
        (("score", "no.json", "--backend", "coco"), "Unknown backend 'coco'. Known: pycocotools, ultrafast"),
    ],
)
def test_bad_input_gets_one_clear_message(arguments: tuple[str, ...], message: str) -> None:
    assert message in error(*arguments)


@pytest.mark.coco
def test_weights_that_were_named_and_cannot_be_used_stop_a_run_that_could_do_without(coco_tiny: Path) -> None:
    named = ("--data", str(coco_tiny), "--weights", "/no/such/weights.pth")
    assert "/no/such/weights.pth" in error("run", "table2/L6", "--profile", "smoke", *named)


def test_what_the_system_refuses_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "schema", "table", "--out", str(tmp_path / "file" / "x.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}/file/x.json: Not a directory. Give another --out.\n"


def test_an_error_exits_with_2_and_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "table", "tabel2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: Unknown table 'tabel2'. Known: table1, table2, table3, table4, ablations. Run 'harness list'. "
        "Did you mean 'table2'?\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "data synth",
        "data subset",
        "data download",
        "data verify",
        "weights show",
        "weights convert",
        "bundle export",
        "bundle import",
    ],
)
def test_every_command_has_help(command: str) -> None:
    text = run(*command.split(), "--help")
    assert "Usage:" in text


def test_completion_offers_targets_and_profiles() -> None:
    environment = {**os.environ, "_HARNESS_COMPLETE": "complete_bash"}
    for words, expected in (("harness table table2/r", "table2/rho0.2"), ("harness run all --profile t", "tiny")):
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [str(Path(sys.executable).parent / "harness")],
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout.split(), done.stderr


def test_no_line_of_a_list_of_commands_is_cut_at_80_columns() -> None:
    for arguments in ([], ["bundle"], ["data"], ["new"], ["weights"]):
        printed = CliRunner().invoke(app, [*arguments, "--help"], terminal_width=80).output
        _, _, listed = printed.partition("Show this message and exit.")
        assert listed.strip()
        assert "..." not in listed


def test_a_message_about_a_megabyte_is_short() -> None:
    said = _message(f"begin {'x' * 2**20} end")
    assert len(said) < 11_000
    assert said.startswith("error: begin xxx")
    assert "xxx [1,038,586 letters] xxx" in said
    assert said.endswith("xxx end")
