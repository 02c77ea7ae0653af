"""ImageNet weights: where they are found, how they are fetched, what is refused. A server on this machine stands in."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from detector.backbone import build_backbone
from detector.errors import WeightsError
from detector.job import ModelSettings
from detector.weights import WEIGHTS, download, ensure_imagenet, imagenet_file, load_imagenet

FILES = {
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnext101_32x8d": "resnext101_32x8d-8ba56ff5.pth",
}
CONTENT = b"weights" * 100_000


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """$HARNESS_WEIGHTS and torch hub's cache, both empty."""
    own, cache = tmp_path / "own", tmp_path / "hub" / "checkpoints"
    own.mkdir()
    cache.mkdir(parents=True)
    monkeypatch.setenv("HARNESS_WEIGHTS", str(own))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache.parent))
    return own, cache


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's address and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()
        thread.join()


def body_of(backbone: str = "resnet50", norm: str = "frozen_batch") -> nn.Module:
    settings = ModelSettings(
        backbone=backbone,
        weights="imagenet",
        norm=norm,
        frozen_stages=2,
        fpn_channels=8,
        fpn_levels=(3, 7),
        p6_from="c5",
        head_convs=4,
        head_norm="none",
        anchor_scale=4.0,
        scales_per_octave=3,
        aspect_ratios=(0.5, 1.0, 2.0),
        prior_probability=0.5,
    )
    return build_backbone(settings).body


@pytest.fixture(scope="module")
def classifier() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return resnet50().state_dict()


# Finding


@pytest.mark.parametrize("backbone", FILES)
def test_imagenet_file_looks_into_own_folder_then_cache(folders: tuple[Path, Path], backbone: str) -> None:
    own, cache = folders
    name = FILES[backbone]

    assert imagenet_file(backbone) is None
    (cache / name).touch()
    assert imagenet_file(backbone) == cache / name
    (own / name).touch()
    assert imagenet_file(backbone) == own / name


def test_imagenet_file_needs_no_folder_of_its_own(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_WEIGHTS")
    (folders[1] / FILES["resnet50"]).touch()

    assert imagenet_file("resnet50") == folders[1] / FILES["resnet50"]


def test_slim_has_no_imagenet_weights() -> None:
    with pytest.raises(WeightsError, match=r"'slim' has no ImageNet weights .*resnet101.*weights: none"):
        imagenet_file("slim")
    with pytest.raises(WeightsError, match="'slim' has no ImageNet weights"):
        ensure_imagenet("slim", file=None)


def test_ensure_takes_the_given_file_before_any_other(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / FILES["resnet50"]).touch()
    given = tmp_path / "mine.pth"
    given.touch()

    assert ensure_imagenet("resnet50", file=given) == given
    assert ensure_imagenet("resnet50") == folders[0] / FILES["resnet50"]


def test_ensure_refuses_a_given_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth.*resnet50-0676ba61\.pth.*--weights FILE"):
        ensure_imagenet("resnet50", file=tmp_path / "gone.pth")


# Downloading


def test_ensure_downloads_a_missing_file_once(
    folders: tuple[Path, Path], server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    name = f"resnet50-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    (served / name).write_bytes(CONTENT)
    monkeypatch.setitem(WEIGHTS, "resnet50", type("Entry", (), {"url": f"{url}/{name}"}))

    first = ensure_imagenet("resnet50")
    (served / name).unlink()

    assert first == folders[0] / name
    assert first.read_bytes() == CONTENT
    assert ensure_imagenet("resnet50") == first
    assert [path.name for path in folders[0].iterdir()] == [name]


def test_download_leaves_nothing_where_the_checksum_differs(server: tuple[str, Path], tmp_path: Path) -> None:
    url, served = server
    (served / "net-00000000.pth").write_bytes(CONTENT)
    target = tmp_path / "new" / "net-00000000.pth"

    found = hashlib.sha256(CONTENT).hexdigest()[:8]
    with pytest.raises(WeightsError, match=f"its sha256 starts with {found}"):
        download(f"{url}/net-00000000.pth", target, timeout=5)
    assert list(target.parent.iterdir()) == []


def test_download_that_fails_says_what_to_fetch_and_where_to_put_it(server: tuple[str, Path], tmp_path: Path) -> None:
    url = f"{server[0]}/net-12345678.pth"

    with pytest.raises(WeightsError) as caught:
        download(url, tmp_path / "net-12345678.pth", timeout=5)

    message = str(caught.value)
    assert "404" in message
    for part in (f"Fetch {url}", "--weights FILE", "net-12345678.pth into a folder", "HARNESS_WEIGHTS"):
        assert part in message
    assert list(tmp_path.glob("net-*")) == []


def test_download_into_a_place_that_is_no_folder_is_a_weights_error(server: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(WeightsError, match="Cannot download"):
        download(f"{server[0]}/net-12345678.pth", tmp_path / "file" / "net-12345678.pth", timeout=5)


# Loading


def test_load_fills_the_body_and_leaves_out_the_classifier(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(classifier, tmp_path / "resnet50.pth")
    body = body_of()

    load_imagenet(body, tmp_path / "resnet50.pth")

    state = body.state_dict()
    assert len(state) == 53 * 5  # convolution, and weight, bias, mean and variance of its norm
    assert all(torch.equal(value, classifier[name]) for name, value in state.items())


def test_load_refuses_another_architecture(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(classifier, tmp_path / "resnet50.pth")

    with pytest.raises(WeightsError, match=r"lacks layer3\.6\.conv1\.weight.* more"):
        load_imagenet(body_of("resnet101"), tmp_path / "resnet50.pth")


def test_load_refuses_batch_norm_weights_for_group_norm(classifier: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(classifier, tmp_path / "resnet50.pth")

    with pytest.raises(WeightsError, match=r"norm not frozen_batch.*unknown bn1\.running_mean"):
        load_imagenet(body_of(norm="group"), tmp_path / "resnet50.pth")


def test_load_refuses_tensors_of_another_shape_and_keeps_the_body(
    classifier: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(classifier | {"conv1.weight": torch.zeros(32, 3, 7, 7)}, tmp_path / "resnet50.pth")
    body = body_of()
    before = {name: value.clone() for name, value in body.state_dict().items()}

    with pytest.raises(WeightsError, match=r"conv1\.weight is \[32, 3, 7, 7\], not \[64, 3, 7, 7\]"):
        load_imagenet(body, tmp_path / "resnet50.pth")
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_load_refuses_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)

    with pytest.raises(WeightsError, match=r"Cannot read weights from .*bad\.pth"):
        load_imagenet(nn.Conv2d(1, 1, 1), tmp_path / "bad.pth")


class Unsafe:
    """A class of ours: loading it would run code."""


def test_load_never_runs_pickled_code(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Unsafe()}, tmp_path / "unsafe.pth")

    with pytest.raises(WeightsError, match="Cannot read weights"):
        load_imagenet(nn.Conv2d(1, 1, 1), tmp_path / "unsafe.pth")


@pytest.mark.parametrize("value", [[1, 2], {"model": {"a": torch.zeros(1)}}])
def test_load_refuses_what_is_not_a_state_dict(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "other.pth")

    with pytest.raises(WeightsError, match="not a state dict"):
        load_imagenet(nn.Conv2d(1, 1, 1), tmp_path / "other.pth")
