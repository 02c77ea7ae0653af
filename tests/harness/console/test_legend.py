"""Dashes and abbreviations are explained under every text that has them, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.console.legend import legend
from tests.command import invoke

PROJECT = Path(__file__).resolve().parents[3]


def test_only_what_occurs_is_explained() -> None:
    assert legend("row  AP50  APL\nL6   52.1  -") == "AP50: at an IoU of 0.5; APL: of objects that are large."
    assert legend("nothing of the kind") == ""
    assert legend("AP 23.0, n 3") == "AP: COCO's average precision, in percent; n: number of seeds."


def test_a_cell_of_a_dash_is_told_from_a_minus_and_from_a_bullet() -> None:
    own = {"-": "not measured"}
    assert legend("row  x\nL6   -", own) == "-: not measured."
    assert legend("row  x  y\nL6   -  3", own) == "-: not measured."
    assert legend("- a bullet\nB - A\nlambda-\n--------", own) == ""


def test_words_within_names_paths_and_options_are_none() -> None:
    assert legend("runs/AP/x.json --n optimizer.lr=0.1 AP50.json n_pos") == ""


def test_a_text_may_explain_a_word_itself_and_add_its_own() -> None:
    assert legend("n  ± 0.3", {"n": "", "±": "deviation"}) == "±: deviation."


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("list", ["AP: COCO's", "APS, APM, APL: of objects", "h+: ", "ρ: ", "cited: "]),
        ("list --runs", ["AP: COCO's", "committed: in the results folder"]),
        ("table table2 -p tiny", ["AP50, AP75: at an IoU of 0.5, 0.75", "-: the test images have no object"]),
        ("table table2", ["APS, APM, APL: of objects"]),
        ("check table2 -p tiny", ["n: number of seeds", "±: half of the 95% interval", "Holm: ", "p: how likely"]),
        ("show table2/L6 -p tiny", ["AP: COCO's", "n: number of seeds", "±: standard deviation between seeds"]),
        ("compare table2/L6 table2/focal -p tiny", ["-: no object of that size", "?: not known"]),
        ("plan table2 -p tiny --seeds 4", ["AP: COCO's", "s/iteration: seconds per iteration"]),
        ("plan table2 --gpus 8xA100", ["s/it: ", "GPU-h: "]),
    ],
)
@pytest.mark.usefixtures("empty_folders")
def test_commands_explain_what_they_print(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    text = " ".join(invoke(*line.split()).stdout.split())
    for words in expected:
        assert words in text
    for unused in ("ETA: ", "sd: "):
        assert unused not in text
