"""Files to start from: where they are found, how they are fetched. A server on this machine stands in."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.errors import WeightsError
from detector.weights.find import URLS, download, ensure_weights, weights_file

FILES = {
    ("caffe2", "resnet50"): "R-50.pkl",
    ("caffe2", "resnet101"): "R-101.pkl",
    ("caffe2", "resnext101_32x8d"): "X-101-32x8d.pkl",
    ("torchvision", "resnet50"): "resnet50-0676ba61.pth",
    ("torchvision", "resnet101"): "resnet101-63fe2227.pth",
    ("torchvision", "resnext101_32x8d"): "resnext101_32x8d-8ba56ff5.pth",
}
RESNET50 = FILES["torchvision", "resnet50"]
CONTENT = b"weights" * 100_000
BY_CONTENT = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


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


# Finding


@pytest.mark.parametrize("key", FILES)
def test_weights_file_looks_into_own_folder_then_cache(folders: tuple[Path, Path], key: tuple[str, str]) -> None:
    own, cache = folders
    name = FILES[key]

    assert weights_file(*key) is None
    (cache / name).touch()
    assert weights_file(*key) == cache / name
    (own / name).touch()
    assert weights_file(*key) == own / name


def test_weights_file_finds_a_file_by_its_content_under_any_name(folders: tuple[Path, Path]) -> None:
    own, cache = folders
    (own / "other.pth").write_bytes(b"other")
    (own / "notes.txt").write_bytes(CONTENT)
    assert weights_file(BY_CONTENT, "resnet50") is None
    (cache / "anything.pkl").write_bytes(CONTENT)

    assert weights_file(BY_CONTENT, "resnet50") == cache / "anything.pkl"
    assert ensure_weights(BY_CONTENT, "resnet50") == cache / "anything.pkl"


def test_ensure_by_content_says_which_file_is_wanted(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"No file {BY_CONTENT} in .*own.*--weights FILE.*HARNESS_WEIGHTS"):
        ensure_weights(BY_CONTENT, "resnet50")
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    with pytest.raises(WeightsError, match=rf"other\.pth is another file than {BY_CONTENT}: its sha256 is d9298a10d1b"):
        ensure_weights(BY_CONTENT, "resnet50", file=other)
    other.write_bytes(CONTENT)
    assert ensure_weights(BY_CONTENT, "resnet50", file=other) == other


def test_weights_file_needs_no_folder_of_its_own(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_WEIGHTS")
    (folders[1] / RESNET50).touch()

    assert weights_file("torchvision", "resnet50") == folders[1] / RESNET50


def test_a_file_in_the_folders_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_bytes(b"")
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(WeightsError, match=r"^HARNESS_WEIGHTS names .*weights, which is a file, not a folder\.$"):
        weights_file(*next(iter(FILES)))


def test_slim_has_no_imagenet_weights() -> None:
    with pytest.raises(WeightsError, match=r"'slim' has no ImageNet weights .*resnet101.*weights: none"):
        weights_file("torchvision", "slim")
    with pytest.raises(WeightsError, match="'slim' has no ImageNet weights"):
        ensure_weights("caffe2", "slim")


def test_ensure_takes_the_given_file_before_any_other(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / RESNET50).touch()
    given = tmp_path / "mine.pth"
    given.touch()

    assert ensure_weights("torchvision", "resnet50", file=given) == given
    assert ensure_weights("torchvision", "resnet50") == folders[0] / RESNET50


def test_ensure_refuses_a_given_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth.*resnet50-0676ba61\.pth.*--weights FILE"):
        ensure_weights("torchvision", "resnet50", file=tmp_path / "gone.pth")


# Downloading


def test_ensure_downloads_a_missing_file_once(
    folders: tuple[Path, Path], server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    name = f"resnet50-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    (served / name).write_bytes(CONTENT)
    monkeypatch.setitem(URLS, ("torchvision", "resnet50"), f"{url}/{name}")

    first = ensure_weights("torchvision", "resnet50")
    (served / name).unlink()

    assert first == folders[0] / name
    assert first.read_bytes() == CONTENT
    assert ensure_weights("torchvision", "resnet50") == first
    assert [path.name for path in folders[0].iterdir()] == [name]


def test_ensure_downloads_caffe2s_file_and_notes_its_sha256(
    folders: tuple[Path, Path],
    server: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its name says nothing to check against."""
    url, served = server
    (served / "R-50.pkl").write_bytes(CONTENT)
    monkeypatch.setitem(URLS, ("caffe2", "resnet50"), f"{url}/R-50.pkl")

    with caplog.at_level(logging.INFO, logger="detector.weights.find"):
        assert ensure_weights("caffe2", "resnet50") == folders[0] / "R-50.pkl"

    assert BY_CONTENT.removeprefix("sha256:") in caplog.text


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
