"""Labels stand beside the objects, on none of the others, and no two in one place."""

from __future__ import annotations

import numpy as np

from detector.evaluation.pictures.labels import margins, place_labels

LABEL = (40.0, 12.0)


def placed(boxes: list[list[float]], image: tuple[float, float] = (200, 200)) -> list[tuple[float, float] | None]:
    return place_labels(np.array(boxes, float).reshape(-1, 4), np.tile(LABEL, (len(boxes), 1)), image)


def common(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def rectangle(place: tuple[float, float]) -> list[float]:
    return [*place, place[0] + LABEL[0], place[1] + LABEL[1]]


def test_a_label_stands_above_its_box_and_not_on_it() -> None:
    assert placed([[50, 60, 120, 130]]) == [(50, 60 - 12 - 2)]


def test_labels_cover_neither_each_other_nor_any_object() -> None:
    boxes = [[20.0 + 50 * i, 40 + 45 * j, 48 + 50 * i, 60 + 45 * j] for i in range(4) for j in range(4)]
    found = [rectangle(place) for place in placed(boxes, (240, 240)) if place is not None]
    assert len(found) == len(boxes)
    assert sum(common(a, b) for i, a in enumerate(found) for b in found[:i]) == 0
    assert sum(common(label, box) for label in found for box in boxes) == 0


def test_a_second_label_moves_where_two_boxes_are_one() -> None:
    first, second = placed([[50, 60, 120, 130]] * 2)
    assert first is not None
    assert second is not None
    assert common(rectangle(first), rectangle(second)) == 0


def test_the_label_of_a_box_as_large_as_its_image_stands_in_a_margin() -> None:
    boxes = [[0, 0, 200, 200]]
    (place,) = placed(boxes)
    assert place is not None
    assert common(rectangle(place), boxes[0]) == 0
    left, top, right, bottom = margins([place], np.array([LABEL]), (200, 200))
    assert (left, right) == (0, 0)
    assert top + bottom == 14


def test_a_label_without_a_free_place_is_left_out_and_boxes_without_text_have_none() -> None:
    found = placed([[50, 60, 120, 130]] * 300)
    assert any(place is None for place in found)
    assert place_labels(np.array([[0.0, 0, 9, 9]]), np.zeros((1, 2)), (200, 200)) == [None]
    assert place_labels(np.zeros((0, 4)), np.zeros((0, 2)), (200, 200)) == []
