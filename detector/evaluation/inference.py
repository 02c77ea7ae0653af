"""From an image to boxes in its own pixels; from a split to detections, on any number of processes.

The test's views of an image (short sides, flipped copies) are merged in the pixels of the first: there the base
codebase's NMS works, and a legacy IoU depends on the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detector.data.coco.index import CocoIndex
from detector.data.images import open_image
from detector.data.transforms import resized_pixels
from detector.device.world import World
from detector.evaluation.detections import Detections
from detector.evaluation.score_sums import ScoreSums, sums_of
from detector.geometry.boxes import from_edges, mirrored, to_edges
from detector.model.assign import assign_anchors
from detector.model.postprocess import Candidates, merge_candidates
from detector.model.retinanet import HeadOutputs, RetinaNet
from detector.runs.job import TestSettings
from drloss.labels import IGNORED


@dataclass(frozen=True)
class Pass:
    """One forward pass of an image: the size it was resized to, what the heads gave, and the boxes before NMS."""

    width: int
    height: int
    outputs: HeadOutputs | None  # None once it was used: nine scales of them would take 600 MB
    candidates: Candidates  # in the pixels of the resized, unflipped image


@torch.inference_mode()
def detect_image(model: RetinaNet, image: Image.Image, test: TestSettings) -> dict[str, Tensor]:
    """Boxes [M, 4] (x, y, x + w, y + h) in the image's own pixels, scores [M] descending, labels [M].

    Several short sides, and flipped copies where ``test.flip``, are merged as ``test.merge`` says.
    """
    return _merged(model, image, list(_views(model, image, test)), test)


def _merged(model: RetinaNet, image: Image.Image, views: Sequence[Pass], test: TestSettings) -> dict[str, Tensor]:
    first = views[0]
    found = []
    for view in views:
        ratio = _ratio((view.width, view.height), (first.width, first.height), view.candidates.boxes)
        found.append(view.candidates._replace(boxes=view.candidates.boxes * ratio))
    if test.merge == "detections":
        found = [Candidates(**merge_candidates([of_view], test, model.box_convention)) for of_view in found]
    result = merge_candidates(found, test, model.box_convention)
    # As in the base codebase, corners are scaled, and a width is counted in the image's own pixels.
    corners = result["boxes"] * _ratio((first.width, first.height), image.size, result["boxes"])
    return result | {"boxes": to_edges(corners, model.box_convention)}


def _ratio(size: tuple[int, int], target: tuple[int, int], like: Tensor) -> Tensor:
    """[4] factors that take boxes from an image of ``size`` (width, height) to one of ``target``."""
    return like.new_tensor([target[0] / size[0], target[1] / size[1]] * 2)


def _views(model: RetinaNet, image: Image.Image, test: TestSettings) -> Iterator[Pass]:
    """Each short side of the test in its order, flipped copies after each."""
    for short_side in test.short_sides:
        pixels = resized_pixels(image, short_side=short_side, max_size=test.max_size)
        height, width = pixels.shape[1:]
        for flipped in (False, True) if test.flip else (False,):
            shown = pixels.flip(-1) if flipped else pixels
            outputs = model.head_outputs([shown])
            (candidates,) = model.candidates([shown], outputs)
            if flipped:
                boxes = mirrored(candidates.boxes, width, model.box_convention)
                candidates = candidates._replace(boxes=boxes)
            yield Pass(width, height, outputs, candidates)


def score_sums(model: RetinaNet, image: Image.Image, view: Pass, boxes: np.ndarray, labels: np.ndarray) -> ScoreSums:
    """Scores of one image's entries in one view, divided into positive and negative as in training.

    boxes: (x, y, x + w, y + h) pixels of the image, [G, 4] without crowds; labels: [G].
    """
    scaled = from_edges(boxes, model.box_convention) * np.tile(
        [view.width / image.width, view.height / image.height], 2
    )
    assert view.outputs is not None
    cls_logits, _, anchors = view.outputs
    scores = torch.cat(cls_logits, dim=1)[0].sigmoid().double()
    device = scores.device
    anchor_labels, _ = assign_anchors(
        torch.cat(anchors),
        torch.from_numpy(scaled.astype(np.float32)).to(device),
        torch.from_numpy(labels).to(device),
        model.matching,
        model.box_convention,
    )
    is_positive = anchor_labels[:, None] == torch.arange(scores.shape[1], device=device)
    is_negative = ~is_positive & (anchor_labels != IGNORED)[:, None]
    return sums_of(scores[is_positive], scores[is_negative])


@torch.inference_mode()
def detect_split(
    model: RetinaNet, index: CocoIndex, world: World, report: Callable[[float], None]
) -> tuple[Detections, ScoreSums]:
    """Detections of every image of ``index``, each image alone, shared over the processes; the same on any number.

    report: called with the share that is done, 0..1. Every process gets all detections, sorted by image.
    """
    model.eval()
    found: list[Detections] = []
    sums: list[tuple[int, ScoreSums]] = []
    mine = range(world.rank, index.num_images, world.size)
    for done, position in enumerate(mine, start=1):
        image = open_image(index, position)
        rows = index.annotations_of(position)
        kept = ~index.crowd[rows]
        views: list[Pass] = []
        for view in _views(model, image, model.test):
            if not views:  # the scores of Fig. 4 are those of the first view
                scores = score_sums(model, image, view, index.boxes[rows][kept], index.labels[rows][kept])
                sums.append((position, scores))
            views.append(replace(view, outputs=None))
        found.append(_as_detections(_merged(model, image, views, model.test), index, position))
        report(done / len(mine))
    shards = world.gather((Detections.concatenate(found), sums))
    # Added in the order of the images: float sums depend on it, and the number of processes must not show.
    in_order = sorted((entry for _, part in shards for entry in part), key=itemgetter(0))
    return Detections.concatenate(part for part, _ in shards), sum((scores for _, scores in in_order), ScoreSums())


def _as_detections(result: dict[str, Tensor], index: CocoIndex, position: int) -> Detections:
    boxes = result["boxes"].cpu().double().numpy()
    boxes[:, 2:] -= boxes[:, :2]
    return Detections(
        np.full(len(boxes), index.image_ids[position], dtype=np.int64),
        index.category_ids[result["labels"].cpu().numpy()],
        boxes,
        result["scores"].cpu().double().numpy(),
    )
