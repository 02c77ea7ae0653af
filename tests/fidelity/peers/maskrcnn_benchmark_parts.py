"""What the parts of maskrcnn-benchmark answer to made-up input: anchors, boxes, matching, schedule, sizes, losses.

Every function returns arrays by name; tests/data/README.md explains the names. ``import_maskrcnn_benchmark`` must have
been called. Inputs are drawn from fixed seeds and stored beside the answers, so that a test needs no generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]

PADDED_SHAPES = ((256, 320), (224, 416))  # (height, width); the second has odd grids from P5 on
STRIDES = (8, 16, 32, 64, 128)
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def grid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the five feature maps: P3 to P5 divide the padded image, P6 and P7 halve and round up."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def anchors(config: Any) -> Arrays:
    """Item a: the base anchors of each level, and the whole grids of the two padded shapes."""
    generator = _module("modeling.rpn.anchor_generator").make_anchor_generator_retinanet(config)
    answer = {"anchors/base": torch.stack(list(generator.cell_anchors)).numpy()}
    for height, width in PADDED_SHAPES:
        grids = generator.grid_anchors(grid_shapes(height, width))
        answer[f"anchors/{height}x{width}"] = torch.cat(grids).numpy()
        answer[f"anchors/{height}x{width}/per_level"] = np.array([len(grid) for grid in grids])
    return answer


def box_coder() -> Arrays:
    """Item b: encoding of box pairs from one pixel to thousands, and decoding of deltas up to far beyond the clamp."""
    coder = _module("modeling.box_coder").BoxCoder(weights=_BOX_WEIGHTS)
    random = np.random.RandomState(20)
    anchor_boxes = _boxes(random, 220, smallest=0.0, largest=3000.0)
    truth = _boxes(random, 220, smallest=0.0, largest=3000.0)
    truth[:60] = anchor_boxes[:60] + random.normal(0.0, 3.0, (60, 4)).astype(np.float32)
    truth[:60, 2:] = np.maximum(truth[:60, 2:], truth[:60, :2])
    deltas = random.normal(0.0, 3.0, (220, 4)).astype(np.float32)
    deltas[100:160] *= 20.0
    deltas[160:164] = np.array([[0, 0, 1e4, 1e4], [0, 0, -1e4, -1e4], [1e4, -1e4, 0, 0], [0, 0, 0, 0]])
    return {
        "box_coder/anchors": anchor_boxes,
        "box_coder/truth": truth,
        "box_coder/encoded": coder.encode(torch.from_numpy(truth), torch.from_numpy(anchor_boxes)).numpy(),
        "box_coder/deltas": deltas,
        "box_coder/decoded": coder.decode(torch.from_numpy(deltas), torch.from_numpy(anchor_boxes)).numpy(),
    }


def matching(config: Any) -> Arrays:
    """Item c: which box each anchor of the 256 x 320 grid is matched to (-1 background, -2 ignored)."""
    box_list, matcher = _module("structures.bounding_box").BoxList, _module("modeling.matcher").Matcher
    iou = _module("structures.boxlist_ops").boxlist_iou
    grid = torch.from_numpy(anchors(config)["anchors/256x320"])
    size = (320, 256)
    answer: Arrays = {}
    for case, truth in _matching_cases(grid).items():
        overlap = iou(box_list(truth, size), box_list(grid, size))
        answer[f"matching/{case}/truth"] = truth.numpy()
        answer[f"matching/{case}/best_iou"] = overlap.max(dim=1).values.numpy()
        answer[f"matching/{case}/iou_every_50th"] = overlap[:8, ::50].numpy()
        for background in (0.4, 0.5):
            matched = matcher(0.5, background, allow_low_quality_matches=True)(overlap)
            answer[f"matching/{case}/matched_0.5_{background}"] = matched.numpy().astype(np.int16)
    return answer


def _matching_cases(grid: Tensor) -> dict[str, Tensor]:
    """Ground truth [M, 4] of each case, in 320 x 256 pixels."""
    random = np.random.RandomState(30)
    # Of a place's nine anchors the fourth has ratio 1 and whole pixels, so that ties are exact in float32.
    left, right, whole = (grid[9 * place + 3] for place in (500, 501, 700))
    upper, lower = whole.clone(), whole.clone()
    upper[3], lower[1] = whole[1] + 15, whole[1] + 16
    return {
        "one": torch.tensor([[40.0, 50.0, 119.0, 129.0]]),
        "low": torch.tensor([[100.0, 100.0, 101.0, 101.0], [200.25, 30.5, 203.0, 34.0], [0.0, 0.0, 319.0, 255.0]]),
        "anchors_tie": torch.stack(((left + right) / 2, torch.tensor([60.0, 60.0, 67.0, 67.0]))),
        "boxes_tie": torch.stack((upper, lower, whole + 64, whole + 64)),
        "many": torch.from_numpy(_boxes(random, 60, smallest=4.0, largest=200.0, within=(320.0, 256.0))),
    }


def schedules(config: Any) -> Arrays:
    """Item d: the learning rate in iteration i (from 0) of the 1x and the 2x schedule, as runs (starts, values)."""
    build = _module("solver.build")
    answer: Arrays = {}
    for name, steps, iterations in (("1x", (60000, 80000), 90000), ("2x", (120000, 160000), 180000)):
        settings = config.clone()
        settings.SOLVER.STEPS, settings.SOLVER.MAX_ITER = steps, iterations
        optimizer = build.make_optimizer(settings, torch.nn.Conv2d(1, 1, 1))
        scheduler = build.make_lr_scheduler(settings, optimizer)
        rates = np.empty((iterations, 2))
        for iteration in range(iterations):
            rates[iteration] = [group["lr"] for group in optimizer.param_groups]
            optimizer.step()
            scheduler.step()
        starts = np.concatenate(([0], 1 + np.flatnonzero((rates[1:] != rates[:-1]).any(axis=1))))
        answer |= {f"schedule/{name}/starts": starts, f"schedule/{name}/rates_weight_bias": rates[starts]}
        answer[f"schedule/{name}/weight_decay_weight_bias"] = np.array(
            [group["weight_decay"] for group in optimizer.param_groups]
        )
    return answer


def sizes() -> Arrays:
    """Item e: (height, width) after resizing, for each (width, height) and short side; the long side at most 1333."""
    resize = _module("data.transforms").Resize
    images, short_sides = sizes_asked()
    result = [[resize(int(short), 1333).get_size((int(w), int(h))) for w, h in images] for short in short_sides]
    return {
        "sizes/images_width_height": images,
        "sizes/short_sides": short_sides,
        "sizes/resized_height_width": np.array(result, dtype=np.int32),
    }


def sizes_asked() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sizes (width, height) of images, usual, extreme and drawn, and the short sides: of testing and of jitter."""
    known = [(640, 480), (480, 640), (500, 333), (333, 500), (640, 427), (427, 640), (2000, 100), (100, 2000)]
    known += [(1000, 1), (1, 1000), (800, 800), (1333, 800), (1334, 800), (800, 1333), (800, 1334), (640, 640)]
    known += [(612, 612), (375, 1242), (1242, 375), (640, 360), (500, 375), (375, 500), (1, 1), (33, 32), (1333, 1333)]
    random = np.random.RandomState(40)
    images = np.concatenate((np.array(known), random.randint(40, 1500, (225, 2))))
    return images, np.array([*range(400, 1201, 100), 640, 672, 704, 736, 768])


def box_path() -> Arrays:
    """Item f: boxes on the way from an annotation (x, y, w, h) to the network, and back."""
    box_list = _module("structures.bounding_box").BoxList
    random = np.random.RandomState(50)
    answer: Arrays = {}
    for name, before, after in (
        ("ratios_differ", (640, 427), (383, 256)),
        ("ratios_equal", (640, 480), (320, 240)),
        ("portrait", (333, 500), (256, 384)),
    ):
        room = (before[0] + 30.0, before[1] + 30.0)
        corners = _boxes(random, 40, smallest=0.0, largest=float(before[0]), within=room)
        corners -= 15.0  # some hang over each edge
        annotated = np.round(np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1), 2)
        annotated[:5, 2:] = np.array([[0, 5], [1, 5], [1.5, 1.5], [0.4, 9], [1, 1]])
        annotated[:5, :2] = 20.0
        annotated[5] = [before[0] - 1, 3, 30, 30]  # one column inside: nothing is left of it
        read = box_list(annotated, before, mode="xywh").convert("xyxy")
        answer |= {f"box_path/{name}/annotated_xywh": annotated, f"box_path/{name}/read_xyxy": read.bbox.numpy().copy()}
        read.add_field("index", torch.arange(len(annotated)))
        clipped = read.clip_to_image(remove_empty=True)
        resized = clipped.resize(after)
        flipped = resized.transpose(0)
        answer |= {
            f"box_path/{name}/sizes_width_height": np.array([before, after]),
            f"box_path/{name}/kept": clipped.get_field("index").numpy(),
            f"box_path/{name}/clipped_xyxy": clipped.bbox.numpy(),
            f"box_path/{name}/resized_xyxy": resized.bbox.numpy(),
            f"box_path/{name}/flipped_xyxy": flipped.bbox.numpy(),
            f"box_path/{name}/flipped_back_xywh": flipped.resize(before).convert("xywh").bbox.numpy(),
        }
    return answer


def suppression() -> Arrays:
    """Item g: the boxes that survive suppression with the legacy overlap (rule of the project's CUDA kernel)."""
    box_list, nms = _module("structures.bounding_box").BoxList, _module("structures.boxlist_ops").boxlist_nms
    random = np.random.RandomState(60)
    boxes = _boxes(random, 30, smallest=5.0, largest=90.0, within=(200.0, 200.0)).repeat(10, axis=0)
    boxes += random.normal(0.0, 6.0, boxes.shape).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = random.permutation(np.linspace(0.2, 0.99, len(boxes))).astype(np.float32)
    answer = {"suppression/boxes": boxes, "suppression/scores": scores}
    for threshold in (0.4, 0.5):
        candidates = box_list(torch.from_numpy(boxes), (400, 400))
        candidates.add_field("scores", torch.from_numpy(scores))
        candidates.add_field("index", torch.arange(len(boxes)))
        answer[f"suppression/kept_{threshold}"] = nms(candidates, threshold).get_field("index").numpy()
    return answer


def losses(config: Any, dr_loss_file: Path) -> Arrays:
    """Item h: both losses of a tiny pyramid, their gradients, and the authors' loss on the same logits and labels."""
    box_list = _module("structures.bounding_box").BoxList
    random = np.random.RandomState(70)
    num_classes, grids, size = 5, [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)], (96, 64)
    truths = [[[10, 8, 41, 39], [50, 20, 90, 60], [12, 10, 40, 44]], [[0, 0, 95, 63], [70.5, 5.25, 79, 20]]]
    classes = [[1, 5, 2], [3, 5]]
    logits = [random.normal(-1.0, 1.5, (2, 9 * num_classes, *grid)).astype(np.float32) for grid in grids]
    deltas = [random.normal(0.0, 1.0, (2, 36, *grid)).astype(np.float32) for grid in grids]
    answer: Arrays = {f"losses/logits_p{level}": array for level, array in enumerate(logits, 3)}
    answer |= {f"losses/deltas_p{level}": array for level, array in enumerate(deltas, 3)}
    targets = []
    for image, (boxes, box_classes) in enumerate(zip(truths, classes, strict=True)):
        target = box_list(torch.tensor(boxes, dtype=torch.float32), size)
        target.add_field("labels", torch.tensor(box_classes))
        targets.append(target)
        answer |= {f"losses/truth_{image}": target.bbox.numpy(), f"losses/classes_{image}": np.array(box_classes)}
    generator = _module("modeling.rpn.anchor_generator").make_anchor_generator_retinanet(config)
    per_image = [[box_list(level, size) for level in generator.grid_anchors(grids)] for _ in targets]
    for background in (0.4, 0.5):
        settings = config.clone()
        settings.MODEL.RETINANET.BG_IOU_THRESHOLD = background
        answer |= _losses_of(settings, per_image, (logits, deltas), targets, f"losses/0.5_{background}")
    del answer["losses/0.5_0.5/flat_logits"]  # the same
    dr_loss = read_dr_loss(dr_loss_file)()
    labels, flat = answer["losses/0.5_0.4/labels"], answer["losses/0.5_0.4/flat_logits"]
    half = len(labels) // 2
    for case, chosen, kept in (
        ("image_0", slice(0, half), labels),
        ("image_1", slice(half, None), labels),
        ("both", slice(None), labels),
        ("no_positive", slice(0, half), np.where(labels > 0, 0, labels)),
    ):
        answer |= _dr_loss_of(dr_loss, flat[chosen], kept[chosen], f"losses/dr/{case}")
    return answer


def _losses_of(
    config: Any, anchor_lists: Any, outputs: tuple[Sequence[Any], Sequence[Any]], targets: Any, name: str
) -> Arrays:
    """Both losses and their gradients, in float32 as the peer computes them, and (``_float64``) in float64."""
    answer: Arrays = {}
    coder = _module("modeling.box_coder").BoxCoder(_BOX_WEIGHTS)
    for suffix, dtype, used in (("", torch.float32, coder), ("_float64", torch.float64, Float64Coder(coder))):
        evaluate = _module("modeling.rpn.retinanet.loss").make_retinanet_loss_evaluator(config, used)
        evaluate.box_cls_loss_func = recorder = Recorder(evaluate.box_cls_loss_func)
        logits, deltas = ([torch.tensor(one, dtype=dtype, requires_grad=True) for one in levels] for levels in outputs)
        classification, regression = evaluate(anchor_lists, logits, deltas, targets)
        gradients = torch.autograd.grad(classification, logits), torch.autograd.grad(regression, deltas)
        answer |= {f"{name}/logit_gradient_p{level}{suffix}": one.numpy() for level, one in enumerate(gradients[0], 3)}
        answer |= {f"{name}/delta_gradient_p{level}{suffix}": one.numpy() for level, one in enumerate(gradients[1], 3)}
        answer[f"{name}/focal{suffix}"] = classification.detach().numpy()
        answer[f"{name}/regression{suffix}"] = regression.detach().numpy()
        if not suffix:
            answer[f"{name}/labels"] = recorder.labels.numpy()
            answer[f"{name}/flat_logits"] = recorder.logits.detach().numpy()
    return answer


class Float64Coder:
    """The peer's box coder on the same boxes in float64: its box lists are always float32."""

    def __init__(self, coder: Any) -> None:
        self._coder = coder

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        targets: Tensor = self._coder.encode(boxes.double(), anchors.double())
        return targets


def _dr_loss_of(loss: Any, logits: NDArray[Any], labels: NDArray[Any], name: str) -> Arrays:
    answer: Arrays = {f"{name}/labels": labels}
    for precision in (np.float32, np.float64):
        scores = torch.tensor(logits.astype(precision), requires_grad=True)
        value = loss(scores, torch.from_numpy(labels))
        (gradient,) = torch.autograd.grad(value, scores)
        answer |= {
            f"{name}/value_{precision.__name__}": value.detach().numpy(),
            f"{name}/gradient_{precision.__name__}": gradient.numpy(),
        }
    return answer


class Recorder:
    """Stands in for a classification loss and keeps what it was given and what it answered."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._loss = loss
        self.logits = self.labels = self.value = torch.empty(0)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.logits, self.labels, self.value = logits, labels, self._loss(logits, labels)
        return self.value


def read_dr_loss(file: Path) -> Any:
    """The class ``SigmoidDRLoss`` of the authors' file."""
    spec = spec_from_file_location("sigmoid_dr_loss", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SigmoidDRLoss


def _module(name: str) -> Any:
    return import_module(f"maskrcnn_benchmark.{name}")


def _boxes(
    random: np.random.RandomState,
    count: int,
    *,
    smallest: float,
    largest: float,
    within: tuple[float, float] = (4000.0, 4000.0),
) -> NDArray[np.float32]:
    """Boxes [count, 4] as (x1, y1, x2, y2); sides between the bounds, even over magnitudes, cut at ``within``."""
    sides = np.exp(random.uniform(np.log(smallest + 0.5), np.log(largest + 0.5), (count, 2))) - 0.5
    corner = random.uniform(0.0, 1.0, (count, 2)) * np.maximum(np.array(within) - sides, 1.0)
    return np.concatenate((corner, np.minimum(corner + sides, within)), axis=1).astype(np.float32)
