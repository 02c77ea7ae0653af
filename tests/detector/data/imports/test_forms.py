"""Exports of each tool, written by the test, become roots that verify, with the boxes that are known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from detector.data.coco.verify import verify_root
from detector.data.imports.write import Imported, import_data
from detector.errors import DataError, UsageError
from tests import tool_exports as tools
from tests.tool_exports import FORMS, HIGH, TRUTH, WIDE, Box, draw, read_root, splits_of, write


def imported(source: Path, **options: Any) -> tuple[Imported, dict[str, list[Box]]]:
    """The root, which must verify, as ``TRUTH`` is written."""
    out = source.parent / "out"
    made = import_data(source, out, **options)
    report = verify_root(out, decode=True)
    assert report.ok, report.problems
    assert json.loads((out / "import.json").read_text())["told"] == made.told.as_json()
    return made, read_root(out)


def close(found: dict[str, list[Box]], truth: dict[str, list[Box]]) -> bool:
    """To a thousandth of a pixel, twice: fractions have six digits."""
    return found.keys() == truth.keys() and all(
        len(found[name]) == len(truth[name])
        and all(
            a[0] == b[0] and a[1:] == pytest.approx(b[1:], abs=0.002)
            for a, b in zip(found[name], truth[name], strict=True)
        )
        for name in truth
    )


@pytest.mark.parametrize("detected", [True, False])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_imported_with_its_true_boxes(tmp_path: Path, name: str, detected: bool) -> None:
    form = name.split(",")[0]
    source = FORMS[name](tmp_path / "in")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    made, found = imported(source, form="auto" if detected else form)
    assert made.form == form
    assert made.names == ("cup", "jug")
    assert close(found, TRUTH)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FORMS)
def test_frames_of_one_video_stay_together_and_own_splits_are_kept(tmp_path: Path, name: str) -> None:
    imported(FORMS[name](tmp_path / "in"))
    own = {"train": ["a_000.jpg", "a_001.jpg"], "val": ["b_000.jpg", "b_001.jpg"], "test": ["b_002.jpg"]}
    by_video = {frozenset({"a_000.jpg", "a_001.jpg"}), frozenset({"b_000.jpg", "b_001.jpg", "b_002.jpg"})}
    found = splits_of(tmp_path / "out")
    if name.startswith("roboflow"):
        assert found == own
    else:
        assert {frozenset(names) for names in found.values()} == by_video
        assert found.keys() == {"train", "val"}


# VOC


def test_voc_difficult_objects_are_ignored_by_training_and_scores(tmp_path: Path) -> None:
    source = tools.voc(tmp_path / "in")
    path = source / "Annotations/b_002.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    made, _ = imported(source)
    assert made.told.count("difficult objects (neither trained on nor scored: iscrowd)") == 1
    files = (tmp_path / "out/annotations").glob("*.json")
    rows = [row for file in files for row in json.loads(file.read_text())["annotations"]]
    assert sum(row["iscrowd"] for row in rows) == 1


def test_voc_image_sets_are_the_splits(tmp_path: Path) -> None:
    source = tools.voc(tmp_path / "in")
    write(source / "ImageSets/Main/train.txt", "a_000\nb_001\n")
    write(source / "ImageSets/Main/val.txt", "a_001\n")
    write(source / "ImageSets/Main/trainval.txt", "a_000\na_001\nb_001\n")
    write(source / "ImageSets/Main/cup_train.txt", "b_002  1\n")
    made, _ = imported(source)
    assert splits_of(tmp_path / "out") == {"train": ["a_000.jpg", "b_001.jpg"], "val": ["a_001.jpg"]}
    assert made.told.count("images in no list of ImageSets/Main (left out)") == 2


def test_voc_corners_that_count_from_0_are_told_and_read_on_request(tmp_path: Path) -> None:
    source = tmp_path / "in"
    draw(source / "a.jpg")
    box = "<bndbox><xmin>0</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    write(source / "a.xml", tools.voc_xml("a.jpg", [], f"<object><name>cup</name>{box}</object>"))
    made, found = imported(source)
    assert found == {"a.jpg": [("cup", 0, 9, 40, 21)]}
    assert any("--zero-based" in kind for kind in made.told.items)
    other = tmp_path / "other"
    other.mkdir()
    source.rename(other / "in")
    assert imported(other / "in", zero_based=True)[1] == {"a.jpg": [("cup", 0, 10, 40, 20)]}


HOSTILE = {
    "entities": '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>',
    "a file": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>',
    "depth": "<annotation>" * 200 + "</annotation>" * 200,
    "no XML": "\x00\x01",
    "encoding": '<?xml version="1.0" encoding="klingon"?><annotation/>',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_left_out_by_name(tmp_path: Path, name: str) -> None:
    source = tools.voc(tmp_path / "in")
    write(source / "Annotations/a_000.xml", HOSTILE[name])
    made, found = imported(source, form="voc")
    assert "a_000.xml" in made.told.items["XML files that cannot be read (left out)"][0]
    assert "a_000.jpg" not in found


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", ["cvat", "auto"])
def test_hostile_xml_alone_is_refused_by_name(tmp_path: Path, name: str, form: str) -> None:
    source = write(tmp_path / "in/annotations.xml", HOSTILE[name]).parent
    with pytest.raises(DataError, match=r"annotations\.xml"):
        import_data(source, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_a_path_of_elsewhere_never_leaves_the_folder(tmp_path: Path) -> None:
    draw(tmp_path / "secret.jpg")
    source = tools.voc(tmp_path / "in")
    write(source / "Annotations/x.xml", tools.voc_xml("../../secret.jpg", []))
    (source / "JPEGImages/y.jpg").symlink_to(tmp_path / "secret.jpg")
    write(source / "Annotations/y.xml", tools.voc_xml("y.jpg", []))
    made, found = imported(source)
    assert made.told.count("images whose file was not found (left out)") == 1
    assert made.told.count("images that are links out of the folder (left out)") == 1
    assert close(found, TRUTH)


# YOLO


def test_yolo_outlines_scores_and_repetitions(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    lines = (
        "1 0.1 0.1 0.5 0.1 0.3 0.6\n0 0.5 0.5 0.25 0.5 0.93\n0 0.5 0.5 0.25 0.5 0.93\n0 0.5\nx 1 1 1 1\n0 40 30 20 10\n"
    )
    write(source / "labels/b_001.txt", lines)
    made, found = imported(source)
    assert close({"b_001.jpg": found["b_001.jpg"]}, {"b_001.jpg": [("jug", 8, 6, 32, 30), ("cup", 30, 15, 20, 30)]})
    assert made.told.count("lines that were there twice (once now)") == 1
    assert made.told.count("lines that are no class and numbers (left out)") == 1
    assert made.told.count("lines whose numbers are no fractions of the image (left out)") == 1


def test_yolo_names_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    (source / "classes.txt").unlink()
    write(source / "data.yaml", "path: /home/other/set\ntrain: images\nnames:\n  0: no\n  1: 1e3\n")
    made, _ = imported(source)
    assert made.names == ("no", "1e3")


def test_yolo_aliases_are_refused(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    write(source / "data.yaml", "a: &a [x, x]\nnames: [*a, *a]\n")
    with pytest.raises(DataError, match="aliases"):
        import_data(source, tmp_path / "out")


def test_yolo_splits_of_folders_are_kept_and_an_absent_text_file_means_empty(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for split, name in (("train", "a_000.jpg"), ("val", "b_000.jpg"), ("val", "b_001.jpg")):
        draw(source / "images" / split / name)
        if TRUTH[name]:
            write(source / "labels" / split / f"{name[:-4]}.txt", tools.yolo_lines(TRUTH[name]))
    write(source / "set.yaml", "path: ../datasets/set\ntrain: images/train\nval: images/val\nnames: {0: cup, 1: jug}\n")
    made, found = imported(source)
    assert splits_of(tmp_path / "out") == {"train": ["a_000.jpg"], "val": ["b_000.jpg", "b_001.jpg"]}
    assert made.told.count("images without a text file (taken as empty)") == 1
    assert close(found, {name: TRUTH[name] for name in found})


def test_yolo_beside_the_images_with_darknets_lists(tmp_path: Path) -> None:
    source = tmp_path / "in"
    tools.draw_all(source / "obj_train_data")
    for name, boxes in TRUTH.items():
        write(source / "obj_train_data" / f"{name[:-4]}.txt", tools.yolo_lines(boxes))
    write(source / "obj.names", "cup\njug\n")
    write(source / "train.txt", "".join(f"data/obj_train_data/{name}\n" for name in TRUTH))
    assert close(imported(source)[1], TRUTH)


def test_yolo_classes_without_a_name_are_called_by_their_number(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    write(source / "labels/b_001.txt", "3 0.5 0.5 0.5 0.5\n")
    made, _ = imported(source)
    assert made.names == ("cup", "jug", "2", "3")
    assert made.told.items["classes without a name (called by their numbers)"] == ["3"]


def test_a_text_file_that_cannot_be_read_takes_its_image_alone(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    (source / "labels/a_000.txt").write_bytes(b"0 0.5 0.5 \xff 0.5")
    made, found = imported(source)
    assert made.told.count("text files that cannot be read (their images are left out)") == 1
    assert close(found, {name: boxes for name, boxes in TRUTH.items() if name != "a_000.jpg"})


def test_a_name_that_is_not_utf_8_is_left_out(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    (source / "images/b_001.jpg").rename(os.fsdecode(os.fsencode(source) + b"/images/caf\xe9.jpg"))
    made, found = imported(source)
    assert made.told.as_json()[-1]["items"] == ["images/caf\\udce9.jpg"]
    assert close(found, {name: boxes for name, boxes in TRUTH.items() if name != "b_001.jpg"})


VIA_BROKEN = {
    "no JSON": "{",
    "no regions": '{"a": {"filename": "a.jpg", "regions": 3}}',
    "no images": '{"_via_img_metadata": "x"}',
    "a key twice": '{"a": {"filename": "a.jpg", "filename": "b.jpg", "regions": []}}',
}


@pytest.mark.parametrize("name", VIA_BROKEN)
def test_broken_json_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in/via.json", VIA_BROKEN[name]).parent
    with pytest.raises(DataError):
        import_data(source, tmp_path / "out")


# CVAT


def video(source: Path, tracks: str, *, frames: int = 6, first: int = 0) -> Path:
    for i in range(frames):
        draw(source / f"images/frame_{i + first:06d}.png")
    size = f"<original_size><width>{WIDE}</width><height>{HIGH}</height></original_size>"
    task = f"<size>{frames}</size><mode>interpolation</mode><start_frame>0</start_frame>{tools.CVAT_LABELS}{size}"
    write(source / "annotations.xml", f"<annotations><meta><task>{task}</task></meta>{tracks}</annotations>")
    return source


def key(frame: int, x: int, *, outside: int = 0) -> str:
    return tools.cvat_box(("cup", x, 10, 20, 10), f'frame="{frame}" outside="{outside}" keyframe="1"')


@pytest.mark.parametrize("first", [0, 1])
def test_cvat_tracks_move_between_key_frames_and_end_outside(tmp_path: Path, first: int) -> None:
    track = f'<track id="0" label="cup">{key(1, 0)}{key(3, 8)}{key(4, 8, outside=1)}</track>'
    _, found = imported(video(tmp_path / "in", track, first=first))
    expected: dict[str, list[Box]] = {f"frame_{i + first:06d}.png": [] for i in range(6)}
    for i, x in ((1, 0), (2, 4), (3, 8)):
        expected[f"frame_{i + first:06d}.png"] = [("cup", x, 10, 20, 10)]
    assert found == expected


def test_cvat_track_comes_back_after_it_was_outside(tmp_path: Path) -> None:
    track = f'<track id="0" label="cup">{key(0, 0)}{key(1, 0, outside=1)}{key(4, 6)}{key(5, 6, outside=1)}</track>'
    _, found = imported(video(tmp_path / "in", track))
    assert [len(boxes) for boxes in found.values()] == [1, 0, 0, 0, 1, 0]


def test_cvat_one_video_is_cut_in_time(tmp_path: Path) -> None:
    made, _ = imported(video(tmp_path / "in", f'<track id="0" label="cup">{key(0, 0)}</track>', frames=10), val=0.3)
    assert splits_of(tmp_path / "out")["val"] == [f"frame_{i:06d}.png" for i in (7, 8, 9)]
    assert "1 group" in made.split


def test_cvat_video_without_frames_says_how_to_get_them(tmp_path: Path) -> None:
    source = video(tmp_path / "in", f'<track id="0" label="cup">{key(0, 0)}</track>', frames=0)
    with pytest.raises(DataError, match="ffmpeg"):
        import_data(source, tmp_path / "out")


def test_cvat_outlines_turned_boxes_and_subsets(tmp_path: Path) -> None:
    source = tmp_path / "in"
    shapes = (
        '<polygon label="jug" points="10.0,10.0;30.0,12.0;20.0,40.0"/>',
        '<box label="cup" xtl="30" ytl="20" xbr="50" ybr="30" rotation="90.0"/>',
        '<ellipse label="cup" cx="40" cy="30" rx="10" ry="5"/>',
        '<points label="cup" points="1,1"/><tag label="indoor"/>',
    )
    parts = []
    for i, (shape, subset) in enumerate(zip(shapes, ("Train", "Train", "Validation", "Validation"), strict=True)):
        draw(source / f"images/{subset}/{i}.png")
        parts.append(f'<image id="{i}" name="{i}.png" subset="{subset}" width="80" height="60">{shape}</image>')
    write(source / "annotations.xml", f"<annotations>{''.join(parts)}</annotations>")
    made, found = imported(source)
    assert found == {
        "0.png": [("jug", 10, 10, 20, 30)],
        "1.png": [("cup", 35, 15, 10, 20)],
        "2.png": [("cup", 30, 25, 20, 10)],
        "3.png": [],
    }
    assert splits_of(tmp_path / "out") == {"train": ["0.png", "1.png"], "val": ["2.png", "3.png"]}
    assert made.told.count("turned boxes (the upright box around each)") == 1


# Label Studio


def tasks_of(source: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((source / "project-1.json").read_text())
    return rows


def test_label_studio_turned_boxes_become_the_box_around_them(tmp_path: Path) -> None:
    source = tools.label_studio(tmp_path / "in")
    tasks = tasks_of(source)
    # Turned about the first corner (40, 20) by 90 degrees clockwise: down and to the left.
    tasks[3]["annotations"][0]["result"] = [tools.label_studio_result(("cup", 40, 20, 30, 10), 0, rotation=90)]
    write(source / "project-1.json", json.dumps(tasks))
    made, found = imported(source)
    assert close({"x": found["b_001.jpg"]}, {"x": [("cup", 30, 20, 10, 30)]})
    assert made.told.count("turned boxes (the upright box around each)") == 1


def test_label_studio_tasks_that_nobody_finished_are_left_out(tmp_path: Path) -> None:
    source = tools.label_studio(tmp_path / "in")
    tasks = tasks_of(source)
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["was_cancelled"] = True
    older = {"created_at": "2024-01-01", "result": []}
    tasks[2]["annotations"] = [{**tasks[2]["annotations"][0], "created_at": "2025-01-01"}, older]
    write(source / "project-1.json", json.dumps(tasks))
    made, found = imported(source)
    assert close(found, {name: TRUTH[name] for name in ("b_000.jpg", "b_001.jpg", "b_002.jpg")})
    assert made.told.count("tasks without an annotation (left out: not yet done)") == 1
    assert made.told.count("tasks that were skipped (left out)") == 1


def test_label_studio_takes_the_annotation_that_is_marked_as_the_truth(tmp_path: Path) -> None:
    source = tools.label_studio(tmp_path / "in")
    tasks = tasks_of(source)
    newer = {"created_at": "2025-01-01", "result": []}
    tasks[2]["annotations"] = [{**tasks[2]["annotations"][0], "created_at": "2024-01-01", "ground_truth": True}, newer]
    write(source / "project-1.json", json.dumps(tasks))
    assert close(imported(source)[1], TRUTH)


def test_label_studio_json_min_is_read(tmp_path: Path) -> None:
    source = tmp_path / "in"
    tools.draw_all(source / "images")
    rows = [
        {
            "image": f"/data/local-files/?d=set%2Fimages/{name}",
            "id": i,
            "annotator": 1,
            "annotation_id": i,
            "label": [
                {**result["value"], "original_width": WIDE, "original_height": HIGH}
                for result in (tools.label_studio_result(box, 0) for box in boxes)
            ],
        }
        for i, (name, boxes) in enumerate(TRUTH.items())
    ]
    write(source / "min.json", json.dumps(rows))
    assert close(imported(source)[1], TRUTH)


# VIA


def test_via_outlines_and_circles(tmp_path: Path) -> None:
    source = tmp_path / "in"
    draw(source / "a.jpg")
    shapes = [
        {"name": "polygon", "all_points_x": [10, 30, 20], "all_points_y": [10, 12, 40]},
        {"name": "circle", "cx": 40, "cy": 30, "r": 5},
        {"name": "point", "cx": 3, "cy": 3},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"type": {"cup": True}}} for shape in shapes]
    write(source / "via.json", json.dumps({"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": regions}}))
    made, found = imported(source)
    assert found == {"a.jpg": [("cup", 10, 10, 20, 30), ("cup", 35, 25, 10, 10)]}
    assert made.told.count("shapes that have no box, or no readable numbers (left out)") == 1


def test_via_asks_which_attribute_is_the_class(tmp_path: Path) -> None:
    source = tmp_path / "in"
    draw(source / "a.jpg")
    region = {
        "shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 5},
        "region_attributes": {"colour": "red", "kind of thing": "cup"},
    }
    write(source / "via.json", json.dumps({"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": [region]}}))
    with pytest.raises(UsageError, match="--label-attribute"):
        import_data(source, tmp_path / "out")
    assert imported(source, attribute="kind of thing")[1] == {"a.jpg": [("cup", 1, 1, 5, 5)]}


# Roboflow


def test_roboflow_parent_category_is_left_out(tmp_path: Path) -> None:
    made, _ = imported(tools.roboflow(tmp_path / "in"))
    assert made.told.items["category 0, the parent of the others (left out)"] == ["kitchen"]


# All


def test_boxes_are_clipped_and_those_without_area_left_out(tmp_path: Path) -> None:
    source = tmp_path / "in"
    draw(source / "a.jpg")
    boxes: list[Box] = [("cup", 70, 50, 20, 20), ("jug", 90, 10, 5, 5)]
    write(source / "a.xml", tools.voc_xml("a.jpg", boxes))
    made, found = imported(source)
    assert found == {"a.jpg": [("cup", 70, 50, 10, 10)]}
    assert made.told.count("boxes that left their image (clipped)") == 1
    assert made.told.count("boxes without area in their image (left out)") == 1


@pytest.mark.parametrize("labelled", [(HIGH, WIDE), (WIDE, HIGH)], ids=["drawn upright", "drawn as stored"])
def test_images_that_exif_turns_are_written_upright(tmp_path: Path, labelled: tuple[int, int]) -> None:
    source = tmp_path / "in"
    upright = labelled == (HIGH, WIDE)
    box: Box = ("cup", 10, 20, 8, 12)
    exif = tools.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise: stored 80 x 60, upright 60 x 80
    draw(source / "a.jpg", exif=exif)
    text = tools.voc_xml("a.jpg", [box]).replace(f"<width>{WIDE}", f"<width>{labelled[0]}")
    write(source / "a.xml", text.replace(f"<height>{HIGH}", f"<height>{labelled[1]}"))
    _, found = imported(source)
    assert found == {"a.jpg": [box if upright else ("cup", 60 - 20 - 12, 10, 12, 8)]}


def test_an_image_that_was_resized_after_labelling_is_left_out(tmp_path: Path) -> None:
    source = tools.voc(tmp_path / "in")
    draw(source / "JPEGImages/a_000.jpg", size=(40, 30))
    made, found = imported(source)
    assert made.told.count("images whose size is not the one that was labelled (left out)") == 1
    assert "a_000.jpg" not in found


def test_two_images_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for folder, name in (("x", "cup"), ("y", "jug")):
        draw(source / folder / "1.jpg")
        write(source / folder / "1.xml", tools.voc_xml("1.jpg", [(name, 1, 1, 5, 5)]))
    assert imported(source, val=0)[1] == {"x/1.jpg": [("cup", 1, 1, 5, 5)], "y/1.jpg": [("jug", 1, 1, 5, 5)]}


def test_pipes_and_broken_images_are_left_out_by_name(tmp_path: Path) -> None:
    source = tools.yolo(tmp_path / "in")
    os.mkfifo(source / "images/pipe.jpg")
    (source / "images/broken.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    made, found = imported(source)
    assert made.told.count("images that cannot be read (left out)") == 2
    assert close(found, TRUTH)


def test_unknown_and_unclear_forms_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file and no folder"):
        import_data(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no export of a known form"):
        import_data(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="Unknown form 'darknet'"):
        import_data(tmp_path / "empty", tmp_path / "out", form="darknet")
    both = tools.via(tools.voc(tmp_path / "both"))
    with pytest.raises(UsageError, match="several forms: via, voc"):
        import_data(both, tmp_path / "out")
    archive = write(tmp_path / "x.zip", "")
    with pytest.raises(DataError, match="Unpack"):
        import_data(archive, tmp_path / "out")


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    kept = write(tmp_path / "out/mine.txt", "mine")
    with pytest.raises(UsageError, match="exists"):
        import_data(tools.voc(tmp_path / "in"), tmp_path / "out")
    assert kept.read_text() == "mine"
