"""RetinaNet, its COCO data, training and evaluation. Importing this package does not import torch (PEP 562).

``detector.job`` (a training as data) and ``detector.errors`` are free of torch as well and are imported directly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.backbone import build_backbone
    from detector.formats.loading import load_backbone, load_detector
    from detector.formats.reading import read_weights
    from detector.formats.writing import write_weights
    from detector.head import RetinaNetHead
    from detector.retinanet import RetinaNet
    from detector.weights import ensure_weights, weights_file

__all__ = [
    "RetinaNet",
    "RetinaNetHead",
    "build_backbone",
    "ensure_weights",
    "load_backbone",
    "load_detector",
    "read_weights",
    "weights_file",
    "write_weights",
]

_MODULES = {
    "RetinaNet": "detector.retinanet",
    "RetinaNetHead": "detector.head",
    "build_backbone": "detector.backbone",
    "ensure_weights": "detector.weights",
    "load_backbone": "detector.formats.loading",
    "load_detector": "detector.formats.loading",
    "read_weights": "detector.formats.reading",
    "weights_file": "detector.weights",
    "write_weights": "detector.formats.writing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
