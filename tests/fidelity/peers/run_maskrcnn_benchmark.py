"""Runs maskrcnn-benchmark and the DR loss authors' file, and writes what our detector must answer too.

Peers: facebookresearch/maskrcnn-benchmark at commit 57eec25, and the authors' DR_loss at commit f9fa187 (its loss
file and its RetinaNet configurations), both as plain checkouts that nothing is changed in. The detector's weights are
the random ones of ``random_weights``; its images are the first of the given COCO folder's val2017. By hand, never from
a test:

    python -m tests.fidelity.peers.run_maskrcnn_benchmark --peer DIR --dr-loss DIR --coco DIR --out FILE.npz

in an environment with torch, torchvision, yacs, pycocotools, opencv-python-headless, scipy, matplotlib and tqdm.
Beside the arrays it writes the parameters' names and shapes, as ``names_maskrcnn_benchmark_*.json``.
tests/data/README.md names the keys.
"""

from __future__ import annotations

import argparse
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.random_weights import random_state
from tests.fidelity.peers import maskrcnn_benchmark_parts as parts
from tests.fidelity.peers.maskrcnn_benchmark_import import import_maskrcnn_benchmark
from tests.fidelity.peers.maskrcnn_benchmark_parts import Arrays
from tests.fidelity.peers.write import write_arrays, write_names

# (name, configuration, short side, long side, number of images)
_MODELS = (("r50", 256, 426, 3), ("r101", 192, 320, 1), ("x101", 192, 320, 1))
_GRADIENTS_OF = (
    "backbone.body.layer2.0.conv1.weight",
    "backbone.body.layer3.5.conv2.weight",
    "backbone.body.layer4.2.conv3.weight",
    "backbone.fpn.fpn_inner2.weight",
    "backbone.fpn.fpn_layer4.bias",
    "backbone.fpn.top_blocks.p6.weight",
    "backbone.fpn.top_blocks.p7.weight",
    "rpn.head.cls_tower.0.weight",
    "rpn.head.bbox_tower.6.weight",
    "rpn.head.cls_logits.weight",
    "rpn.head.cls_logits.bias",
    "rpn.head.bbox_pred.weight",
)


def main() -> None:
    """Read the command line, run the peer, write the arrays and the names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="checkout of maskrcnn-benchmark")
    parser.add_argument("--dr-loss", type=Path, required=True, help="checkout of the authors' DR_loss")
    parser.add_argument("--coco", type=Path, required=True, help="folder with annotations/ and val2017/")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    options = parser.parse_args()
    # Old calls of a 2019 code base; what they do has not changed.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import_maskrcnn_benchmark(options.peer)
    config = _config("r50", options.peer, options.dr_loss, (800, 1333))
    dr_loss_file = options.dr_loss / "sigmoid_dr_loss.py"
    arrays = parts.anchors(config) | parts.box_coder() | parts.matching(config) | parts.schedules(config)
    arrays |= parts.sizes() | parts.box_path() | parts.suppression() | parts.losses(config, dr_loss_file)
    for name, short, long, num_images in _MODELS:
        config = _config(name, options.peer, options.dr_loss, (short, long))
        model = _module("modeling.detector").build_detection_model(config)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        write_names(options.out.parent / f"names_maskrcnn_benchmark_{name}.json", shapes)
        weights = {key: torch.from_numpy(value) for key, value in random_state(shapes).items()}
        anchors = {key: value for key, value in model.state_dict().items() if key not in weights}
        model.load_state_dict(weights | anchors, strict=True)
        arrays |= _detections(model, config, options.coco, num_images, f"model_{name}")
        if name == "r50":
            arrays |= _training(model, config, options.coco, dr_loss_file)
    write_arrays(options.out, arrays)


def _config(name: str, peer: Path, dr_loss: Path, sides: tuple[int, int]) -> Any:
    """The authors' configuration (ResNets), or the peer's with the authors' thresholds (ResNeXt), at another size."""
    config = import_module("maskrcnn_benchmark.config").cfg.clone()
    if name == "x101":
        config.merge_from_file(str(peer / "configs" / "retinanet" / "retinanet_X_101_32x8d_FPN_1x.yaml"))
    else:
        config.merge_from_file(str(dr_loss / "configs" / "dr_retina" / f"dr_R-{name[1:]}-FPN_1x.yaml"))
    retinanet = config.MODEL.RETINANET
    retinanet.STRADDLE_THRESH, retinanet.BG_IOU_THRESHOLD = -1, 0.5
    retinanet.INFERENCE_TH, retinanet.NMS_TH, retinanet.NUM_CLASSES = 0.2, 0.5, 81
    config.MODEL.DEVICE = "cpu"
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST = sides
    config.INPUT.MIN_SIZE_TRAIN, config.INPUT.MAX_SIZE_TRAIN = (sides[0],), sides[1]
    config.INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.0
    return config


def _dataset(config: Any, coco: Path, *, train: bool) -> Any:
    """The peer's own data set of the images with a box, in the order of their ids."""
    transforms = _module("data.transforms").build_transforms(config, is_train=train)
    annotations = coco / "annotations" / "instances_val2017.json"
    return _module("data.datasets.coco").COCODataset(str(annotations), str(coco / "val2017"), True, transforms)


def _detections(model: Any, config: Any, coco: Path, num_images: int, name: str) -> Arrays:
    """Item i: what the whole model finds, each image alone, as the peer's COCO evaluation prepares it."""
    dataset = _dataset(config, coco, train=False)
    outputs = _watch(model)
    model.eval()
    found, answer = [], {f"{name}/image_ids": np.array(dataset.ids[:num_images])}
    for index in range(num_images):
        pixels, _, _ = dataset[index]
        batch = _module("structures.image_list").to_image_list([pixels], config.DATALOADER.SIZE_DIVISIBILITY)
        with torch.no_grad():
            found += model(batch)
        key = f"{name}/{index}"
        answer[f"{key}/resized_padded"] = np.array([pixels.shape[1:], batch.tensors.shape[2:]])
        answer[f"{key}/pixel_mean_std"] = np.array([pixels.mean(), pixels.std()])
        answer |= _raw(outputs, key)
    rows = _module("data.datasets.evaluation.coco.coco_eval").prepare_for_coco_detection(found, dataset)
    for index, result in enumerate(found):
        mine = [row for row in rows if row["image_id"] == dataset.ids[index]]
        answer[f"{name}/{index}/boxes_xywh"] = np.array([row["bbox"] for row in mine], dtype=np.float32)
        answer[f"{name}/{index}/scores"] = np.array([row["score"] for row in mine], dtype=np.float32)
        answer[f"{name}/{index}/category_ids"] = np.array([row["category_id"] for row in mine])
        answer[f"{name}/{index}/labels"] = result.get_field("labels").numpy()
    return answer


def _watch(model: Any) -> dict[str, list[Tensor]]:
    """What the classifier, the box predictor and the pyramid gave in the latest forward pass, level by level."""
    outputs: dict[str, list[Tensor]] = {}

    def keep(_: Any, inputs: Any, result: Any) -> None:
        outputs["features"] = list(inputs[0])
        outputs["logits"], outputs["deltas"] = result

    model.rpn.head.register_forward_hook(keep)
    return outputs


def _raw(outputs: dict[str, list[Tensor]], key: str) -> Arrays:
    """The last level's raw outputs whole, of every level the mean and the spread."""
    answer: Arrays = {
        f"{key}/p7_logits": outputs["logits"][-1][0].numpy().astype(np.float32),
        f"{key}/p6_deltas": outputs["deltas"][-2][0].numpy(),
        f"{key}/p7_deltas": outputs["deltas"][-1][0].numpy(),
    }
    for kind, levels in outputs.items():
        answer[f"{key}/mean_std_{kind}"] = np.array(
            [(float(level.double().mean()), float(level.double().std())) for level in levels]
        )
    return answer


def _training(model: Any, config: Any, coco: Path, dr_loss_file: Path) -> Arrays:
    """Item j: the losses of two images with their boxes, and the norms of some gradients of the sum of both losses.

    The DR loss takes the place of the focal loss without the division by the number of positives. In float32, and
    (keys that end in ``_float64``) with weights, pixels and outputs in float64.
    """
    dataset = _dataset(config, coco, train=True)
    samples = [dataset[index] for index in range(2)]
    images = _module("structures.image_list").to_image_list([pixels for pixels, _, _ in samples], 32)
    targets = [target for _, target, _ in samples]
    answer: Arrays = {
        "training/image_ids": np.array(dataset.ids[:2]),
        "training/resized_padded": np.array([*images.image_sizes, images.tensors.shape[2:]]),
    }
    for index, target in enumerate(targets):
        answer[f"training/truth_{index}"] = target.bbox.numpy()
        answer[f"training/classes_{index}"] = target.get_field("labels").numpy()
    model.train()
    evaluator = model.rpn.loss_evaluator
    focal = evaluator.box_cls_loss_func
    for suffix in ("", "_float64"):
        if suffix:
            model.double()
            images.tensors = images.tensors.double()
        for kind, loss in (("focal", focal), ("dr", parts.read_dr_loss(dr_loss_file)())):
            evaluator.box_cls_loss_func = recorder = parts.Recorder(loss)
            parts_of_loss = model(images, targets)
            classification = recorder.value if kind == "dr" else parts_of_loss["loss_retina_cls"]
            regression = parts_of_loss["loss_retina_reg"]
            model.zero_grad()
            (classification + regression).backward()
            parameters = dict(model.named_parameters())
            norms = np.array([float(parameters[k].grad.double().norm()) for k in _GRADIENTS_OF])
            answer |= {
                f"training/{kind}/classification{suffix}": classification.detach().numpy(),
                f"training/{kind}/regression{suffix}": regression.detach().numpy(),
                f"training/{kind}/gradient_norms{suffix}": norms,
            }
            labels = recorder.labels.view(2, -1)
            answer["training/num_positives"] = (labels > 0).sum(dim=1).numpy()
    model.float()
    answer["training/gradient_names"] = np.array(_GRADIENTS_OF)
    evaluator.box_cls_loss_func = focal
    return answer


def _module(name: str) -> Any:
    return import_module(f"maskrcnn_benchmark.{name}")


if __name__ == "__main__":
    main()
