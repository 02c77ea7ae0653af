"""Whole detectors from their own projects' files: what they find on real images is what those projects find.

A round trip through our own reader and writer would hide every mistake that both make. The weights are random
(support/random_weights.py); the answers of maskrcnn-benchmark and Detectron2 are stored (tests/data/README.md),
torchvision is asked here. The bounds are what float32 leaves open: in float64 maskrcnn-benchmark itself finds boxes up
to 0.022 pixels and scores up to 3.3e-5 away.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image
from torchvision.models.detection import retinanet_resnet50_fpn

from detector.build import build_model
from detector.data.coco.index import CocoIndex, load_index
from detector.data.images import open_image
from detector.data.transforms import resize, to_tensor
from detector.evaluation.inference import detect_image
from detector.model.retinanet import RetinaNet
from detector.weights.load import CLASS_OUTPUTS, load_detector
from detector.weights.pickles import write_pickle
from detector.weights.read import read_weights
from detector.weights.write import COCO_IDS
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from support.random_weights import random_state
from tests.fidelity.expected import DETECTRON2, MASKRCNN_BENCHMARK, arrays
from tests.fidelity.report import Comparison
from tests.weight_files import peer_shapes, save_maskrcnn_benchmark

BOX_BOUND, SCORE_BOUND, LOGIT_BOUND = 0.05, 1e-4, 1e-3
TORCHVISION = f"torchvision {torchvision.__version__.partition('+')[0]}"


class Found(NamedTuple):
    """Detections of one image: boxes (x1, y1, x2, y2) with width x2 - x1, in its own pixels; labels from 0."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


def load(path: Path, recipe_name: str, sides: tuple[int, int], index: CocoIndex) -> RetinaNet:
    """The file's weights in the recipe's model, at another size."""
    job, test = jobs(recipe(Registry(), recipe_name), seed=0)
    test = replace(test, short_sides=(sides[0],), max_size=sides[1])
    model = build_model(job, num_classes=len(index.category_ids), test=test, pretrained=False).eval()
    load_detector(model, read_weights(path), job, category_ids=index.category_ids.tolist())
    return model


def photograph(index: CocoIndex, image_id: int) -> Image.Image:
    return open_image(index, int(np.flatnonzero(index.image_ids == image_id)[0]))


def find(model: RetinaNet, image: Image.Image) -> Found:
    result = detect_image(model, image, model.test)
    return Found(*(result[name].double().numpy() for name in ("boxes", "scores")), result["labels"].numpy())


def without_empty(found: Found) -> Found:
    """Detectron2 takes boxes that are empty within the image out of the best 100; here they stay, and match nothing."""
    solid = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
    return Found(*(column[solid] for column in found))


def largest_differences(ours: Found, theirs: Found) -> tuple[float, float]:
    """Of boxes in pixels and of scores, each of theirs paired with the nearest of ours of its label and score.

    Rounding swaps neighbours in the order of scores, and nothing else.
    """
    assert len(ours.scores) == len(theirs.scores)
    free = np.ones(len(ours.scores), dtype=bool)
    box, score = 0.0, 0.0
    for i in range(len(theirs.scores)):
        alike = free & (ours.labels == theirs.labels[i]) & (np.abs(ours.scores - theirs.scores[i]) < 10 * SCORE_BOUND)
        assert alike.any(), f"theirs {i} of {len(theirs.scores)} is not among ours"
        distance = np.where(alike, np.abs(ours.boxes - theirs.boxes[i]).max(axis=1), np.inf)
        best = int(distance.argmin())
        free[best] = False
        box, score = max(box, float(distance[best])), max(score, abs(ours.scores[best] - theirs.scores[i]))
    return box, score


def p7_logits(model: RetinaNet, image: Image.Image) -> NDArray[np.float32]:
    """[rows, columns, 9 anchors, K] of the coarsest level."""
    resized = resize(image, short_side=model.test.short_sides[0], max_size=model.test.max_size)
    with torch.inference_mode():
        logits, _, _ = model.head_outputs([to_tensor(resized)])
    return logits[-1][0].reshape(-1, 9, model.num_classes).numpy()


@pytest.mark.coco
@pytest.mark.parametrize(
    ("name", "recipe_name", "sides"),
    [
        ("r50", "dr-r50-1x", (256, 426)),
        pytest.param("r101", "dr-r101-2x", (192, 320), marks=pytest.mark.slow),
        pytest.param("x101", "dr-x101-1.5x", (192, 320), marks=pytest.mark.slow),
    ],
)
def test_checkpoint_of_maskrcnn_benchmark_finds_what_it_finds_there(
    name: str, recipe_name: str, sides: tuple[int, int], coco_tiny: Path, tmp_path: Path, fidelity: Comparison
) -> None:
    weights = random_state(peer_shapes(f"maskrcnn_benchmark_{name}"))
    path = save_maskrcnn_benchmark(tmp_path / "m.pth", {key: torch.from_numpy(v) for key, v in weights.items()})
    index = load_index(coco_tiny, "val2017")
    model = load(path, recipe_name, sides, index)
    # The authors' released thresholds for Tables 1 to 3, with which the peer ran.
    model.test = replace(model.test, score_threshold=0.2, nms_iou=0.5)
    stored, differences = arrays("maskrcnn_benchmark"), []
    logits = 0.0
    for i, image_id in enumerate(stored[f"model_{name}/image_ids"].tolist()):
        key, image = f"model_{name}/{i}", photograph(index, image_id)
        boxes = stored[f"{key}/boxes_xywh"].astype(np.float64)
        boxes[:, 2:] += boxes[:, :2]
        theirs = Found(boxes, stored[f"{key}/scores"].astype(np.float64), stored[f"{key}/labels"] - 1)
        assert np.array_equal(index.category_ids[theirs.labels], stored[f"{key}/category_ids"])
        differences.append(largest_differences(find(model, image), theirs))
        raw = stored[f"{key}/p7_logits"].transpose(1, 2, 0).reshape(-1, 9, 80)
        logits = max(logits, float(np.abs(p7_logits(model, image) - raw).max()))
    box, score = map(max, zip(*differences, strict=True))
    on = f"{len(differences)} COCO images, short side {sides[0]}"
    fidelity(
        f"detector of a .pth, {name}: boxes",
        against=MASKRCNN_BENCHMARK,
        on=on,
        difference=box,
        bound=BOX_BOUND,
        unit="px",
    )
    fidelity(
        f"detector of a .pth, {name}: scores", against=MASKRCNN_BENCHMARK, on=on, difference=score, bound=SCORE_BOUND
    )
    fidelity(
        f"detector of a .pth, {name}: P7 logits",
        against=MASKRCNN_BENCHMARK,
        on=on,
        difference=logits,
        bound=LOGIT_BOUND,
    )


@pytest.mark.coco
def test_checkpoint_of_detectron2_finds_what_it_finds_there(
    coco_tiny: Path, tmp_path: Path, fidelity: Comparison
) -> None:
    weights = random_state(peer_shapes("detectron2_r50"))
    (tmp_path / "m.pkl").write_bytes(write_pickle({"model": weights, "__author__": "Detectron2"}))
    index = load_index(coco_tiny, "val2017")
    model = load(tmp_path / "m.pkl", "detectron2-r50", (256, 426), index)
    stored, differences, logits = arrays("detectron2"), [], 0.0
    assert (model.test.score_threshold, model.test.nms_iou) == tuple(stored["model_r50/thresholds_score_nms"])
    for i, image_id in enumerate(stored["model_r50/image_ids"].tolist()):
        key, image = f"model_r50/{i}", photograph(index, image_id)
        columns = (stored[f"{key}/{part}"] for part in ("boxes_xyxy", "scores", "classes"))
        differences.append(largest_differences(without_empty(find(model, image)), Found(*columns)))
        # Theirs go by scale, then by ratio.
        raw = stored[f"{key}/p7_logits"].transpose(1, 2, 0).reshape(-1, 3, 3, 80).swapaxes(1, 2).reshape(-1, 9, 80)
        logits = max(logits, float(np.abs(p7_logits(model, image) - raw).max()))
    box, score = map(max, zip(*differences, strict=True))
    on = "3 COCO images, short side 256"
    fidelity("detector of a .pkl, r50: boxes", against=DETECTRON2, on=on, difference=box, bound=BOX_BOUND, unit="px")
    fidelity("detector of a .pkl, r50: scores", against=DETECTRON2, on=on, difference=score, bound=SCORE_BOUND)
    fidelity("detector of a .pkl, r50: P7 logits", against=DETECTRON2, on=on, difference=logits, bound=LOGIT_BOUND)


@pytest.mark.coco
def test_checkpoint_of_torchvision_finds_what_it_finds_there(
    coco_tiny: Path, tmp_path: Path, fidelity: Comparison
) -> None:
    """Its norms add an epsilon that the recipe's do not, and it has 91 outputs for 80 categories."""
    sides = (256, 426)
    theirs = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, detections_per_img=300, min_size=sides[0], max_size=sides[1]
    ).eval()
    shapes = {name: value.shape for name, value in theirs.state_dict().items() if value.ndim}
    state = {name: torch.from_numpy(value) for name, value in random_state(shapes).items()}
    unused = [category for category in range(91) if category not in COCO_IDS]
    state[CLASS_OUTPUTS[1]].view(9, 91)[:, unused] = -100.0  # or they would fill the best 100 of an image
    theirs.load_state_dict(state, strict=False)
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    index = load_index(coco_tiny, "val2017")
    model = load(tmp_path / "m.pth", "torchvision-r50", sides, index)
    differences = []
    for image_id in arrays("detectron2")["model_r50/image_ids"].tolist():
        # Already of the size that torchvision would make it, which then leaves it alone.
        image = resize(photograph(index, image_id), short_side=sides[0], max_size=sides[1])
        with torch.inference_mode():
            (found,) = theirs([to_tensor(image).float() / 255])
        labels = np.searchsorted(index.category_ids, found["labels"].numpy())
        expected = Found(found["boxes"].double().numpy(), found["scores"].double().numpy(), labels)
        assert len(expected.scores) > 50
        differences.append(largest_differences(find(model, image), expected))
    box, score = map(max, zip(*differences, strict=True))
    on = "3 COCO images, short side 256"
    fidelity("detector of a .pth, r50: boxes", against=TORCHVISION, on=on, difference=box, bound=BOX_BOUND, unit="px")
    fidelity("detector of a .pth, r50: scores", against=TORCHVISION, on=on, difference=score, bound=SCORE_BOUND)
