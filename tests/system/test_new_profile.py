"""A data set unlike COCO, from its files to a record, by the commands that ``harness new`` prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from support.own_data import own_data
from support.workplace import Workplace

# Category ids with gaps, images that are not square, PNGs, splits of other names.
IDS = (3, 17, 900)


@pytest.mark.slow
def test_profile_of_a_data_set_trains_to_a_record_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workplace(tmp_path)
    root = own_data(tmp_path / "my data", category_ids=IDS, splits=("train", "val"), wider=24)
    new = ("new", "profile", "mine", "--data", str(root), "--cpu", "--iterations", "6")
    said = place.harness(*new, "--out", str(tmp_path / "experiments"))
    (command,) = [line.strip() for line in said.splitlines() if line.strip().startswith("harness run")]
    assert "Done." in place.harness(*shlex.split(command)[1:])
    (record,) = tmp_path.glob("runs/*/evals/*/record.json")
    assert json.loads(record.read_bytes())["job"]["train"]["data"]["train_split"] == "train"
    (found,) = tmp_path.glob("runs/*/evals/*/detections.json.gz")
    assert found.is_file()
    assert "pending" in place.harness("table", "table2", "--profile", "mine", "--data", str(root))
