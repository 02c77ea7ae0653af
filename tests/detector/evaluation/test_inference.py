"""From an image to boxes in its own pixels: resizing undone, flips mirrored back, scales merged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image, ImageOps

from detector.build import build_model
from detector.data.transforms import resize, to_tensor
from detector.evaluation.inference import Pass, ScoreSums, _merged, _views, detect_image, score_sums
from detector.geometry.boxes import mirrored, to_edges
from detector.model.postprocess import Candidates, merge_candidates
from detector.model.retinanet import RetinaNet
from detector.runs.job import TestSettings
from support.micro import micro_job, write_experiments


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RetinaNet:
    """Random weights, logits spread enough for scores to differ. Modern boxes: legacy ones do not mirror exactly."""
    job = micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))
    torch.manual_seed(0)
    test = replace(job.test, score_threshold=0.5, short_sides=(64,), max_size=200)
    model = build_model(replace(job.train, box_convention="modern"), num_classes=3, test=test).eval()
    with torch.no_grad():
        model.head.classification_head["cls_logits"].weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)


def at(model: RetinaNet, **changes: object) -> TestSettings:
    return replace(model.test, **changes)  # type: ignore[arg-type]


def test_detect_image_is_the_models_answer_in_the_images_own_pixels(model: RetinaNet, image: Image.Image) -> None:
    resized = resize(image, short_side=64, max_size=200)
    with torch.inference_mode():
        (expected,) = model([to_tensor(resized)])
    found = detect_image(model, image, model.test)
    assert len(found["boxes"]) > 5
    ratio = torch.tensor([160 / resized.width, 120 / resized.height] * 2)
    torch.testing.assert_close(found["boxes"], expected["boxes"] * ratio)
    assert torch.equal(found["scores"], expected["scores"])


def test_detect_image_with_flips_is_the_mirror_of_the_mirrored_image(model: RetinaNet, image: Image.Image) -> None:
    settings = at(model, flip=True)
    one, other = detect_image(model, image, settings), detect_image(model, ImageOps.mirror(image), settings)
    torch.testing.assert_close(one["scores"], other["scores"])
    torch.testing.assert_close(one["boxes"], mirrored(other["boxes"], 160, "modern"), rtol=1e-4, atol=1e-2)
    assert not torch.equal(one["scores"], detect_image(model, image, model.test)["scores"])


def test_detect_image_at_several_scales_merges_the_candidates_of_each(model: RetinaNet, image: Image.Image) -> None:
    settings = at(model, short_sides=(48, 64, 96))
    with torch.inference_mode():
        views = [next(_views(model, image, at(model, short_sides=(side,)))) for side in settings.short_sides]
    # Merged in the pixels of the first view, 64 x 48.
    single = [
        view.candidates._replace(boxes=view.candidates.boxes * torch.tensor([64 / view.width, 48 / view.height] * 2))
        for view in views
    ]
    expected = merge_candidates(single, settings, model.box_convention)
    edges = to_edges(expected["boxes"] * 2.5, model.box_convention)
    found = detect_image(model, image, settings)
    torch.testing.assert_close(found["boxes"], edges)
    assert torch.equal(found["labels"], expected["labels"])
    assert {len(view.candidates.boxes) for view in views} != {0}


def test_score_sums_tell_positive_from_negative_entries(model: RetinaNet, image: Image.Image) -> None:
    with torch.inference_mode():
        (view,) = _views(model, image, model.test)
        none = score_sums(model, image, view, np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
        one = score_sums(model, image, view, np.array([[20.0, 20, 90, 90]]), np.array([1]))
    scores = torch.cat(view.outputs[0], dim=1)[0].sigmoid().double()
    assert (none.num_positive, none.num_negative) == (0, scores.numel())
    assert none.negative == pytest.approx(float(scores.sum()))
    assert none.means()["positive_score"] is None
    assert one.num_positive > 0
    assert one.num_positive + one.num_negative == scores.numel()  # background IoU 0.5: nothing is ignored
    assert one.positive + one.negative == pytest.approx(none.negative)
    assert ScoreSums(1.0, 2, 3.0, 4) + ScoreSums(1.0, 2, 3.0, 4) == ScoreSums(2.0, 4, 6.0, 8)


def test_a_box_that_its_own_scale_suppressed_wins_only_where_all_candidates_are_merged(
    model: RetinaNet, image: Image.Image
) -> None:
    """At one scale x suppresses y. The other finds z, which suppresses x and is apart from y."""
    x, y, z = ([20.0, 0.0, 60.0, 40.0], [28.0, 0.0, 68.0, 40.0], [10.0, 0.0, 50.0, 40.0])

    def seen(boxes: list[list[float]], scores: list[float]) -> Pass:
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        return Pass(image.width, image.height, None, Candidates(torch.tensor(boxes), torch.tensor(scores), labels))

    views = [seen([x, y], [0.8, 0.7]), seen([z], [0.9])]
    found = {
        way: _merged(model, image, views, at(model, nms_iou=0.5, merge=way)) for way in ("candidates", "detections")
    }
    assert found["candidates"]["boxes"].tolist() == [z, y]
    assert found["detections"]["boxes"].tolist() == [z]
