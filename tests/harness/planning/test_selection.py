"""Several targets at once: each row once, the wrong name told, every command's words and next commands."""

from __future__ import annotations

import json

import pytest

from harness.launch.run import Request, RunResult
from harness.planning.selection import Selection
from tests.command import error, invoke

pytestmark = pytest.mark.usefixtures("empty_folders")
TINY = ("--profile", "tiny")
TWO = ("table2/focal", "table2/L6")


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ("table2/L6", ("table2/L6",)),
        (["table2/L6", "table2/focal", "table2/L6"], ("table2/L6", "table2/focal")),
        (["table2/L6", "table3", "table2"], ("table3", "table2")),
        (["table2/L6", "all", "table3"], ("all",)),
        (["ablations/focal-r101", "all"], ("ablations/focal-r101", "all")),  # which stands for the paper's tables only
    ],
)
def test_targets_are_each_once_and_the_widest(given: str | list[str], targets: tuple[str, ...]) -> None:
    selection = Selection(given, "paper", [], None)
    assert selection.targets == targets
    assert selection.target == " ".join(targets)
    alone = [ref for name in targets for ref in Selection(name, "paper", [], None).refs]
    assert selection.refs == list(dict.fromkeys(alone))


@pytest.mark.parametrize("command", ["plan", "run", "status", "table", "check", "cancel", "audit"])
def test_the_wrong_one_of_several_targets_is_named(command: str) -> None:
    assert error(command, "table2/focal", "table2/L7", "table3", *TINY) == (
        "Unknown row 'L7' of table2. Known: focal, hinge, rho0.2, rho0.5, L4, L6, L8, L10. Run 'harness list'."
    )


def test_plan_of_several_targets_counts_shared_trainings_once() -> None:
    planned = json.loads(invoke("plan", "table3/dr", "table2/focal", "table2/L6", *TINY, "--json").stdout)
    assert planned["target"] == "table3/dr table2/focal table2/L6"
    assert [item["rows"] for item in planned["trainings"]] == [["table3/dr", "table2/L6"], ["table2/focal"]]


def test_tables_of_several_targets_have_the_rows_of_all() -> None:
    views = json.loads(invoke("table", *TWO, "table3", *TINY, "--json").stdout)
    assert [[row["ref"] for row in view["rows"]] for view in views] == [
        list(TWO),
        ["table3/all", "table3/neg-only", "table3/dr"],
    ]


def test_status_and_cancel_and_check_take_several() -> None:
    lines = invoke("status", *TWO, *TINY).stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == list(TWO)
    assert "Nothing of table2/focal table2/L6, profile tiny, runs here" in invoke("cancel", *TWO, *TINY).stderr
    checked = json.loads(invoke("check", "table2/focal", "table3/all", *TINY, "--json").stdout)
    assert checked["target"] == "table2/focal table3/all"
    alone = [json.loads(invoke("check", name, *TINY, "--json").stdout) for name in ("table2/focal", "table3/all")]
    assert {claim["id"] for claim in checked["claims"]} == {claim["id"] for one in alone for claim in one["claims"]}


def test_all_with_an_ablation_judges_every_claim() -> None:
    checked = json.loads(invoke("check", "all", "ablations/focal-r101", *TINY, "--json").stdout)
    alone = json.loads(invoke("check", "all", *TINY, "--json").stdout)
    assert [claim["id"] for claim in checked["claims"]] == [claim["id"] for claim in alone["claims"]]


def test_the_next_command_names_the_tables_of_all_targets() -> None:
    selection = Selection([*TWO, "table3"], "tiny", [], None)
    plan = selection.plan(1)
    result = RunResult(
        target=selection.target, plan=plan, runs=selection.store.runs, data_root=selection.store.runs, done=()
    )
    assert result.tables == "table2 table3"


def test_a_request_takes_one_target_or_several() -> None:
    assert Request(target="table2", profile="tiny").target == "table2"
    assert list(Request(target=TWO, profile="tiny").target) == list(TWO)
