"""COCO's numbers of small sets by hand, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco.index import CocoIndex, load_index
from detector.errors import DataError, UsageError
from detector.evaluation.scoring import (
    METRICS,
    Backend,
    coco_metrics,
    differences,
    fast_backend,
    in_percent,
    named_backend,
)
from tests.scored import detections, truth

BACKENDS: tuple[Backend, ...] = ("pycocotools", "ultrafast", "hotcoco")
PERFECT = ((10, 3, [10.0, 10, 20, 20], 0.9), (10, 7, [40.0, 40, 50, 50], 0.8))


@pytest.fixture
def index(tmp_path: Path) -> CocoIndex:
    """Two images; categories 3 and 7; a small, a medium and a crowd box."""
    rows = [
        (1, 10, 3, [10, 10, 20, 20], 400, 0),
        (2, 10, 7, [40, 40, 50, 50], 2500, 0),
        (3, 12, 3, [0, 0, 90, 90], 8100, 1),
    ]
    return truth(tmp_path, [10, 12], [3, 7], rows)


def test_coco_metrics_of_perfect_detections_is_100(index: CocoIndex) -> None:
    metrics = coco_metrics(index, detections(*PERFECT))
    assert tuple(metrics) == METRICS
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["APS"] == pytest.approx(100)
    assert metrics["APM"] == pytest.approx(100)
    assert metrics["APL"] is None  # no large object


def test_coco_metrics_of_one_category_missed_is_half(index: CocoIndex) -> None:
    metrics = coco_metrics(index, detections(PERFECT[0]))
    assert metrics["AP"] == pytest.approx(50)
    assert metrics["APM"] == pytest.approx(0)


def test_coco_metrics_counts_a_false_positive_above_the_match(index: CocoIndex) -> None:
    wrong = (10, 3, [60.0, 5, 20, 20], 0.95)
    metrics = coco_metrics(index, detections(wrong, *PERFECT))
    # Category 3: precision 1/2 at every recall; category 7: 1.
    assert metrics["AP"] == pytest.approx(75, abs=1e-9)


def test_coco_metrics_ignores_detections_in_a_crowd(index: CocoIndex) -> None:
    inside = (12, 3, [5.0, 5, 30, 30], 0.99)
    assert coco_metrics(index, detections(inside, *PERFECT))["AP"] == pytest.approx(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coco_metrics_of_no_detections_is_0(index: CocoIndex, backend: Backend) -> None:
    metrics = coco_metrics(index, detections(), backend)
    assert (metrics["AP"], metrics["APS"], metrics["APL"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((11, 3, [0.0, 0, 5, 5], 0.5), "is of an image that val does not have (image_id 11"),
        ((10, 4, [0.0, 0, 5, 5], 0.5), "is of an unknown category (image_id 10, category_id 4"),
        ((10, 3, [0.0, float("nan"), 5, 5], 0.5), "not finite"),
        ((10, 3, [0.0, 0, 5, 5], float("inf")), "not finite"),
    ],
)
def test_coco_metrics_refuses_what_pycocotools_would_take(
    index: CocoIndex, row: tuple[int, int, list[float], float], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        coco_metrics(index, detections(*PERFECT, row))
    assert message in str(caught.value)
    assert "1 of 3 detections cannot be scored: the first, number 2" in str(caught.value)


def test_coco_metrics_fill_in_the_area_and_crowd_flag_that_a_file_leaves_out(index: CocoIndex) -> None:
    path = index.root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    found = detections((10, 3, [10.0, 10.0, 20.0, 20.0], 0.9), (10, 7, [40.0, 40.0, 50.0, 50.0], 0.8))
    complete = coco_metrics(index, found)
    objects = [annotation for annotation in content["annotations"] if not annotation["iscrowd"]]
    del objects[0]["area"], objects[0]["iscrowd"]
    objects[1]["area"] = None
    path.write_text(json.dumps(content))
    assert coco_metrics(load_index(index.root, "val"), found) == complete
    assert complete["AP"] == pytest.approx(100.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_coco_metrics_of_ids_that_float64_cannot_hold(tmp_path: Path, backend: Backend) -> None:
    image, other = 2**53 + 1, 2**53  # one number as float64
    index = truth(tmp_path, [other, image], [2**62 + 1], [(2**62, image, 2**62 + 1, [0, 0, 20, 20], 400, 0)])
    right = detections((image, 2**62 + 1, [0.0, 0, 20, 20], 0.5))
    wrong = detections((other, 2**62 + 1, [0.0, 0, 20, 20], 0.5))
    assert coco_metrics(index, right, backend)["AP"] == pytest.approx(100)
    assert coco_metrics(index, wrong, backend)["AP"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_coco_metrics_is_silent(index: CocoIndex, backend: Backend, capfd: pytest.CaptureFixture[str]) -> None:
    coco_metrics(index, detections(*PERFECT), backend)
    assert capfd.readouterr() == ("", "")


def test_in_percent_names_the_numbers_and_what_is_not_there() -> None:
    assert in_percent(np.array([0.25, *[0.5] * 10, -1.0])) == {**dict.fromkeys(METRICS, 50.0), "AP": 25.0, "ARL": None}


def test_differences_shows_the_last_bit() -> None:
    stats = np.full(12, 0.5)
    other = stats.copy()
    other[4] = np.nextafter(0.5, 1)
    assert differences(stats, stats) == []
    assert differences(stats, other) == ["APM: 0.5, 0.5000000000000001"]


def test_named_backend_prefers_ultrafast_then_hotcoco_then_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [named_backend(name) for name in (*BACKENDS, "fast")] == [*BACKENDS, "ultrafast"]
    monkeypatch.setitem(sys.modules, "ultrafast_pycocotools", None)  # importing it fails
    assert named_backend("fast") == fast_backend() == "hotcoco"
    with pytest.raises(UsageError, match=r"'ultrafast' cannot be imported .*pip install 'drloss-harness\[fast\]'"):
        named_backend("ultrafast")
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    assert fast_backend() is None
    with pytest.raises(UsageError, match=r"No fast backend .*pip install 'drloss-harness\[fast\]'"):
        named_backend("fast")


def test_named_backend_refuses_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="Unknown backend 'coco'. Known: pycocotools, ultrafast, hotcoco, fast."):
        named_backend("coco")
