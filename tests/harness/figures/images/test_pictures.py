"""Pictures for the report: few, small, the same each time, and none without a run's folder."""

from __future__ import annotations

import dataclasses
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image

from detector.errors import DataError
from harness.figures.images.choose import best_and_worst, changed, image_aps
from harness.figures.images.pictures import MOST_BYTES, pictures_of, why_none
from harness.figures.images.scenes import DETECTIONS, open_scene, scene_data
from harness.planning.selection import Selection
from support.micro import micro_job
from tests.command import invoke
from tests.pictured import finished, pictured


def selection(target: str = "table2") -> Selection:
    return Selection(target, "tiny", [], None)


def scene_of(runs: Path, ref: str):  # type: ignore[no-untyped-def]
    (record,) = selection().row_records()[ref]
    path = runs / record.train_id / "evals" / record.eval_id / DETECTIONS
    return open_scene(ref, record, path, scene_data(record, None, runs))


def test_each_row_has_its_worst_and_best_image_and_what_changed_against_the_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictured(tmp_path, monkeypatch, focal=0.5, L6=0.2)
    found = pictures_of(selection())
    assert [picture.title for picture in found] == [
        "table2/focal: worst image",
        "table2/focal: best image",
        "table2/L6: worst image",
        "table2/L6: best image",
        "table2/L6 and table2/focal: most changed",
    ]
    for picture in found:
        assert len(picture.jpeg) <= MOST_BYTES * 2
        with Image.open(BytesIO(picture.jpeg)) as image:
            assert image.size == (picture.width, picture.height)
        assert str(tmp_path) not in picture.caption + picture.alt
    assert [picture.jpeg for picture in pictures_of(selection())] == [picture.jpeg for picture in found]
    assert why_none(selection()) == ""
    assert [p.title for p in pictures_of(selection("table1/hp-e_hn-3.5"))] == [
        "table1/hp-e_hn-3.5: worst image",
        "table1/hp-e_hn-3.5: best image",
    ]  # the training of table2/L6


def test_of_several_seeds_the_lowest_is_shown_against_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pictured(tmp_path, monkeypatch, focal=0.5)
    (root,) = (runs / "data").iterdir()
    for seed, share in ((1, 0.3), (2, 0.8)):
        for ref in ("table2/L6", "table2/focal"):
            finished(runs, root, micro_job(tmp_path / "experiments", ref, seed), share * (ref == "table2/L6"))
    captions = [picture.caption for picture in pictures_of(selection())]
    assert "of table2/focal (seed 0), " in captions[0]
    assert "of table2/L6 (seed 1), " in captions[2]
    assert "table2/focal (seed 1): " in captions[4]
    out = tmp_path / "out"
    said = invoke("images", "table2/L6", "table2/focal", "--profile", "tiny", "--out", str(out)).stderr
    assert said.count("profile tiny, seed 1, ") == 2  # the lowest that both have
    said = invoke("images", "table2/L6", "--profile", "tiny", "--seed", "2", "--force", "--out", str(out)).stderr
    assert "profile tiny, seed 2, " in said


def test_without_runs_folders_or_data_there_are_none_and_words_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2)
    shutil.move(runs / "data", tmp_path / "away")
    assert pictures_of(selection()) == []
    said = why_none(selection())
    assert "not the data set" in said
    assert (
        'harness data synth --out "$HARNESS_RUNS/data/shapes-v1-s0-64px-3c-24-6" --size 64 --train 24 --test 6' in said
    )
    shutil.move(tmp_path / "away", runs / "data")
    shutil.rmtree(next((runs / "data").glob("*/val2017")))
    assert pictures_of(selection()) == []
    assert "not the data set" in why_none(selection())
    (path,) = runs.rglob(DETECTIONS)
    path.unlink()
    assert pictures_of(selection()) == []
    said += why_none(selection())
    assert "but not their detections. 'harness images ROW' says what is wrong" in said
    collected = tmp_path / "results" / "records" / "tiny" / f"{path.parent.name}.json"
    collected.parent.mkdir(parents=True)
    shutil.copy(path.with_name("record.json"), collected)
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "none"))
    assert "which a record does not hold" in why_none(selection())
    assert "harness run table2 --profile tiny" in why_none(selection())
    collected.unlink()
    assert "No finished run of table2 is here" in why_none(selection())
    assert str(tmp_path) not in said + why_none(selection())


def test_best_worst_and_changed_images_are_those_of_the_extreme_aps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pictured(tmp_path, monkeypatch, focal=1.0, L6=0.5)
    scene, other = scene_of(runs, "table2/L6"), scene_of(runs, "table2/focal")
    values = image_aps(scene)
    best, worst = best_and_worst(scene, 2)
    assert [values[i] for i in best] == sorted(values.values(), reverse=True)[:2]
    assert [values[i] for i in worst] == sorted(values.values())[:2]
    every = best_and_worst(scene, 99)
    assert sorted([*every[0], *every[1]]) == sorted(values)
    above, below = changed(scene, other, 3)
    assert above[0].ap - above[0].other == max(values.values()) > 0
    assert below == []
    assert set(image_aps(other).values()) == {0.0}
    split = replace(other.record.test_split, sha256="0" * 64)
    elsewhere = dataclasses.replace(other, record=replace(other.record, test_split=split))
    with pytest.raises(DataError, match="table2/L6 and table2/focal were evaluated on different images"):
        changed(scene, elsewhere, 3)


def test_an_image_that_cannot_be_read_is_called_out_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = pictured(tmp_path, monkeypatch, L6=0.2)
    for path in (runs / "data").rglob("val2017/*"):
        path.write_bytes(b"no image")
    assert len(pictures_of(selection())) == 2
