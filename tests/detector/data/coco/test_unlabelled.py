"""Splits without public labels: an image_info file, and images in a folder of another name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.coco import releases
from detector.data.coco.files import annotation_file, is_labelled, known_splits
from detector.data.coco.index import load_index, trainable
from detector.data.coco.subset import write_subset
from detector.data.coco.verify import check_release, verify_root
from detector.data.shapes.generate import generate_shapes
from detector.errors import DataError
from detector.evaluation.detections import Detections
from detector.evaluation.scoring import coco_metrics
from detector.runs.job import Shapes

TEST_DEV = "test-dev2017"


def write_image_info(root: Path, **changes: Any) -> None:
    """The images of val2017 without their labels as test-dev2017, in test2017/ among the others."""
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    del content["annotations"]
    (root / "annotations" / f"image_info_{TEST_DEV}.json").write_text(json.dumps(content | changes))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "root"
    generate_shapes(root, Shapes(version=1, seed=3, size=32, num_train=2, num_test=4, num_classes=3))
    write_image_info(root)
    shutil.copytree(root / "val2017", root / "test2017")
    shutil.copy(root / "train2017" / "000000000001.png", root / "test2017" / "other.png")
    return root


@pytest.fixture
def root(generated: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(generated, tmp_path / "root"))


@pytest.mark.parametrize("changes", [{}, {"annotations": []}])
def test_load_index_reads_a_split_without_labels(root: Path, changes: dict[str, Any]) -> None:
    write_image_info(root, **changes)
    index, labelled = load_index(root, TEST_DEV), load_index(root, "val2017")
    assert index.image_ids.tolist() == labelled.image_ids.tolist() == [1, 2, 3, 4]
    assert index.category_ids.tolist() == [1, 2, 3]
    assert index.category_names == labelled.category_names
    assert index.boxes.shape == (0, 4)
    assert index.offsets.tolist() == [0] * 5
    assert index.image_path(0) == root / "test2017" / "000000000001.png"
    assert len(trainable(index)) == 0
    assert known_splits(root) == [TEST_DEV, "train2017", "val2017"]
    assert [is_labelled(root, split) for split in known_splits(root)] == [False, True, True]


def test_load_index_finds_test2017_in_its_own_folder(root: Path) -> None:
    folder = root / "annotations"
    (folder / f"image_info_{TEST_DEV}.json").rename(folder / "image_info_test2017.json")
    assert load_index(root, "test2017").image_path(3) == root / "test2017" / "000000000004.png"


def test_annotation_file_prefers_labels(root: Path) -> None:
    assert annotation_file(root, TEST_DEV).name == f"image_info_{TEST_DEV}.json"
    (root / "annotations" / "image_info_val2017.json").write_text("{}")
    assert annotation_file(root, "val2017").name == "instances_val2017.json"
    assert annotation_file(root, "new").name == "instances_new.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]}, "<= 0 - at `\\$.annot"),
        ({"categories": None}, "categories"),
    ],
)
def test_load_index_rejects_what_is_no_image_info_file(root: Path, changes: dict[str, Any], message: str) -> None:
    write_image_info(root, **changes)
    with pytest.raises(DataError, match=f"not a readable COCO image_info file: .*{message}"):
        load_index(root, TEST_DEV)


def test_load_index_names_the_image_that_lacks_a_field(root: Path) -> None:
    write_image_info(root, images=[{"id": 1}])
    with pytest.raises(DataError, match=r"image 1: file_name \(missing\) is no text"):
        load_index(root, TEST_DEV)


def test_load_index_still_needs_the_annotations_of_an_instances_file(root: Path) -> None:
    shutil.copy(annotation_file(root, TEST_DEV), annotation_file(root, "val2017"))
    with pytest.raises(DataError, match="not a readable COCO instances file: .*`annotations`"):
        load_index(root, "val2017")


def test_load_index_says_what_to_fetch_for_a_missing_test_split(root: Path) -> None:
    annotation_file(root, TEST_DEV).unlink()
    with pytest.raises(DataError, match=r"the root has train2017, val2017. Fetch image_info_test2017.zip and test2017"):
        load_index(root, TEST_DEV)
    with pytest.raises(DataError, match=r"the root has train2017, val2017. Run 'harness data verify"):
        load_index(root, "test-std2017")


def test_check_release_knows_test_devs_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert releases.RELEASES["2017"][TEST_DEV] == (20_288, 0)
    index = load_index(root, TEST_DEV)
    with pytest.raises(DataError, match="4 images, 0 boxes, 3 categories, not 20,288 images, 0 boxes, 80 categories"):
        check_release(index, "2017")
    monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", 3)
    monkeypatch.setitem(releases.RELEASES["2017"], TEST_DEV, (4, 0))
    check_release(index, "2017")


def test_verify_root_describes_a_split_without_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = verify_root(root, decode=True)
    assert report.ok
    part = report.splits[0]
    assert (part.split, part.num_images, part.num_boxes, part.num_categories) == (TEST_DEV, 4, 0, 3)
    without_labels = f"{TEST_DEV}: only COCO's evaluation server has its labels: harness export, harness record"
    assert report.notes == (without_labels,)  # other.png belongs to another split, so no word on it
    monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", 3)
    monkeypatch.setitem(releases.RELEASES["2017"], TEST_DEV, (4, 0))
    notes = verify_root(root, [TEST_DEV], decode=False).notes
    assert notes == (without_labels, f"{TEST_DEV}: the whole of COCO 2017 (4 images, no labels)")


def test_verify_root_names_missing_images_in_their_folder(root: Path) -> None:
    (root / "test2017" / "000000000002.png").unlink()
    [problem] = verify_root(root, [TEST_DEV], decode=False).problems
    assert (problem.file, problem.id) == ("test2017/000000000002.png", 2)


def test_write_subset_cuts_a_split_without_labels(root: Path, tmp_path: Path) -> None:
    write_subset(root, tmp_path / "cut", 2, splits=known_splits(root), seed=None)
    assert verify_root(tmp_path / "cut", decode=True).ok
    assert known_splits(tmp_path / "cut") == [TEST_DEV, "train2017", "val2017"]
    assert load_index(tmp_path / "cut", TEST_DEV).image_ids.tolist() == [1, 2]
    assert sorted(path.name for path in (tmp_path / "cut" / "test2017").iterdir()) == [
        "000000000001.png",
        "000000000002.png",
    ]


def test_coco_metrics_refuses_a_split_without_labels(root: Path) -> None:
    found = Detections(np.array([1]), np.array([1]), np.zeros((1, 4)), np.array([0.5]))
    with pytest.raises(DataError, match=r"no labels here to score against.*harness export"):
        coco_metrics(load_index(root, TEST_DEV), found)
