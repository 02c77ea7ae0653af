"""The model in evaluation: candidates of the head's outputs, merged into detections."""

from __future__ import annotations

import pytest
import torch

from detector.model.postprocess import merge_candidates
from detector.runs.job import TestSettings
from tests.small_retinanet import SLIM, TEST, build, image_of


def test_detections_are_sorted_inside_the_image_and_follow_the_test_settings() -> None:
    model = build().eval()
    image = image_of(50, 70)
    with torch.inference_mode():
        (detections,) = model([image])
        model.test = TestSettings(
            **{key: getattr(TEST, key) for key in TEST.__struct_fields__} | {"detections_per_image": 3}
        )
        (fewer,) = model([image])

    assert len(detections["boxes"]) == 20
    assert (detections["scores"].diff() <= 0).all()
    assert (detections["boxes"] >= 0).all()
    assert (detections["boxes"] <= torch.tensor([70, 50, 70, 50])).all()
    assert (detections["scores"] > 0.05).all()
    assert torch.equal(fewer["boxes"], detections["boxes"][:3])


def test_detections_do_not_depend_on_the_images_beside() -> None:
    model = build(seed=1).eval()
    image = image_of(64, 96)
    with torch.inference_mode():
        (alone,) = model([image])
        _, beside, _ = model([image_of(64, 96, seed=5), image, torch.zeros(3, 64, 96)])

    torch.testing.assert_close(beside["boxes"], alone["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(beside["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
    assert torch.equal(beside["labels"], alone["labels"])


def test_detections_are_the_merged_candidates_of_the_head_outputs() -> None:
    model = build().eval()
    image = image_of(64, 64)
    with torch.inference_mode():
        (found,) = model.candidates([image])
        (detections,) = model([image])
        cls_logits, bbox_regression, anchors = model.head_outputs([image])

    assert [len(level) for level in anchors] == [576, 144, 36]
    assert [tuple(level.shape) for level in cls_logits] == [(1, 576, 6), (1, 144, 6), (1, 36, 6)]
    assert [tuple(level.shape) for level in bbox_regression] == [(1, 576, 4), (1, 144, 4), (1, 36, 4)]
    assert len(found.scores) == 300  # 100 a level; P5 has 216 entries
    best = torch.stack([level.max() for level in cls_logits]).max().sigmoid()
    torch.testing.assert_close(found.scores.max(), best)
    assert torch.equal(merge_candidates([found], TEST, "modern")["boxes"], detections["boxes"])


def test_candidates_of_given_outputs_need_no_forward_pass() -> None:
    model = build().eval()
    image = image_of(64, 64)
    with torch.inference_mode():
        outputs = model.head_outputs([image])
        (expected,) = model.candidates([image])
        for parameter in model.parameters():
            parameter.zero_()
        (found,) = model.candidates([image], outputs)

    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_untrained_scores_are_the_prior_probability() -> None:
    cls_logits, _, _ = build(SLIM | {"prior_probability": 0.01}).head_outputs([image_of(96, 96)])

    assert torch.cat(cls_logits, dim=1).sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)
