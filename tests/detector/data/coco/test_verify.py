"""Verifying a root, and cutting a smaller one out of it: generated roots that each test damages, and real images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.data.coco import releases
from detector.data.coco.files import annotation_file
from detector.data.coco.index import load_index
from detector.data.coco.subset import write_subset
from detector.data.coco.verify import check_images, image_problem, missing_images, verify_root
from detector.data.images import NO_IMAGE
from detector.data.shapes.generate import generate_shapes
from detector.errors import DataError, UsageError
from detector.runs.job import Shapes

SPLIT = "val2017"
FIRST = "000000000001.png"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "root"
    generate_shapes(root, Shapes(version=1, seed=3, size=32, num_train=2, num_test=8, num_classes=3))
    return root


@pytest.fixture
def root(generated: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(generated, tmp_path / "root"))


def read(root: Path, split: str = SPLIT) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(annotation_file(root, split).read_text())
    return content


def write(root: Path, content: dict[str, Any]) -> None:
    annotation_file(root, SPLIT).write_text(json.dumps(content))


def found(root: Path, *, decode: bool = True) -> list[tuple[str, int | None, str]]:
    report = verify_root(root, [SPLIT], decode=decode)
    assert report.ok == (not report.problems)
    return [(problem.file, problem.id, problem.message) for problem in report.problems]


def test_verify_root_counts_all_splits_of_a_good_root(root: Path) -> None:
    content = read(root)
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["bbox"][2] = 0
    last = content["images"][-1]["id"]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != last]
    without = {image["id"] for image in content["images"]} - {row["image_id"] for row in content["annotations"]}
    write(root, content)
    report = verify_root(root, decode=True)
    assert report.ok
    assert [part.split for part in report.splits] == ["train2017", SPLIT]
    part = report.splits[1]
    assert (part.num_images, part.num_categories, part.num_boxes) == (8, 3, len(content["annotations"]))
    assert part.num_crowd == sum(row["iscrowd"] for row in content["annotations"])
    assert part.num_images_without_boxes == len(without) >= 1
    assert part.num_boxes_without_area == 1


def test_verify_root_reports_a_missing_image(root: Path) -> None:
    (root / SPLIT / FIRST).unlink()
    assert found(root) == [(f"{SPLIT}/{FIRST}", 1, "the image file is missing")]
    assert missing_images(load_index(root, SPLIT)) == [FIRST]


def test_verify_root_reports_an_image_of_another_size(root: Path) -> None:
    Image.new("RGB", (32, 31)).save(root / SPLIT / FIRST)
    message = "the image has 32 x 31 pixels, its annotations say 32 x 32"
    assert found(root, decode=False) == [(f"{SPLIT}/{FIRST}", 1, message)]


def test_verify_root_reports_a_file_that_is_no_image(root: Path) -> None:
    (root / SPLIT / FIRST).write_text("404 not found")
    assert found(root, decode=False) == [(f"{SPLIT}/{FIRST}", 1, NO_IMAGE)]


def test_verify_root_reports_a_cut_image_only_when_decoding(root: Path) -> None:
    path = root / SPLIT / FIRST
    path.write_bytes(path.read_bytes()[:600])
    assert found(root, decode=False) == []
    [(file, key, message)] = found(root)
    assert (file, key) == (f"{SPLIT}/{FIRST}", 1)
    assert message.startswith("broken image:")


def test_verify_root_collects_every_problem_of_every_kind(root: Path) -> None:
    content = read(root)
    content["annotations"][0]["category_id"] = 77
    content["annotations"][1]["bbox"] = [40, 40, 9, 9]
    content["images"].append(dict(content["images"][2]))
    write(root, content)
    (root / SPLIT / FIRST).unlink()
    messages = " | ".join(message for _, _, message in found(root))
    for part in ("unknown category id 77", "outside its image of 32 x 32", "image id 3 is given twice", "is missing"):
        assert part in messages
    assert len(found(root)) == 4


def test_verify_root_reports_what_cannot_be_read_and_goes_on(root: Path) -> None:
    annotation_file(root, SPLIT).write_text("{")
    report = verify_root(root, decode=False)
    assert [part.split for part in report.splits] == ["train2017"]
    [problem] = report.problems
    assert "not a readable COCO instances file" in problem.message
    [problem] = verify_root(root, ["test2017"], decode=False).problems
    assert "no such split 'test2017'; the root has train2017, val2017" in problem.message


@pytest.mark.parametrize(("exists", "message"), [(True, "no annotations/instances"), (False, "does not exist")])
def test_verify_root_reports_a_root_without_annotations(tmp_path: Path, exists: bool, message: str) -> None:
    folder = tmp_path / "coco"
    if exists:
        folder.mkdir()
    [problem] = verify_root(folder, decode=False).problems
    assert message in problem.message


def test_verify_root_notes_images_without_an_entry(root: Path) -> None:
    shutil.copy(root / SPLIT / FIRST, root / SPLIT / "extra.png")
    (root / SPLIT / "Thumbs.db").write_text("no image")
    report = verify_root(root, [SPLIT], decode=True)
    assert report.ok
    assert report.notes == (f"{SPLIT}: 1 images without an entry in the annotations, first extra.png",)


def test_verify_root_finds_images_in_folders_of_the_split(root: Path) -> None:
    content = read(root)
    content["images"][0]["file_name"] = f"part/{FIRST}"
    write(root, content)
    (root / SPLIT / "part").mkdir()
    (root / SPLIT / FIRST).rename(root / SPLIT / "part" / FIRST)
    report = verify_root(root, [SPLIT], decode=True)
    assert report.ok
    assert report.notes == ()


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ((8, 0), "val2017: the whole of COCO 2017 (8 images, {boxes} boxes)"),
        ((9, 0), "val2017: a subset of val2017: 8 of 9 images"),
        ((8, 5), "val2017: not COCO 2017's: 8 images and {boxes} boxes, not 8 and {more}"),
    ],
)
def test_verify_root_compares_with_the_release(
    root: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int], note: str
) -> None:
    boxes = len(read(root)["annotations"])
    monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", 3)
    monkeypatch.setitem(releases.RELEASES["2017"], SPLIT, (counts[0], boxes + counts[1]))
    report = verify_root(root, [SPLIT], decode=False)
    assert report.notes == (note.format(boxes=boxes, more=boxes + 5),)


def test_image_problem_names_none_for_a_good_image(root: Path) -> None:
    assert image_problem(root / SPLIT / FIRST, 32, 32, decode=True) is None
    assert check_images(load_index(root, SPLIT), decode=True) == []


@pytest.mark.coco
def test_verify_root_finds_nothing_wrong_with_real_images(coco_tiny: Path) -> None:
    report = verify_root(coco_tiny, decode=True)
    assert report.ok
    assert [part.split for part in report.splits] == ["train2017", "val2017"]
    for part, (whole, name) in zip(report.splits, ((118_287, "train2017"), (5_000, "val2017")), strict=True):
        content = read(coco_tiny, name)
        assert part.num_images == len(content["images"])
        assert part.num_boxes == len(content["annotations"])
        assert part.num_crowd == sum(row["iscrowd"] for row in content["annotations"])
        assert f"{name}: a subset of {name}: {part.num_images:,} of {whole:,} images" in report.notes


def test_write_subset_takes_the_first_images_with_all_they_have(root: Path, tmp_path: Path) -> None:
    whole = read(root)
    whole["images"].reverse()
    whole["extra"] = {"kept": [1.50, None]}
    write(root, whole)
    out = tmp_path / "deep" / "cut"
    write_subset(root, out, 3, splits=[SPLIT], seed=None)
    cut = read(out)
    assert cut["images"] == [image for image in whole["images"] if image["id"] <= 3]
    assert cut["annotations"] == [row for row in whole["annotations"] if row["image_id"] <= 3]
    for key in ("info", "licenses", "categories", "extra"):
        assert cut[key] == whole[key]
    assert sorted(path.name for path in (out / SPLIT).iterdir()) == [f"{k:012d}.png" for k in (1, 2, 3)]
    assert (out / SPLIT / FIRST).read_bytes() == (root / SPLIT / FIRST).read_bytes()
    assert verify_root(out, decode=True).ok


def test_write_subset_copies_entries_byte_for_byte(root: Path, tmp_path: Path) -> None:
    text = annotation_file(root, SPLIT).read_text().replace('"area":', '"score": 1.500e+00 ,"area":')
    annotation_file(root, SPLIT).write_text(text)
    write_subset(root, tmp_path / "cut", 8, splits=[SPLIT], seed=None)
    assert annotation_file(tmp_path / "cut", SPLIT).read_text().count('"score": 1.500e+00 ,') == text.count("1.500e+00")


def test_write_subset_draws_by_seed(root: Path, tmp_path: Path) -> None:
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        write_subset(root, tmp_path / name, 3, splits=[SPLIT], seed=seed)
        drawn.append(load_index(tmp_path / name, SPLIT).image_ids.tolist())
        assert verify_root(tmp_path / name, decode=True).ok
    assert drawn[0] == drawn[1]
    assert len({tuple(ids) for ids in drawn}) > 1
    assert all(len(set(ids)) == 3 for ids in drawn)


@pytest.mark.parametrize("count", [0, 9])
def test_write_subset_refuses_a_count_that_the_split_does_not_have(root: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=rf"Cannot take {count} images of 'val2017' .* Valid: 1 to 8"):
        write_subset(root, tmp_path / "cut", count, splits=[SPLIT], seed=0)
    assert not (tmp_path / "cut").exists()


def test_write_subset_refuses_a_folder_with_content(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    write_subset(root, tmp_path / "cut", 1, splits=[SPLIT], seed=None)  # an empty folder is welcome
    with pytest.raises(UsageError, match="cut exists and is not overwritten"):
        write_subset(root, tmp_path / "cut", 1, splits=[SPLIT], seed=None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file exists and is not overwritten"):
        write_subset(root, tmp_path / "file", 1, splits=[SPLIT], seed=None)


def test_write_subset_names_a_missing_image(root: Path, tmp_path: Path) -> None:
    (root / SPLIT / FIRST).unlink()
    with pytest.raises(DataError, match=rf"1 of the 3 images of 'val2017' are missing, first .*{FIRST}"):
        write_subset(root, tmp_path / "cut", 3, splits=[SPLIT], seed=None)


def test_write_subset_leaves_nothing_after_an_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detector.data.coco.subset.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        write_subset(root, tmp_path / "cut", 3, splits=[SPLIT], seed=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


@pytest.mark.coco
def test_write_subset_of_real_images_is_a_valid_root(coco_tiny: Path, tmp_path: Path) -> None:
    write_subset(coco_tiny, tmp_path / "cut", 5, splits=["train2017", SPLIT], seed=0)
    report = verify_root(tmp_path / "cut", decode=True)
    assert report.ok
    assert [(part.num_images, part.num_categories) for part in report.splits] == [(5, 80), (5, 80)]
    whole = {row["id"]: row for row in read(coco_tiny)["annotations"]}
    cut = read(tmp_path / "cut")["annotations"]
    assert len(cut) == report.splits[1].num_boxes > 0
    assert all(row == whole[row["id"]] for row in cut)
