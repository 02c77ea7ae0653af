"""Downloads from a server on this machine that breaks off, ignores ranges, refuses, and lies about lengths."""

from __future__ import annotations

import fcntl
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.data import coco
from detector.data.coco import annotation_file, load_index
from detector.data.download import download_coco, unpack
from detector.data.shapes import generate_shapes
from detector.data.transfer import fetch
from detector.data.verify import verify_root
from detector.errors import DataError
from detector.job import Shapes

SPLITS = ("train2017", "val2017")
NUM_IMAGES = {"train2017": 6, "val2017": 4}
CONTENT = bytes(range(256)) * 40
FILE = "/file"


@dataclass
class Server:
    """What it serves, and the faults that it shows on the next requests for a path, one a request."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    patience: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.requests.append((path, wanted))
        fault = self.faults[path].pop(0) if self.faults.get(path) else ""
        body = self.files.get(path)
        if body is None or fault.isdecimal():
            handler.send_error(int(fault) if fault else 404)
            return
        start = int(wanted[len("bytes=") : -1]) if wanted and fault != "ignore range" else 0
        part = body[start:]
        handler.send_response(200 if not start else 206 if part else 416)
        if start:
            first = start + 1 if fault == "wrong range" else start
            extent = f"{first}-{len(body) - 1}" if part else "*"
            handler.send_header("Content-Range", f"bytes {extent}/{len(body)}")
        if fault != "no length":
            handler.send_header("Content-Length", str(len(part) + (10 if fault == "too long" else 0)))
        handler.end_headers()
        handler.wfile.write(part[: len(part) // 2] if fault in ("break", "hang") else part)
        handler.wfile.flush()
        if fault == "hang":
            self.patience.wait(5)
        handler.close_connection = True

    def ranges(self, path: str) -> list[str | None]:
        return [wanted for found, wanted in self.requests if found == path]


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_port}", {FILE: CONTENT})
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def get(server: Server, target: Path, *, retries: int = 2, timeout: float = 5.0, **options: Any) -> None:
    fetch(server.url + FILE, target, retries=retries, timeout=timeout, wait=0.0, **options)


HALF = len(CONTENT) // 2


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        ([], [None]),
        (["503"], [None, None]),
        (["429", "500"], [None, None, None]),
        (["break"], [None, f"bytes={HALF}-"]),
        (["break", "break"], [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]),
        (["break", "ignore range"], [None, f"bytes={HALF}-"]),
        (["break", "503"], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        (["break", "wrong range"], [None, f"bytes={HALF}-", f"bytes={HALF}-"]),
        (["too long"], [None, f"bytes={len(CONTENT)}-"]),
        (["no length"], [None, None]),
    ],
    ids=lambda value: ",".join(map(str, value)) or "no fault",
)
def test_fetch_gets_the_file_whatever_goes_wrong_once(
    server: Server, tmp_path: Path, faults: list[str], ranges: list[str | None]
) -> None:
    server.faults[FILE] = list(faults)
    get(server, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == ranges
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_fetch_goes_on_where_an_earlier_call_stopped(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["break"]
    with pytest.raises(
        DataError, match=rf"in 1 attempts: the connection ended after {HALF:,} of {len(CONTENT):,} bytes"
    ):
        get(server, tmp_path / "file", retries=0)
    assert not (tmp_path / "file").exists()
    seen: list[tuple[int, int]] = []
    get(server, tmp_path / "file", progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == [None, f"bytes={HALF}-"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert all(done > HALF for done, _ in seen)


@pytest.mark.parametrize("left", [CONTENT + b"more", CONTENT])
def test_fetch_starts_over_only_where_the_part_does_not_fit(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "file.part").write_bytes(left)
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == ([f"bytes={len(left)}-"] if left == CONTENT else [f"bytes={len(left)}-", None])


def test_fetch_gives_up_after_its_retries(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["503"] * 9
    with pytest.raises(DataError, match=r"in 3 attempts: the server answers 503 Service Unavailable"):
        get(server, tmp_path / "file")
    assert len(server.requests) == 3


def test_fetch_never_accepts_a_wrong_length(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["no length"] * 9
    with pytest.raises(DataError, match="does not tell the file's length"):
        get(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_fetch_tries_no_second_time_what_is_not_there(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: the server answers 404 Not Found"):
        fetch(server.url + "/nothing", tmp_path / "file", retries=5, timeout=5, wait=0.0)
    assert len(server.requests) == 1


def test_fetch_ends_a_silent_connection(server: Server, tmp_path: Path) -> None:
    server.faults[FILE] = ["hang"]
    get(server, tmp_path / "file", timeout=0.2)
    assert not server.patience.is_set()
    server.patience.set()
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges(FILE) == [None, f"bytes={HALF}-"]


def test_fetch_reports_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in 2 attempts: .*[Cc]onnection refused"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", retries=1, timeout=5, wait=0.0)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file", ""])
def test_fetch_refuses_other_protocols(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="only http and https"):
        fetch(url, tmp_path / "file", retries=0, timeout=5)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published") / "root"
    generate_shapes(root, Shapes(version=1, seed=4, size=32, num_train=6, num_test=4, num_classes=2))
    return root


ANNOTATIONS = "/annotations/annotations_trainval2017.zip"


@pytest.fixture
def release(server: Server, published: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with a small release: archives, and single images under the addresses in its annotations."""
    annotations = {}
    monkeypatch.setattr(coco, "NUM_COCO_CATEGORIES", 2)
    for split in SPLITS:
        content = json.loads(annotation_file(published, split).read_text())
        content["images"].reverse()
        for image in content["images"]:
            image["coco_url"] = f"{server.url}/{split}/{image['file_name']}"
        annotations[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
        images = {f"{split}/{path.name}": path.read_bytes() for path in (published / split).iterdir()}
        server.files |= {f"/{name}": data for name, data in images.items()}
        server.files[f"/zips/{split}.zip"] = zipped({f"{split}/": b"", **images})
        monkeypatch.setitem(coco.RELEASES["2017"], split, (NUM_IMAGES[split], len(content["annotations"])))
    server.files[ANNOTATIONS] = zipped(annotations)
    return server


def download(server: Server, root: Path, images: int | None, **options: Any) -> None:
    settings: dict[str, Any] = {"base_url": server.url, "retries": 2, "timeout": 5.0, "wait": 0.0}
    download_coco(root, images=images, **{**settings, **options})


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_download_coco_gets_the_whole_release(release: Server, published: Path, tmp_path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    download(release, tmp_path, None, progress=lambda what, done, total: seen.update({what: (done, total)}))
    assert verify_root(tmp_path, decode=True).ok
    images = {name: data for name, data in files(published).items() if name.endswith("png")}
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("annotations")} == images
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", *SPLITS]
    assert seen.keys() == {"annotations_trainval2017.zip", "train2017.zip", "val2017.zip"}
    assert all(done == total > 0 for done, total in seen.values())


def test_download_coco_asks_for_nothing_when_all_is_there(release: Server, tmp_path: Path) -> None:
    download(release, tmp_path, None)
    release.requests.clear()
    download(release, tmp_path, None)
    assert release.requests == []
    (tmp_path / "val2017" / "000000000002.png").unlink()
    download(release, tmp_path, None)
    assert [path for path, _ in release.requests] == [ANNOTATIONS, "/zips/val2017.zip"]
    assert verify_root(tmp_path, decode=True).ok


def test_download_coco_gets_only_the_first_images(release: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    release.faults["/val2017/000000000002.png"] = ["break", "503"]
    download(release, tmp_path, 3, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] in SPLITS] == [(split, k, 3) for split in SPLITS for k in (1, 2, 3)]
    assert verify_root(tmp_path, decode=True).ok
    for split in SPLITS:
        index = load_index(tmp_path, split)
        assert index.image_ids.tolist() == [1, 2, 3]
        assert len(list((tmp_path / split).iterdir())) == 3
    assert not any(path.startswith("/zips") for path, _ in release.requests)


def test_download_coco_goes_on_after_an_interruption(release: Server, tmp_path: Path) -> None:
    release.faults["/val2017/000000000002.png"] = ["503"] * 3
    with pytest.raises(DataError, match=r"val2017/000000000002\.png in 3 attempts"):
        download(release, tmp_path, 3)
    assert not annotation_file(tmp_path, "val2017").exists()  # comes last, as the sign of a finished split
    release.requests.clear()
    download(release, tmp_path, 3)
    again = [path for path, _ in release.requests]
    assert "/val2017/000000000002.png" in again
    assert ANNOTATIONS not in again
    assert not any(path.startswith("/train2017") for path in again)
    assert verify_root(tmp_path, decode=True).ok
    assert not (tmp_path / ".download").exists()


def test_download_coco_refuses_another_selection_in_the_same_folder(release: Server, tmp_path: Path) -> None:
    download(release, tmp_path, 3, splits=["val2017"])
    with pytest.raises(DataError, match="holds 3 images of val2017, not 2"):
        download(release, tmp_path, 2, splits=["val2017"])
    with pytest.raises(DataError, match="not val2017 of COCO 2017: 3 images"):
        download(release, tmp_path, None, splits=["val2017"])


def test_download_coco_refuses_more_images_than_there_are(release: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot take 5 images of 'val2017' .* Valid: 1 to 4"):
        download(release, tmp_path, 5, splits=["val2017"])


def test_download_coco_refuses_annotations_of_another_release(
    release: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(coco.RELEASES["2017"], "val2017", (5, 5))
    with pytest.raises(DataError, match="not val2017 of COCO 2017"):
        download(release, tmp_path, None, splits=["val2017"])


def test_download_coco_takes_a_local_annotations_archive(release: Server, tmp_path: Path) -> None:
    local = tmp_path / "local.zip"
    local.write_bytes(release.files.pop(ANNOTATIONS))
    download(release, tmp_path / "root", 2, annotations_zip=local)
    assert verify_root(tmp_path / "root", decode=True).ok
    assert local.exists()
    with pytest.raises(DataError, match="There is no archive"):
        download(release, tmp_path / "other", 2, annotations_zip=tmp_path / "nothing.zip")


def test_download_coco_names_file_and_option_when_the_server_fails(release: Server, tmp_path: Path) -> None:
    release.faults[ANNOTATIONS] = ["503"] * 9
    with pytest.raises(DataError, match=rf"fetch {release.url}{ANNOTATIONS} on a machine .* --annotations-zip"):
        download(release, tmp_path, 2)
    release.faults.clear()
    release.faults["/zips/train2017.zip"] = ["503"] * 9
    with pytest.raises(DataError, match=rf"fetch {release.url}/zips/train2017\.zip by other means"):
        download(release, tmp_path, None)


def test_download_coco_removes_an_image_that_is_none(release: Server, tmp_path: Path) -> None:
    good = release.files["/val2017/000000000001.png"]
    buffer = io.BytesIO()
    Image.new("RGB", (32, 30)).save(buffer, "png")
    for bad, message in (
        (b"<html>", "not an image"),
        (buffer.getvalue(), "has 32 x 30 pixels"),
        (good[:700], "broken"),
    ):
        release.files["/val2017/000000000001.png"] = bad
        with pytest.raises(DataError, match=rf"{release.url}/val2017/000000000001\.png: .*{message}"):
            download(release, tmp_path, 1, splits=["val2017"])
        assert list((tmp_path / "val2017").iterdir()) == []
    release.files["/val2017/000000000001.png"] = good
    download(release, tmp_path, 1, splits=["val2017"])
    assert verify_root(tmp_path, decode=True).ok


def test_download_coco_names_an_archive_that_is_none_or_lacks_a_split(release: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no annotations/instances_test2017\.json"):
        download(release, tmp_path / "a", 2, splits=["test2017"])
    release.files[ANNOTATIONS] = b"<html>"
    with pytest.raises(DataError, match=r"annotations_trainval2017\.zip is damaged"):
        download(release, tmp_path / "b", 2)


def test_download_coco_lets_one_process_at_a_time(release: Server, tmp_path: Path) -> None:
    (tmp_path / ".download").mkdir()
    with (tmp_path / ".download" / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="Another process downloads"):
            download(release, tmp_path, 2)
    download(release, tmp_path, 2)
    assert verify_root(tmp_path, decode=True).ok


def test_unpack_writes_the_named_members_and_no_other(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"val2017/1.jpg": b"one", "../evil": b"two", "/evil": b"three"}))
    unpack(archive, {"val2017/1.jpg": tmp_path / "out" / "1.jpg"})
    assert files(tmp_path / "out") == {"1.jpg": b"one"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_unpack_names_a_missing_member(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"val2017/1.jpg": b"one"}))
    with pytest.raises(DataError, match=r"lacks 1 files, first val2017/2\.jpg"):
        unpack(archive, {"val2017/2.jpg": tmp_path / "2.jpg"})


def test_unpack_never_finishes_a_damaged_member(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    content = bytearray(zipped({"val2017/1.jpg": CONTENT}))
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip is damaged"):
        unpack(archive, {"val2017/1.jpg": tmp_path / "1.jpg"})
    assert not (tmp_path / "1.jpg").exists()
