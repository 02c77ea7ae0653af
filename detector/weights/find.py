"""Files to start a training from: found by the name that a recipe gives them, or downloaded once.

``caffe2`` and ``torchvision`` are those projects' ImageNet files of a backbone; ``sha256:...`` is any file that
``detector.weights`` reads, found by its content.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from detector.errors import DataError, WeightsError
from detector.runs.backbones import BACKBONES
from detector.storage.http import fetch
from detector.storage.reading import open_regular

logger = logging.getLogger(__name__)

# By project and backbone. torchvision's names end in a start of their sha256; Caffe2's say nothing to check against.
URLS: Final[dict[tuple[str, str], str]] = {
    (project, backbone): entry.imagenet[project]
    for project in ("caffe2", "torchvision")
    for backbone, entry in BACKBONES.items()
    if project in entry.imagenet
}
FOLDER_VARIABLE = "HARNESS_WEIGHTS"
BY_CONTENT: Final = "sha256:"
_SUFFIXES: Final = (".pth", ".pt", ".pkl")


def weights_file(weights: str, backbone: str) -> Path | None:
    """The file in the folder $HARNESS_WEIGHTS or in torch hub's cache, if it is there.

    weights: as in ``ModelSettings``, but ``none``. Raises WeightsError for a backbone without such weights.
    """
    if weights.startswith(BY_CONTENT):
        wanted = weights.removeprefix(BY_CONTENT)
        return next((file for file in _local_files() if _sha256(file) == wanted), None)
    name = file_name(_url(weights, backbone))
    return next((folder / name for folder in _folders() if (folder / name).is_file()), None)


def ensure_weights(weights: str, backbone: str, *, file: Path | None = None, timeout: float = 20) -> Path:
    """The file to start from: ``file`` if given, else a local one, else downloaded.

    A download goes to $HARNESS_WEIGHTS, or torch hub's cache without it. timeout: seconds without an answer from the
    server. Raises WeightsError, saying what to fetch and where to put it.
    """
    by_hand = _by_content(weights) if weights.startswith(BY_CONTENT) else _by_hand(_url(weights, backbone))
    if file is not None:
        if not file.is_file():
            raise WeightsError(f"There is no weights file {file}. {by_hand}")
        if weights.startswith(BY_CONTENT) and _sha256(file) != weights.removeprefix(BY_CONTENT):
            raise WeightsError(f"{file} is another file than {weights}: its sha256 is {_sha256(file)}. {by_hand}")
        return file
    found = weights_file(weights, backbone)
    if found is not None:
        return found
    if weights.startswith(BY_CONTENT):
        raise WeightsError(f"No file {weights} in {', '.join(map(str, _folders()))}. {by_hand}")
    url = _url(weights, backbone)
    target = _folders()[0] / file_name(url)
    download(url, target, timeout=timeout)
    return target


def download(url: str, target: Path, *, timeout: float) -> None:
    """Fetch ``url`` to ``target``; it appears complete or not at all, and with the sha256 that its name starts.

    Several processes may do this at once, each in a folder of its own. Raises WeightsError.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            unverified = Path(folder) / target.name
            fetch(url, unverified, retries=2, timeout=timeout)
            found, wanted = _sha256(unverified), _sha256_prefix(target.name)
            if not found.startswith(wanted):
                raise WeightsError(
                    f"{url} is not what its name says: its sha256 starts with {found[: len(wanted)]}. {_by_hand(url)}"
                )
            unverified.replace(target)
        logger.info("downloaded %s to %s, sha256 %s", url, target, found)
    except (OSError, DataError) as error:
        raise WeightsError(f"Cannot download {url} to {target}: {error} {_by_hand(url)}") from error


def check_published(weights: str, backbone: str, *, file: Path, sha256: str) -> None:
    """Raise WeightsError where ``file`` is not the published one whose sum is known. sha256: of ``file``.

    torchvision's names hold the start of it; of Caffe2's files no sum is published, and a record has the one found.
    """
    if weights.startswith(BY_CONTENT):
        return
    url = _url(weights, backbone)
    wanted = _sha256_prefix(file_name(url))
    if not sha256.startswith(wanted):
        raise WeightsError(
            f"{file} is not the file that {weights} publishes: its sha256 starts with {sha256[: len(wanted)]}, not "
            f"{wanted}. {_by_hand(url)} To start from this one: --set model.weights=sha256:{sha256}"
        )


def published_name(weights: str, backbone: str, file: Path) -> str:
    """What a record calls the file: the publisher's name, or its own where it is named by its content."""
    return file.name if weights.startswith(BY_CONTENT) else file_name(_url(weights, backbone))


def file_name(url: str) -> str:
    """The name under which a download is kept."""
    return url.rsplit("/", 1)[1]


def _url(weights: str, backbone: str) -> str:
    if (weights, backbone) not in URLS:
        known = ", ".join(name for project, name in URLS if project == weights)
        raise WeightsError(
            f"Backbone {backbone!r} has no ImageNet weights (known: {known}). Train it with weights: none."
        )
    return URLS[weights, backbone]


def _folders() -> list[Path]:
    """Where files are looked for; downloads go to the first. Raises WeightsError where the variable names a file."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and Path(folder).exists() and not Path(folder).is_dir():
        raise WeightsError(f"{FOLDER_VARIABLE} names {folder}, which is a file, not a folder.")
    return [Path(folder), cache] if folder else [cache]


def _local_files() -> list[Path]:
    """Every weights file of those folders."""
    found = [file for folder in _folders() if folder.is_dir() for file in sorted(folder.iterdir())]
    return [file for file in found if file.suffix in _SUFFIXES and file.is_file()]


def _sha256(file: Path) -> str:
    with open_regular(file, raises=WeightsError) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_prefix(name: str) -> str:
    """``resnet50-0676ba61.pth`` -> ``0676ba61``; empty where the name ends in none."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return found[1] if found else ""


def _by_hand(url: str) -> str:
    return (
        f"Fetch {url} on a machine with network access, then pass it with --weights FILE, "
        f"or put {file_name(url)} into a folder and set {FOLDER_VARIABLE} to it."
    )


def _by_content(weights: str) -> str:
    return (
        f"Pass the file whose sha256 is {weights.removeprefix(BY_CONTENT)} with --weights FILE, or put it into a "
        f"folder and set {FOLDER_VARIABLE} to it."
    )
