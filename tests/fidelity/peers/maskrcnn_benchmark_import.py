"""Imports maskrcnn-benchmark (2019, PyTorch 1.x, a compiled extension) into today's Python, on the CPU.

Nothing of it is changed: what has gone from its surroundings since is put back before the import, and the compiled
extension is stood in for by a module whose ``nms`` is written anew below. Its own focal loss falls back to plain
tensors on the CPU by itself.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def import_maskrcnn_benchmark(folder: Path) -> None:
    """Make ``import maskrcnn_benchmark...`` work from the checkout ``folder``.

    Raises:
        FileNotFoundError: ``folder`` is no checkout.
    """
    if not (folder / "maskrcnn_benchmark" / "modeling").is_dir():
        raise FileNotFoundError(f"{folder} is no checkout of maskrcnn-benchmark.")
    _module("maskrcnn_benchmark._C", nms=legacy_nms)
    _module("apex", amp=_module("apex.amp", float_function=lambda function: function))
    # Cityscapes is imported beside COCO and never called here.
    unused = dict.fromkeys(("writeDict2JSON", "ensurePath", "colors", "getColorEntry"))
    _module("cityscapesscripts")
    _module("cityscapesscripts.helpers", csHelpers=_module("cityscapesscripts.helpers.csHelpers", **unused))
    removed: Any = _module("torch._six", PY3=True)
    torch._six = removed  # type: ignore[attr-defined]
    np.float = float  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))


def legacy_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices [M], ascending, of the boxes [N, 4] (x1, y1, x2, y2) that survive greedy suppression.

    The rule of the project's CUDA kernel, on which the paper ran: a box spans x2 - x1 + 1 pixels, and one whose IoU
    with a better one is *above* the threshold goes. (Its CPU kernel drops a box *at* the threshold too.)
    """
    pixels = boxes.numpy().astype(np.float32)
    area = (pixels[:, 2] - pixels[:, 0] + 1) * (pixels[:, 3] - pixels[:, 1] + 1)
    kept: list[int] = []
    waiting = torch.argsort(scores, descending=True, stable=True).numpy()
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        near = np.maximum(pixels[best, :2], pixels[waiting, :2])
        far = np.minimum(pixels[best, 2:], pixels[waiting, 2:])
        common = np.prod(np.maximum(far - near + 1, 0), axis=1)
        overlap = common / (area[best] + area[waiting] - common)
        waiting = waiting[overlap <= np.float32(threshold)]
    return torch.tensor(sorted(kept), dtype=torch.int64)


def _module(name: str, **members: Any) -> types.ModuleType:
    """A new entry of ``sys.modules`` with these members."""
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    return module
