"""ImageNet weights of the backbones: found, downloaded once, checked against the network that takes them.

A file is torchvision's state dict of the whole classifier, ``NAME-SHA256PREFIX.pth``.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, ResNeXt101_32X8D_Weights

from detector.data.transfer import fetch
from detector.errors import DataError, WeightsError

WEIGHTS: Final = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": ResNet101_Weights.IMAGENET1K_V1,
    "resnext101_32x8d": ResNeXt101_32X8D_Weights.IMAGENET1K_V1,
}
FOLDER_VARIABLE = "HARNESS_WEIGHTS"


def imagenet_file(backbone: str) -> Path | None:
    """The backbone's file in the folder $HARNESS_WEIGHTS or in torch hub's cache, if it is there.

    Raises WeightsError for a backbone without ImageNet weights.
    """
    name = _file_name(_url(backbone))
    return next((folder / name for folder in _folders() if (folder / name).is_file()), None)


def ensure_imagenet(backbone: str, *, file: Path | None = None, timeout: float = 20) -> Path:
    """The file with the backbone's ImageNet weights: ``file`` if given, else a local one, else downloaded.

    A download goes to $HARNESS_WEIGHTS, or torch hub's cache without it. timeout: seconds without an answer from the
    server. Raises WeightsError, saying what to fetch and where to put it.
    """
    url = _url(backbone)
    if file is not None:
        if not file.is_file():
            raise WeightsError(f"There is no weights file {file}. {_by_hand(url)}")
        return file
    found = imagenet_file(backbone)
    if found is not None:
        return found
    target = _folders()[0] / _file_name(url)
    download(url, target, timeout=timeout)
    return target


def download(url: str, target: Path, *, timeout: float) -> None:
    """Fetch ``url`` to ``target``, whose name ends in a prefix of its sha256; it appears complete or not at all.

    Several processes may do this at once, each in a file of its own. Raises WeightsError.
    """
    unverified = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        fetch(url, unverified, retries=2, timeout=timeout)
        found, wanted = _sha256(unverified), _sha256_prefix(target.name)
        if not found.startswith(wanted):
            raise WeightsError(
                f"{url} is not what its name says: its sha256 starts with {found[: len(wanted)]}. {_by_hand(url)}"
            )
        unverified.replace(target)
    except (OSError, DataError) as error:
        raise WeightsError(f"Cannot download {url} to {target}: {error} {_by_hand(url)}") from error
    finally:
        for leftover in (unverified, unverified.with_name(f"{unverified.name}.part")):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)


def load_imagenet(body: nn.Module, file: Path) -> None:
    """Load a torchvision classifier's state dict into ``body`` (``Backbone.body``), all but its last layer ``fc``.

    Raises WeightsError if ``file`` is no state dict, or is of another architecture: every other tensor must have its
    place and shape, and every parameter and statistic of ``body`` its tensor.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"Cannot read weights from {file}: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{file} is not a state dict: expected tensors by name, as torchvision's ImageNet files.")
    given = {name: value for name, value in state.items() if not name.startswith("fc.")}
    given = {name: value for name, value in given.items() if not name.endswith(".num_batches_tracked")}
    wanted = body.state_dict()
    problems = [f"lacks {name}" for name in wanted if name not in given]
    problems += [f"has an unknown {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {list(given[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise WeightsError(
            f"{file} does not fit the backbone (is it of another architecture, or the norm not frozen_batch?): {shown}."
        )
    body.load_state_dict(given)


def _url(backbone: str) -> str:
    if backbone not in WEIGHTS:
        raise WeightsError(
            f"Backbone {backbone!r} has no ImageNet weights (known: {', '.join(WEIGHTS)}). Train it with weights: none."
        )
    url: str = WEIGHTS[backbone].url
    return url


def _folders() -> list[Path]:
    """Where files are looked for; downloads go to the first."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    folder = os.environ.get(FOLDER_VARIABLE)
    return [Path(folder), cache] if folder else [cache]


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_prefix(name: str) -> str:
    """``resnet50-0676ba61.pth`` -> ``0676ba61``."""
    return name.rsplit("-", 1)[1].split(".", 1)[0]


def _by_hand(url: str) -> str:
    return (
        f"Fetch {url} on a machine with network access, then pass it with --weights FILE, "
        f"or put {_file_name(url)} into a folder and set {FOLDER_VARIABLE} to it."
    )
