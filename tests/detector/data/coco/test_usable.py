"""What ``verify`` calls ok, a training can start on: categories of two splits, crowds, orientations; known cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.data.coco.files import annotations_sha256
from detector.data.coco.index import load_index
from detector.data.coco.verify import LISTED, TURNED, verify_root
from detector.data.images import open_image
from detector.data.loader import TrainingData
from detector.data.splits import check_categories
from detector.data.transforms import random_generator
from detector.errors import DataError
from detector.evaluation.detections import detection_notes, read_detections
from detector.evaluation.scoring import coco_metrics
from detector.runs.job import AnnotatedFolder, EvalJob
from harness.launch.prepare import prepare_data
from tests.own_roots import SIZE, root_of

CASES = Path(__file__).resolve().parents[4].parent / "shared" / "cases"


def messages(root: Path, **options: Any) -> list[str]:
    return [str(problem) for problem in verify_root(root, decode=True, **options).problems]


def test_a_good_root_is_ok_without_a_word(tmp_path: Path) -> None:
    report = verify_root(root_of(tmp_path / "root"), decode=True, strict=True)
    assert (report.problems, report.notes) == ((), ())


def test_categories_of_other_names_are_named_and_refused(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", names={"train": ("a", "b"), "val": ("b", "a")})
    assert messages(root) == [
        "annotations/instances_val.json: category id 1 is 'a' in train, 'b' in val",
        "annotations/instances_val.json: category id 2 is 'b' in train, 'a' in val",
    ]
    train, val = load_index(root, "train"), load_index(root, "val")
    check_categories(val, [1, 2])
    check_categories(val, [1, 2], ["B ", "a"])  # case and spaces are no other name
    with pytest.raises(DataError, match="id 1 is 'a' in train, 'b' in val; id 2 is 'b' in train, 'a' in val"):
        check_categories(val, [1, 2], train.category_names, trained_on="train")


def test_categories_of_other_ids_are_named_and_refused(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", names={"val": ("a", "b", "c")})
    [message] = messages(root)
    assert message.endswith("its categories are not those of train: they differ in the ids 3")
    with pytest.raises(DataError, match="has 3 categories, the training has 2; they differ in the ids 3"):
        check_categories(load_index(root, "val"), [1, 2])


@pytest.mark.parametrize(
    ("box", "counts"),
    [({"iscrowd": 1}, "of 2 boxes 2 are crowd regions, 0 at most one pixel"), ({"bbox": [4, 5, 1, 8]}, "0 are crowd")],
)
def test_a_training_split_without_a_box_to_train_on_is_not_ok(
    tmp_path: Path, job: EvalJob, box: dict[str, Any], counts: str
) -> None:
    root = root_of(tmp_path / "root", boxes=[box])
    [message] = messages(root)
    assert message.startswith("annotations/instances_train.json: no image with a box to train on")
    assert counts in message
    assert any(note.startswith("val: no image with a box") for note in verify_root(root, decode=True).notes)
    with pytest.raises(DataError, match="no image with a valid box to train on"):
        TrainingData(job.train, load_index(root, "train"), rank=0, world_size=1)


def test_a_run_refuses_at_once_what_verify_calls_wrong(tmp_path: Path) -> None:
    folder = AnnotatedFolder(
        train_split="train", test_split="val", num_images=None, train_sha256=None, test_sha256=None
    )
    roots = {
        "no image with a box to train on": root_of(tmp_path / "crowd", boxes=[{"iscrowd": 1}]),
        "gives other names to the same category ids": root_of(tmp_path / "names", names={"val": ("b", "a")}),
        "is in 0..1, a fraction of its image": root_of(tmp_path / "fractions", boxes=[{"bbox": [0.1, 0.1, 0.5, 0.5]}]),
    }
    for message, root in roots.items():
        hashes = {part: annotations_sha256(root, split) for part, split in (("train", "train"), ("test", "val"))}
        source = replace(folder, train_sha256=hashes["train"], test_sha256=hashes["test"])
        with pytest.raises(DataError, match=message):
            prepare_data(source, root, print)
        assert not verify_root(root, decode=True).ok


def test_a_broken_annotation_file_is_not_also_told_to_have_no_boxes(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", boxes=[{"bbox": None}])
    assert {problem.kind for problem in verify_root(root, decode=True).problems} == {"boxes that are not four numbers"}
    assert not verify_root(root, decode=True).notes


def test_whole_pixels_in_a_corner_are_no_fractions(tmp_path: Path) -> None:
    report = verify_root(root_of(tmp_path / "root", boxes=[{"bbox": [0, 0, 1, 1], "area": 1}]), decode=True)
    assert [problem.message.partition(":")[0] for problem in report.problems] == ["no image with a box to train on"]


def test_overhang_is_a_note_and_wrong_on_request(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", boxes=[{"bbox": [30, 5, 14, 8], "area": 112}])
    report = verify_root(root, decode=True)
    assert report.ok
    assert report.notes[0].startswith("train: 2 boxes that reach out of their image, and are cut at its border")
    strict = verify_root(root, decode=True, strict=True)
    assert (strict.ok, strict.num_problems, strict.notes) == (False, 4, ())
    assert strict.problems[0].message.startswith("boxes that reach out of their image")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_orientation_but_1_is_named_and_pixels_stay_as_stored(tmp_path: Path, orientation: int) -> None:
    root = root_of(tmp_path / "root", orientation=orientation)
    report = verify_root(root, decode=False)
    assert report.ok
    assert report.notes[0] == f"train: 2 {TURNED}, such as '1.jpg' ({orientation}); '2.jpg' ({orientation})"
    assert open_image(load_index(root, "train"), 0).size == SIZE


def test_sizes_of_the_turned_image_are_wrong_with_their_cause(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", orientation=6, size=(30, 40))
    assert messages(root)[0] == (
        "train/1.jpg: the image has 40 x 30 pixels, its annotations say 30 x 40: those of the image turned by its EXIF "
        "orientation 6, but pixels are used as stored"
    )


def test_images_that_are_wrong_are_listed_in_part_and_counted_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root_of(tmp_path / "root", images=5)
    for path in (root / "train").iterdir():
        path.unlink()
    monkeypatch.setattr("detector.data.coco.verify.LISTED", 2)
    report = verify_root(root, decode=True)
    assert (len(report.problems), report.num_problems) == (3, 5)
    assert str(report.problems[-1]) == "train: 3 more missing image files"
    assert LISTED > 2


def test_negative_image_ids_are_trained_on(tmp_path: Path, job: EvalJob) -> None:
    root = root_of(tmp_path / "root", first_id=-2)
    assert verify_root(root, decode=True).ok
    data = TrainingData(job.train, load_index(root, "train"), rank=0, world_size=1)
    assert data[0][0].images
    assert random_generator(0, 1, 5).random() == random_generator(0, 1, 5).random()
    assert random_generator(0, 1, -5).random() != random_generator(0, 1, 5).random()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Path:
    if not (CASES / request.param).is_dir():
        pytest.skip("no ../shared/cases")
    return CASES / str(request.param)


RIGHT: dict[str, tuple[int, str]] = {
    # Problems, and a part of the first problem or note.
    "M01": (0, ""),
    "R2_bbox_strings": (0, "12 values of bbox written as text, read as numbers"),
    "R4_iscrowd_false": (0, "6 values of iscrowd that are not written as 0 or 1"),
    "R6_one_object": (0, ""),
    "X01_exif6": (12, "turned by its EXIF orientation 6"),
    "X05_float": (12, "32 bits per channel"),
    "X10_dupann": (2, "annotation id 1 is given twice"),
    "X10_dupimg": (2, "image id 1 is given twice"),
    "X15_sizefloat": (12, "the image file is missing"),
    "X15_sizestr": (12, "the image file is missing"),
    "X15_sizenull": (12, "its size None x 96 is not in whole numbers"),
    "X21a_same": (0, ""),
    "X21b_swap": (2, "category id 1 is 'a' in train2017, 'b' in val2017"),
    "X28_area": (0, "12 areas above their box's"),
    "X31_norm": (24, "is in 0..1, a fraction of its image"),
}


@pytest.mark.parametrize(("case", "count", "part"), [(k, *v) for k, v in RIGHT.items()], indirect=["case"])
def test_verify_says_the_right_thing_of_a_known_case(case: Path, count: int, part: str) -> None:
    report = verify_root(case, decode=True)
    assert report.num_problems == count
    assert part in (str(report.problems[0]) if count else "".join(report.notes[:1]))


@pytest.mark.parametrize("case", ["M01"], indirect=True)
def test_annotation_id_0_decides_nothing(case: Path) -> None:
    assert coco_metrics(load_index(case, "val2017"), read_detections(case / "dets.json"))["AP"] == pytest.approx(100)


@pytest.mark.parametrize("case", ["M11"], indirect=True)
def test_detections_of_other_forms_are_refused_or_told(case: Path) -> None:
    index = load_index(CASES / "M01", "val2017")
    with pytest.raises(DataError, match=r"of an unknown category .*Category ids of val2017: 1, 2\."):
        coco_metrics(index, read_detections(case / "cat0.json"))
    assert "1 of 2 detections leave their image" in detection_notes(index, read_detections(case / "xyxy.json"))[0]
    assert "have a negative width" in detection_notes(index, read_detections(case / "neg.json"))[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["../val/1.jpg", "\ud83d.jpg", "\0", "."])
def test_images_with_unusable_names_are_told_once_and_never_opened(tmp_path: Path, name: str) -> None:
    root = root_of(tmp_path / "root", boxes=[{"bbox": [1e308, 1e308, 1e308, 1e308]}])
    path = root / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"2.jpg"', json.dumps(name)))
    kinds = [problem.kind for problem in verify_root(root, ["train"], decode=True).problems]
    assert kinds == ["images with an unusable file name", *["boxes that are not finite, or beyond any image"] * 2]
