"""``harness images`` and ``harness data browse``: pages of pictures, and what they need."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.command import error, invoke
from tests.own_roots import root_of
from tests.pictured import pictured

TINY = ("--profile", "tiny")


def pictures(page: Path) -> int:
    text = page.read_text()
    names = set(re.findall(r'src="(\d{3}\.jpg)"', text))
    assert names == {path.name for path in page.parent.glob("*.jpg")}
    for name in names:
        with Image.open(page.parent / name) as image:
            image.load()
    return len(names)


def test_a_row_has_its_best_and_worst_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictured(tmp_path, monkeypatch, L6=0.4)
    out = tmp_path / "out"
    result = invoke("images", "table2/L6", *TINY, "--images", "2", "--out", str(out))
    assert result.stdout == f"{out}/index.html\n"
    assert "table2/L6: profile tiny, seed 0" in result.stderr
    assert pictures(out / "index.html") == 4
    assert "Worst images" in (out / "index.html").read_text()
    assert "pictures of an earlier command" in error("images", "table2/L6", *TINY, "--out", str(out))


def test_two_runs_are_set_side_by_side_by_any_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2, focal=0.9)
    (folder,) = [path.parent for path in runs.glob("*/job.json") if '"focal"' in path.read_text()]
    (record,) = folder.glob("evals/*/record.json")
    for number, other in enumerate(("table2/focal", folder.name, str(folder), str(record))):
        out = tmp_path / f"out{number}"
        result = invoke("images", "table2/L6", other, *TINY, "--images", "2", "--out", str(out))
        assert "table2/L6 has the higher AP50 on" in result.stderr
        assert pictures(out / "index.html") >= 1


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2)
    command = ("images", "table2/L6", *TINY, "--out", str(tmp_path / "out"))
    assert "Train it: harness run table2/focal --profile tiny" in error("images", "table2/focal", *TINY)
    said = error("images", "table2/L6", "--profile", "smoke")
    assert "is here at profile smoke. No record at profile smoke, but 1 at tiny: add -p tiny. Train it: harness" in said
    assert "has no run with seed 7. It has: 0." in error(*command, "--seed", "7")
    shutil.move(runs / "data", tmp_path / "away")
    assert f"Make it again: harness data synth --out {runs}/data/shapes-" in error(*command)
    (root,) = (tmp_path / "away").iterdir()
    invoke(*command, "--data", str(root))
    annotations = root / "annotations" / "instances_val2017.json"
    annotations.write_text(annotations.read_text() + " ")
    assert "are not those of the evaluation" in error(*command, "--force", "--data", str(root))
    shutil.rmtree(root / "val2017")
    annotations.write_text(annotations.read_text()[:-1])
    said = error(*command, "--force", "--data", str(root))
    assert f"but its images are not at {root}/val2017. Make it again: harness data synth --out {root} " in said
    assert "<h1>" in (tmp_path / "out" / "index.html").read_text()  # what was there stays


def test_without_detections_the_command_is_the_one_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2)
    (found,) = runs.glob("*/evals/*/detections.json.gz")
    found.unlink()
    run = found.parents[2]
    trains = f"with the run {run.name}, or train it again: harness run table2/L6 --profile tiny"
    assert f"{trains} --fresh" in error("images", "table2/L6", *TINY)  # with its record the run counts as done
    assert "train it again: harness run TABLE/ROW --profile tiny" in error("images", run.name, *TINY)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "final.pt").touch()
    said = error("images", "table2/L6", *TINY)
    assert f"are gone ({found})" in said
    assert "move record.json away from that folder, and then: harness eval table2/L6 --profile tiny --seed 0" in said
    kept = shutil.copy(found.with_name("record.json"), tmp_path / "record.json")
    shutil.rmtree(run)
    assert "They lie in a run's folder only, not in its record." in error("images", str(kept), *TINY)


def test_a_run_without_detections_and_one_that_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2)
    (found,) = runs.glob("*/evals/*/detections.json.gz")
    found.write_bytes(gzip.compress(b"[]"))
    out = tmp_path / "out"
    invoke("images", "table2/L6", *TINY, "--out", str(out))
    assert "AP50 0.0" in (out / "index.html").read_text()


def test_browse_shows_boxes_crowds_and_what_no_anchor_learns(tmp_path: Path) -> None:
    boxes = [{"bbox": [4, 5, 20, 16]}, {"bbox": [0, 0, 39, 29], "iscrowd": 1}, {"bbox": [2, 2, 0, 3]}]
    root = root_of(tmp_path / "root", boxes=boxes, names={"train": ("<b>\x1b[31m", "x" * 1000)}, images=3)
    (root / "train" / "2.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    result = invoke("data", "browse", str(root), "--out", str(out))
    assert "Images of train: 3. Boxes that are trained on: 3. Learnt by no anchor: none." in result.stderr
    assert f"Images that cannot be read: 1. What is wrong with them: harness data verify {root}" in result.stderr
    text = (out / "index.html").read_text()
    assert pictures(out / "index.html") == 3
    assert "2 boxes and 1 crowd region;" in text
    assert r"&lt;b&gt;\x1b[31m" in text
    assert "<td>not trained on: no area</td>" in text


def test_browse_chooses_by_id_and_by_category(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", images=9)
    shown = ("data", "browse", str(root), "--split", "val", "--out")
    assert "Images of val: 2." in invoke(*shown, str(tmp_path / "a"), "--ids", "2,5").stderr
    assert "Images of val: 4." in invoke(*shown, str(tmp_path / "b"), "--classes", "a", "--images", "4").stderr
    out = str(tmp_path / "c")
    assert "has no image with the id 77" in error(*shown, out, "--ids", "77")
    assert "--ids 'x'" in error(*shown, out, "--ids", "x")
    assert "has no category 'c'. Known: a, b" in error(*shown, out, "--classes", "c")
    assert "No image of val has a box of b" in error(*shown, out, "--classes", "b")
    assert "no such split 'test'; the root has train, val" in error(*shown[:3], "--split", "test")
    assert "--images chooses images" in error(*shown, out, "--ids", "1", "--images", "2")
    assert "two settings" in error(*shown, out, "--recipe", "dr-r50-1x", "--row", "table2/L6")
    assert not Path(out).exists()


def test_browse_of_what_is_no_data_set(tmp_path: Path) -> None:
    assert "it has no annotations. A COCO root has annotations/" in error("data", "browse", str(tmp_path))
    assert "there is no such folder" in error("data", "browse", str(tmp_path / "none"))
    root = root_of(tmp_path / "root")
    path = root / "annotations" / "instances_val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [], "annotations": []}))
    assert "val has no images" in error("data", "browse", str(root), "--split", "val", "--out", str(tmp_path / "o"))


@pytest.mark.coco
def test_browse_of_real_images(coco_tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    invoke(
        "data",
        "browse",
        str(coco_tiny),
        "--split",
        "val2017",
        "--images",
        "2",
        "--row",
        "table2/focal",
        "--out",
        str(out),
    )
    assert pictures(out / "index.html") == 2


@pytest.mark.slow
def test_the_report_has_the_images_of_a_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictured(tmp_path, monkeypatch, focal=0.5, L6=0.2)
    invoke("report", "table2", *TINY, "--out", str(tmp_path / "report"))
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 5
    assert "The image that changed most between table2/L6 and table2/focal, image " in page
