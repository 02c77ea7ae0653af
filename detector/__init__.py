"""RetinaNet, its COCO data, training and evaluation. Importing this package does not import torch (PEP 562).

``detector.job`` (a training as data) and ``detector.errors`` are free of torch as well and are imported directly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector.backbone import build_backbone
    from detector.head import RetinaNetHead
    from detector.retinanet import RetinaNet
    from detector.weights import ensure_imagenet, imagenet_file, load_imagenet

__all__ = ["RetinaNet", "RetinaNetHead", "build_backbone", "ensure_imagenet", "imagenet_file", "load_imagenet"]

_MODULES = {
    "RetinaNet": "detector.retinanet",
    "RetinaNetHead": "detector.head",
    "build_backbone": "detector.backbone",
    "ensure_imagenet": "detector.weights",
    "imagenet_file": "detector.weights",
    "load_imagenet": "detector.weights",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
