"""The COCO release from a server on this machine: whole or in part, after faults, and what is refused."""

from __future__ import annotations

import fcntl
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.data.coco import releases
from detector.data.coco.download import download_coco, unpack
from detector.data.coco.files import annotation_file
from detector.data.coco.index import load_index
from detector.data.coco.verify import verify_root
from detector.data.shapes.generate import generate_shapes
from detector.errors import DataError
from detector.runs.job import Shapes
from tests.faulty_server import Server, serve

SPLITS = ("train2017", "val2017")
NUM_IMAGES = {"train2017": 6, "val2017": 4}
ANNOTATIONS = "/annotations/annotations_trainval2017.zip"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


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


@pytest.fixture
def release(server: Server, published: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server with a small release: archives, and single images under the addresses in its annotations."""
    annotations = {}
    monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", 2)
    for split in SPLITS:
        content = json.loads(annotation_file(published, split).read_text())
        content["images"].reverse()
        for image in content["images"]:
            image["coco_url"] = f"{server.url}/{split}/{image['file_name']}"
        annotations[f"annotations/instances_{split}.json"] = json.dumps(content).encode()
        images = {f"{split}/{path.name}": path.read_bytes() for path in (published / split).iterdir()}
        server.files |= {f"/{name}": data for name, data in images.items()}
        server.files[f"/zips/{split}.zip"] = zipped({f"{split}/": b"", **images})
        monkeypatch.setitem(releases.RELEASES["2017"], split, (NUM_IMAGES[split], len(content["annotations"])))
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


def test_download_coco_overwrites_no_annotations(release: Server, tmp_path: Path) -> None:
    download(release, tmp_path, 3, splits=["val2017"])
    path = annotation_file(tmp_path, "val2017")
    mine = path.read_bytes().replace(b"}]", b"} ]")
    path.write_bytes(mine)
    (tmp_path / "val2017" / "000000000002.png").unlink()
    with pytest.raises(DataError, match="exists and is not that of the release; it is not overwritten"):
        download(release, tmp_path, 3, splits=["val2017"])
    assert path.read_bytes() == mine


def test_download_coco_refuses_more_images_than_there_are(release: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot take 5 images of 'val2017' .* Valid: 1 to 4"):
        download(release, tmp_path, 5, splits=["val2017"])


def test_download_coco_refuses_annotations_of_another_release(
    release: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(releases.RELEASES["2017"], "val2017", (5, 5))
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
    content = bytearray(zipped({"val2017/1.jpg": bytes(range(256)) * 40}))
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip is damaged"):
        unpack(archive, {"val2017/1.jpg": tmp_path / "1.jpg"})
    assert not (tmp_path / "1.jpg").exists()
