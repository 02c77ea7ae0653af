"""RetinaNet, its COCO data, training and evaluation. Importing this package does not import torch (PEP 562).

``detector.runs.job`` (a training as data) and ``detector.errors`` are free of torch as well and are imported directly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.build import build_model
    from detector.evaluation.load import load_run
    from detector.model.backbone import build_backbone
    from detector.model.head import RetinaNetHead
    from detector.model.retinanet import RetinaNet
    from detector.weights.find import ensure_weights, weights_file
    from detector.weights.load import load_backbone, load_detector
    from detector.weights.read import read_weights
    from detector.weights.write import write_weights

__all__ = [
    "RetinaNet",
    "RetinaNetHead",
    "build_backbone",
    "build_model",
    "ensure_weights",
    "load_backbone",
    "load_detector",
    "load_run",
    "read_weights",
    "weights_file",
    "write_weights",
]

_MODULES = {
    "RetinaNet": "detector.model.retinanet",
    "RetinaNetHead": "detector.model.head",
    "build_backbone": "detector.model.backbone",
    "build_model": "detector.build",
    "ensure_weights": "detector.weights.find",
    "load_backbone": "detector.weights.load",
    "load_detector": "detector.weights.load",
    "load_run": "detector.evaluation.load",
    "read_weights": "detector.weights.read",
    "weights_file": "detector.weights.find",
    "write_weights": "detector.weights.write",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
