"""Detections in and out of COCO's format."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from detector.errors import DataError
from detector.evaluation.detections import Detections, detection_notes, read_detections, write_detections
from tests.scored import detections, truth

PERFECT = ((10, 3, [10.0, 10, 20, 20], 0.9), (10, 7, [40.0, 40, 50, 50], 0.8))


@pytest.mark.parametrize("name", ["d.json.gz", "d.json"])
def test_detections_survive_a_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    before = detections(*PERFECT)
    write_detections(tmp_path / "d.json.gz", before)
    if name == "d.json":
        path.write_bytes(gzip.decompress((tmp_path / "d.json.gz").read_bytes()))
    after = read_detections(path)
    for column in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(after, column), getattr(before, column))


def test_read_detections_names_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"image_id": 1, "category_id": "cat", "bbox": [0, 0, 1, 1], "score": 1}]')
    with pytest.raises(DataError, match=r"d\.json is not a COCO result list .*\$\[0\]\.category_id"):
        read_detections(path)


def test_read_detections_names_an_id_that_no_column_holds(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"image_id": 9223372036854775808, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    with pytest.raises(DataError, match=r"is not a COCO result list .*\$\[0\]\.image_id"):
        read_detections(path)


def test_read_detections_of_an_empty_list_is_none(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("[]")
    found = read_detections(tmp_path / "d.json")
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_read_detections_takes_a_byte_order_mark_and_refuses_depth_pipes_and_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = b'[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]'
    path = tmp_path / "d.json"
    path.write_bytes(b"\xef\xbb\xbf" + entry)
    assert len(read_detections(path)) == 1
    path.write_bytes(b'[{"extra": ' + b"[" * 100_000)
    with pytest.raises(DataError, match="is not a COCO result list"):
        read_detections(path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match="is a named pipe, not a regular file"):
        read_detections(tmp_path / "pipe.json")
    monkeypatch.setattr("detector.evaluation.detections.MOST_BYTES", 1000)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * 100_000))
    with pytest.raises(DataError, match="holds more than 1,000 bytes"):
        read_detections(tmp_path / "bomb.json.gz")


def test_detection_notes_count_negative_sides_and_what_leaves_its_image(tmp_path: Path) -> None:
    index = truth(tmp_path, [1, 2], [3], [])
    good = (1, 3, [0.0, 0.0, 640.9, 640.0], 0.5)
    assert detection_notes(index, detections(good)) == []
    negative, out = (2, 3, [50.0, 50.0, -40.0, 10.0], 0.5), (2, 3, [600.0, 0.0, 630.0, 40.0], 0.5)
    first, second = detection_notes(index, detections(good, negative, out))
    assert first.startswith(
        "1 of 3 detections have a negative width or height: the first, number 1, in an image of 640"
    )
    assert second.startswith("1 of 3 detections leave their image: the first, number 2")
    assert "(x, y, width, height) in pixels, not corners" in second


def test_concatenate_hides_how_images_were_sharded() -> None:
    rows = [(image, 1, [float(image), k, 1, 1], 0.5) for image in (1, 2, 3, 4, 5) for k in (0, 1)]
    whole = Detections.concatenate([detections(*rows)])
    shards = Detections.concatenate([detections(*[r for r in rows if r[0] % 2 == rank]) for rank in (0, 1)])
    np.testing.assert_array_equal(shards.boxes, whole.boxes)
    assert len(Detections.concatenate([])) == 0


def test_read_detections_names_a_gzip_file_that_is_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "detections.json.gz"
    write_detections(path, detections((10, 3, [1.0, 2.0, 3.0, 4.0], 0.5)))
    content = bytearray(path.read_bytes())
    content[12:20] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a COCO result list"):
        read_detections(path)
