"""The generated set: the same whoever draws it, a valid COCO root, and pictures that mean what their boxes say."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detector.data.coco.index import load_index
from detector.data.coco.verify import verify_root
from detector.data.shapes import generate as shapes
from detector.data.shapes.draw import MIN_VISIBLE, SHAPES, _coverage, draw_image
from detector.data.shapes.generate import SPEC_FILE, generate_shapes, run_lengths, shapes_folder_name
from detector.errors import DataError
from detector.runs.job import Shapes

# The first image of version 1 for the spec below.
LABELS = [3, 3, 4, 1, 5]
BOXES = [[25, 3, 45, 24], [15, 2, 33, 32], [21, 17, 40, 44], [13, 18, 20, 26], [21, 12, 37, 30]]


def spec(**changes: int) -> Shapes:
    values = {"version": 1, "seed": 7, "size": 48, "num_train": 6, "num_test": 3, "num_classes": 6}
    return Shapes(**{**values, **changes})


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file's bytes, of an image's pixels."""
    found = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = np.asarray(Image.open(path)).tobytes() if path.suffix == ".png" else path.read_bytes()
        found[str(path.relative_to(root))] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "small"
    generate_shapes(root, spec())
    return root


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "large"
    generate_shapes(root, spec(size=96, num_train=250, num_test=1))
    return root


def test_generate_shapes_repeats_itself(small: Path, tmp_path: Path) -> None:
    generate_shapes(tmp_path / "again", spec())
    found = digests(small)
    assert len(found) == 6 + 3 + 2 + 1
    assert digests(tmp_path / "again") == found


def test_generate_shapes_is_the_same_for_two_workers(small: Path, tmp_path: Path) -> None:
    finished: list[int] = []
    generate_shapes(tmp_path / "two", spec(), workers=2, progress=finished.append)
    assert digests(tmp_path / "two") == digests(small)
    assert sum(finished) == 9


def test_generate_shapes_draws_an_image_whatever_the_number_of_images(small: Path, tmp_path: Path) -> None:
    generate_shapes(tmp_path / "fewer", spec(num_train=2, num_test=1))
    part, whole = digests(tmp_path / "fewer"), digests(small)
    images = [name for name in part if name.endswith(".png")]
    assert len(images) == 3
    assert all(part[name] == whole[name] for name in images)


def test_generate_shapes_differs_between_images_splits_and_seeds(small: Path, tmp_path: Path) -> None:
    generate_shapes(tmp_path / "other", spec(seed=8))
    images = [digest for root in (small, tmp_path / "other") for name, digest in digests(root).items() if "png" in name]
    assert len(set(images)) == len(images) == 18


def test_generate_shapes_keeps_a_finished_set(small: Path) -> None:
    before = (small / SPEC_FILE).stat().st_mtime_ns
    generate_shapes(small, spec(), progress=lambda _: pytest.fail("drew an image"))
    assert (small / SPEC_FILE).stat().st_mtime_ns == before


def test_generate_shapes_refuses_a_folder_of_another_spec(small: Path) -> None:
    with pytest.raises(DataError, match="holds another generated set"):
        generate_shapes(small, spec(seed=8))


def test_generate_shapes_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"not a generated set \(it has no shapes.json\)"):
        generate_shapes(tmp_path, spec())
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_generate_shapes_refuses_a_broken_spec_file(tmp_path: Path) -> None:
    (tmp_path / SPEC_FILE).write_text("{}")
    with pytest.raises(DataError, match=r"shapes\.json: .*missing required field"):
        generate_shapes(tmp_path, spec())


def test_generate_shapes_refuses_an_unknown_version(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"version 2 is not known here\. Known: 1"):
        generate_shapes(tmp_path / "set", spec(version=2))


def test_generate_shapes_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    generate_shapes(tmp_path / "set", spec(num_train=1, num_test=1))
    assert verify_root(tmp_path / "set", decode=True).ok


def test_generate_shapes_leaves_nothing_behind_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / "set", spec(), progress=interrupt)
    assert os.listdir(tmp_path) == []


def test_generate_shapes_keeps_the_set_of_a_faster_process(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    images: list[int] = []

    def race(count: int) -> None:
        images.append(count)
        if len(images) == 4:  # another process starts and finishes while this one draws
            generate_shapes(target, spec())

    generate_shapes(target, spec(), progress=race)
    assert len(images) == 9
    assert digests(target) == digests(small)
    assert os.listdir(tmp_path) == ["set"]


def test_generate_shapes_says_that_a_process_was_ended_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenProcessPool("terminated abruptly")

    monkeypatch.setattr(shapes.ProcessPoolExecutor, "map", broken)
    with pytest.raises(DataError, match="ended from outside, mostly by the system for lack of memory"):
        generate_shapes(tmp_path / "new", spec(), workers=2)
    assert list(tmp_path.iterdir()) == []


def test_shapes_folder_name_differs_for_every_field() -> None:
    changes = [{}, {"version": 2}, {"seed": 8}, {"size": 49}, {"num_train": 7}, {"num_test": 4}, {"num_classes": 7}]
    assert len({shapes_folder_name(spec(**change)) for change in changes}) == len(changes)


def test_generated_set_is_a_valid_root(large: Path) -> None:
    report = verify_root(large, decode=True)
    assert report.ok
    assert report.notes == ()
    train = report.splits[0]
    assert (train.num_images, train.num_categories, train.num_boxes_without_area) == (250, 6, 0)
    assert 2 <= train.num_crowd <= 30  # 5% of 250 is 12.5, deviation 3.4
    assert 2 <= train.num_images_without_boxes <= 25  # 4%


def test_generated_boxes_lie_inside_their_images_and_fill_both_size_buckets(large: Path) -> None:
    index = load_index(large, "train2017")
    assert index.boxes.min() >= 0
    assert index.boxes.max() <= 96
    objects = ~index.crowd
    assert (index.areas[objects] < 32**2).mean() > 0.5
    assert (index.areas[objects] >= 32**2).mean() > 0.1
    counts = np.bincount(index.labels[objects], minlength=6)
    assert counts.min() > 0.7 * counts.mean()
    assert np.add.reduceat(objects, index.offsets[:-1][np.diff(index.offsets) > 0]).max() <= 6


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
def test_generated_masks_give_pycocotools_the_same_boxes_and_areas(large: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(large / "annotations" / "instances_train2017.json"))
    rows = peer.loadAnns(peer.getAnnIds(iscrowd=None))
    assert any(row["iscrowd"] for row in rows)
    for row in rows:
        mask = peer.annToMask(row)
        y, x = np.nonzero(mask)
        assert row["area"] == mask.sum()
        assert row["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with numpy 2
def test_generated_objects_have_the_hue_of_their_class(large: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(large / "annotations" / "instances_train2017.json"))
    distances = []
    for row in peer.loadAnns(peer.getAnnIds(iscrowd=None)):
        image = Image.open(large / "train2017" / peer.loadImgs(row["image_id"])[0]["file_name"])
        colour = np.asarray(image)[peer.annToMask(row).astype(bool)].mean(axis=0).round().astype(np.uint8)
        hue = np.asarray(Image.fromarray(colour[None, None]).convert("HSV"))[0, 0, 0] / 255
        away = abs(hue - (row["category_id"] - 1) / 6)
        distances.append(min(away, 1 - away))
    # A normal deviation of 0.04: mean distance 0.032, and 0.0833 is half way to the next class.
    assert 0.02 < np.mean(distances) < 0.05
    assert np.mean(np.array(distances) < 1 / 12) > 0.9


@pytest.mark.parametrize("size", [32, 96])
def test_draw_image_hides_no_object_beyond_the_limit(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    areas: dict[int, list[int]] = {}
    monkeypatch.setattr("detector.data.shapes.draw.CROWD_FRACTION", 0.0)
    from detector.data.shapes.draw import _Canvas

    paint = _Canvas.paint

    def watched(self: _Canvas, *arguments: object) -> bool:
        placed = paint(self, *arguments)  # type: ignore[arg-type]
        if placed and isinstance(owner := arguments[3], int) and owner:
            areas[owner] = [int((self.owner == owner).sum())]
        return placed

    monkeypatch.setattr(_Canvas, "paint", watched)
    occluded = 0
    for seed in range(60):
        areas.clear()
        pixels, objects = draw_image(np.random.default_rng(seed), size, 12)
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8
        for owner, drawn in enumerate(objects, start=1):
            share = drawn.mask.sum() / areas[owner][0]
            assert MIN_VISIBLE <= share <= 1
            occluded += share < 1
    assert occluded > 20  # the limit is met by objects that do hide each other


def test_coverage_has_the_wanted_extent_for_every_class() -> None:
    rng = np.random.default_rng(0)
    for label, (_, outline, _) in enumerate(SHAPES):
        height, width = _coverage(rng, label, 40.0).shape
        assert 40 <= np.sqrt(height * width) <= 43, outline  # rounded up to pixels, and one of margin


def test_coverage_tells_all_classes_apart() -> None:
    """Upright and unstretched, no two classes cover the same pixels to more than 90%."""

    class Straight:
        def uniform(self, low: float, high: float) -> float:
            return 0.0

    masks = []
    for label in range(len(SHAPES)):
        alpha = _coverage(Straight(), label, 40.0)  # type: ignore[arg-type]
        image = Image.fromarray((alpha * 255).astype(np.uint8)).resize((40, 40))
        masks.append(np.asarray(image) > 127)
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.9


def test_run_lengths_start_with_zeros_and_go_down_columns() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=np.bool_)
    assert run_lengths(mask) == [2, 3, 1]
    assert run_lengths(~mask) == [0, 2, 3, 1]
    assert run_lengths(np.zeros((2, 2), dtype=np.bool_)) == [4]
    assert run_lengths(np.ones((2, 2), dtype=np.bool_)) == [0, 4]


def test_generator_version_draws_the_objects_that_it_always_drew(small: Path) -> None:
    """A change of what is drawn needs a new version; pixels may move by the rounding of a Pillow release."""
    assert shapes.GENERATOR_VERSION == 1
    index = load_index(small, "train2017")
    first = index.annotations_of(0)
    assert index.labels[first].tolist() == LABELS
    np.testing.assert_allclose(index.boxes[first], BOXES, atol=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 10_000_000, "size": 16_384}, r"images of 16384 px take .* GB; .* GB free"),
        ({"size": 16_384}, r"100000 processes that draw images of 16384 px take .* GB of memory"),
    ],
)
def test_images_without_room_are_refused_before_work_begins(
    tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        generate_shapes(tmp_path / "new" / "root", spec(**changes), workers=100_000)
    assert not (tmp_path / "new").exists()
