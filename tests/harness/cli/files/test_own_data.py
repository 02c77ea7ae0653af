"""``harness data import`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tool_exports as tools
from tests.command import error, invoke


def test_the_form_is_detected_and_told_with_the_next_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_EXPERIMENTS", raising=False)
    source = tools.voc(tmp_path / "in")
    (source / "Annotations/b_001.xml").unlink()
    said = invoke("data", "import", str(source), "--out", str(tmp_path / "My set")).output
    assert "form: voc (detected)" in said
    assert "told: images without an XML file (left out: nobody says that they are empty): 1" in said
    assert "split: 4 images in 2 groups: 1 train, 1 val (seed 0)" in said
    assert f"harness data verify '{tmp_path}/My set'" in said
    assert f"harness new profile my-set --data '{tmp_path}/My set'" in said
    assert f"harness run table2/L6 --profile my-set --data '{tmp_path}/My set'" in said
    assert invoke("data", "verify", str(tmp_path / "My set")).output.endswith("ok\n")


def test_json_holds_what_was_made(tmp_path: Path) -> None:
    result = invoke("data", "import", "yolo", str(tools.yolo(tmp_path / "in")), "--out", str(tmp_path / "o"), "--json")
    found = json.loads(result.stdout)
    assert found["form"] == "yolo"
    assert found["names"] == ["cup", "jug"]
    assert sum(found["images"].values()) == 5
    assert sum(found["boxes"].values()) == 6


def test_too_many_words_are_refused(tmp_path: Path) -> None:
    assert "one folder" in error("data", "import", "voc", "a", "b", "--out", str(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_an_option_of_another_form_is_refused(tmp_path: Path) -> None:
    source = str(tools.yolo(tmp_path / "in"))
    assert "--zero-based" in error("data", "import", source, "--out", str(tmp_path / "o"), "--zero-based")
    assert "--label-attribute" in error(
        "data", "import", source, "--out", str(tmp_path / "o"), "--label-attribute", "x"
    )
