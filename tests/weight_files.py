"""Weight files of each project for tests: true names and shapes, made-up numbers."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn

DATA = Path(__file__).resolve().parent / "data"
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def peer_shapes(name: str) -> dict[str, list[int]]:
    """Names and shapes of a peer's whole state dict, anchors included: ``maskrcnn_benchmark_r50``, ..."""
    shapes: dict[str, list[int]] = json.loads((DATA / f"names_{name}.json").read_text())
    return shapes


def blank(shapes: dict[str, Any], value: float = 0.5) -> dict[str, Tensor]:
    """One number everywhere, in tensors that share the memory of the largest: such a file is small, soon written."""
    storage = torch.full((max(math.prod(shape) for shape in shapes.values()),), value)
    return {name: storage[: math.prod(shape)].view(tuple(shape)) for name, shape in shapes.items()}


def torchvision_state(**options: Any) -> dict[str, Tensor]:
    """Names and shapes only; the numbers are all one half."""
    with torch.device("meta"):
        model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, **options)
    return blank({name: value.shape for name, value in model.state_dict().items()})


def caffe2_shapes(backbone: str = "resnet50") -> dict[str, tuple[int, ...]]:
    """Blobs of MSRA's ImageNet ResNets, written down from their naming, not from our table."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1_w": (64, 3, 7, 7),
        "conv1_b": (64,),
        "res_conv1_bn_s": (64,),
        "res_conv1_bn_b": (64,),
        "fc1000_w": (1000, 2048),
        "fc1000_b": (1000,),
    }
    inputs = 64
    for stage, num_blocks in zip((2, 3, 4, 5), BLOCKS[backbone], strict=True):
        width = 64 * 2 ** (stage - 2)
        for block in range(num_blocks):
            name = f"res{stage}_{block}_branch"
            convs = {
                "2a": (width, inputs, 1, 1),
                "2b": (width, width, 3, 3),
                "2c": (4 * width, width, 1, 1),
            }
            if block == 0:
                convs["1"] = (4 * width, inputs, 1, 1)
            for branch, shape in convs.items():
                shapes[f"{name}{branch}_w"] = shape
                shapes[f"{name}{branch}_bn_s"] = shapes[f"{name}{branch}_bn_b"] = (shape[0],)
            inputs = 4 * width
    return shapes


def save_maskrcnn_benchmark(path: Path, state: dict[str, Tensor]) -> Path:
    """As its checkpointer writes a distributed training."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]}
    scheduler = {"milestones": [60000, 80000], "gamma": 0.1, "last_epoch": 90000, "warmup_method": "linear"}
    model = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": model, "optimizer": optimizer, "scheduler": scheduler, "iteration": 90000}, path)
    return path


def numpy_state(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in state.items()}


def save_pickle(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=4))
    return path


def save_torch(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path
