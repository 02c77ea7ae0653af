"""Runs Detectron2's RetinaNet and writes what our detector must answer too.

Peer: facebookresearch/detectron2 at commit 02b5c4e2, a plain checkout that nothing is changed in; its compiled
extension is not needed, since its RetinaNet takes torchvision's suppression. The weights are the random ones of
``random_weights``; the images are the first of the given COCO folder's val2017. By hand, never from a test:

    python -m tests.fidelity.peers.run_detectron2 --peer DIR --coco DIR --out tests/data/detectron2.npz

in an environment with torch, torchvision, fvcore, iopath, omegaconf, hydra-core, pycocotools, tabulate and cloudpickle.
Beside the arrays it writes the parameters' names and shapes, as ``names_detectron2_*.json``. tests/data/README.md
names the keys.
"""

from __future__ import annotations

import argparse
import sys
import types
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.random_weights import random_state
from tests.fidelity.peers.maskrcnn_benchmark_parts import PADDED_SHAPES, Arrays, grid_shapes, sizes_asked
from tests.fidelity.peers.write import write_arrays, write_names

_CONFIGURATIONS = {"r50": "retinanet_R_50_FPN_1x.yaml", "r101": "retinanet_R_101_FPN_3x.yaml"}
_SHORT, _LONG, _NUM_IMAGES = 256, 426, 3


def main() -> None:
    """Read the command line, run the peer, write the arrays and the names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="checkout of Detectron2")
    parser.add_argument("--coco", type=Path, required=True, help="folder with annotations/ and val2017/")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    options = parser.parse_args()
    if not (options.peer / "detectron2" / "modeling").is_dir():
        raise FileNotFoundError(f"{options.peer} is no checkout of Detectron2.")
    warnings.simplefilter("ignore")  # old calls; what they do has not changed
    torch.set_num_threads(1)
    sys.modules["detectron2._C"] = types.ModuleType("detectron2._C")
    sys.path.insert(0, str(options.peer))
    for name in _CONFIGURATIONS:
        model = _build(_config(options.peer, name))
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        write_names(options.out.parent / f"names_detectron2_{name}.json", shapes)
    config = _config(options.peer, "r50")
    model = _build(config)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(value) for key, value in random_state(shapes).items()}, strict=True)
    write_arrays(options.out, _anchors(model) | _sizes() | _detections(model, config, options.coco))


def _config(peer: Path, name: str) -> Any:
    config = import_module("detectron2.config").get_cfg()
    config.merge_from_file(str(peer / "configs" / "COCO-Detection" / _CONFIGURATIONS[name]), allow_unsafe=True)
    config.MODEL.DEVICE = "cpu"
    config.INPUT.MIN_SIZE_TEST, config.INPUT.MAX_SIZE_TEST = _SHORT, _LONG
    return config


def _build(config: Any) -> Any:
    return import_module("detectron2.modeling").build_model(config).eval()


def _anchors(model: Any) -> Arrays:
    """Item a: the base anchors of each level and the grids of the two padded shapes, in Detectron2's order."""
    answer = {"anchors/base": torch.stack(list(model.anchor_generator.cell_anchors)).numpy()}
    for height, width in PADDED_SHAPES:
        grids = model.anchor_generator([torch.empty(1, 1, *grid) for grid in grid_shapes(height, width)])
        answer[f"anchors/{height}x{width}"] = torch.cat([grid.tensor for grid in grids]).numpy()
        answer[f"anchors/{height}x{width}/per_level"] = np.array([len(grid) for grid in grids])
    return answer


def _sizes() -> Arrays:
    """(height, width) after resizing, of the images and short sides that the other peer is asked about."""
    rule = import_module("detectron2.data.transforms").ResizeShortestEdge.get_output_shape
    images, short_sides = sizes_asked()
    result = [[rule(int(h), int(w), int(short), 1333) for w, h in images] for short in short_sides]
    return {
        "sizes/images_width_height": images,
        "sizes/short_sides": short_sides,
        "sizes/resized_height_width": np.array(result, dtype=np.int32),
    }


def _detections(model: Any, config: Any, coco: Path) -> Arrays:
    """Item b: what the whole model finds, each image alone, prepared and put back as Detectron2's predictor does."""
    images = _first_images(coco)
    read = import_module("detectron2.data.detection_utils").read_image
    resize = import_module("detectron2.data.transforms").ResizeShortestEdge([_SHORT, _SHORT], _LONG)
    outputs: list[list[Tensor]] = []
    model.head.register_forward_hook(lambda _module, _inputs, result: outputs.__setitem__(slice(None), result))
    answer: Arrays = {
        "model_r50/image_ids": np.array([image["id"] for image in images]),
        "model_r50/thresholds_score_nms": np.array([model.test_score_thresh, model.test_nms_thresh]),
        "model_r50/top_per_level_per_image": np.array([model.test_topk_candidates, model.max_detections_per_image]),
    }
    for index, image in enumerate(images):
        pixels = read(str(coco / "val2017" / image["file_name"]), format=config.INPUT.FORMAT)
        height, width = pixels.shape[:2]
        resized = resize.get_transform(pixels).apply_image(pixels)
        tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        given = {"image": tensor, "height": height, "width": width}
        with torch.no_grad():
            found = model([given])[0]["instances"]
        key = f"model_r50/{index}"
        padded = model.preprocess_image([given]).tensor
        inner = padded[0, :, : resized.shape[0], : resized.shape[1]]
        answer |= {
            f"{key}/boxes_xyxy": found.pred_boxes.tensor.numpy(),
            f"{key}/scores": found.scores.numpy(),
            f"{key}/classes": found.pred_classes.numpy(),
            f"{key}/resized_padded": np.array([resized.shape[:2], padded.shape[2:]]),
            f"{key}/pixel_mean_std": np.array([inner.mean(), inner.std()]),
            f"{key}/p7_logits": outputs[0][-1][0].numpy(),
            f"{key}/p7_deltas": outputs[1][-1][0].numpy(),
        }
    return answer


def _first_images(coco: Path) -> list[dict[str, Any]]:
    """The same images as the other peer's: the first by id that have a box of more than a pixel, crowds included."""
    annotations = import_module("pycocotools.coco").COCO(str(coco / "annotations" / "instances_val2017.json"))
    large = {one["image_id"] for one in annotations.anns.values() if min(one["bbox"][2:]) > 1}
    return list(annotations.loadImgs(sorted(large)[:_NUM_IMAGES]))


if __name__ == "__main__":
    main()
