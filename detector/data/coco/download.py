"""Downloads COCO 2017: whole, or the first images of each split. Files that are there already are kept."""

from __future__ import annotations

import contextlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec

from detector.data.coco.files import annotation_file
from detector.data.coco.index import CocoIndex, load_index
from detector.data.coco.subset import cut_annotations, first_images
from detector.data.coco.verify import check_release, image_problem, missing_images
from detector.errors import DataError
from detector.storage.files import write_atomic
from detector.storage.http import fetch
from detector.storage.locks import held, never
from detector.storage.outputs import holds_file

COCO_URL = "http://images.cocodataset.org"  # it has no certificate of its own name, so no https
RELEASE = "2017"
ANNOTATIONS_ZIP = "annotations_trainval2017.zip"
PARALLEL_IMAGES = 8

# Called with a name, how much of it has arrived, and how much it will be: bytes of an archive, or images of a split.
Progress = Callable[[str, int, int], None]


class _ImageUrl(msgspec.Struct, frozen=True, gc=False):
    id: int
    coco_url: str = ""


class _ImageUrls(msgspec.Struct, frozen=True, gc=False):
    images: list[_ImageUrl]


@dataclass(frozen=True)
class _Source:
    """How to reach the server."""

    base_url: str
    retries: int
    timeout: float
    wait: float
    progress: Progress | None

    def archive(self, path: str, folder: Path) -> Path:
        """The archive ``path`` of the server, downloaded into ``folder``."""
        target = folder / PurePosixPath(path).name
        if not target.exists():
            report = self.progress
            self.file(
                f"{self.base_url}/{path}",
                target,
                progress=None if report is None else lambda done, total: report(target.name, done, total),
            )
        return target

    def file(
        self,
        url: str,
        target: Path,
        *,
        progress: Callable[[int, int], None] | None = None,
        check: Callable[[Path], str | None] | None = None,
    ) -> None:
        """The address ``url``, downloaded to ``target``. check: what is wrong with the downloaded file, or None."""
        fetch(url, target, retries=self.retries, timeout=self.timeout, wait=self.wait, progress=progress, check=check)


def download_coco(
    root: Path,
    *,
    images: int | None,
    splits: Sequence[str] = ("train2017", "val2017"),
    annotations_zip: Path | None = None,
    base_url: str = COCO_URL,
    retries: int = 5,
    timeout: float = 30.0,
    wait: float = 1.0,
    progress: Progress | None = None,
) -> None:
    """Make ``root`` a COCO root of ``splits``: whole (``images`` None), or the first ``images`` of each by id.

    A split is complete when its annotation file appears, the last of its files. After an interruption the same call
    goes on. Single images come from the ``coco_url`` that the annotations name, archives from ``base_url``; archives
    are removed after unpacking. annotations_zip: a copy of the annotations' archive, which is then not downloaded.

    Raises DataError where the server fails for good (naming what to download by other means), where an archive or an
    image is damaged, and where ``root`` holds another selection.
    """
    source = _Source(base_url.rstrip("/"), retries, timeout, wait, progress)
    todo = [split for split in splits if not _finished(root, split, images)]
    if not todo:
        return
    with _work_folder(root) as work:
        archive = annotations_zip or _annotations_archive(source, work)
        for split in todo:
            content = _member(archive, split)
            if images is None:  # before 20 GB are downloaded
                _keep_annotations(root, split, content)
            write_atomic(annotation_file(work, split), content)
            index = replace(load_index(work, split), root=root)
            if images is None:
                check_release(index, RELEASE)
                _fetch_split(source, work, index)
            else:
                index = first_images(index, images)
                content = cut_annotations(content, set(index.image_ids.tolist()))
                _fetch_images(source, index, content)
            _keep_annotations(root, split, content)
            write_atomic(annotation_file(root, split), content)


def _finished(root: Path, split: str, images: int | None) -> bool:
    """Whether the split is there. Raises DataError where it is, but not as asked for."""
    if not annotation_file(root, split).exists():
        return False
    index = load_index(root, split)
    if images is None:
        check_release(index, RELEASE)
    elif index.num_images != images:
        raise DataError(f"{root} holds {index.num_images:,} images of {split}, not {images:,}. Give another folder.")
    return not missing_images(index)


def _keep_annotations(root: Path, split: str, content: bytes) -> None:
    """Raise DataError where the split's annotations are there already, with another content."""
    path = annotation_file(root, split)
    if holds_file(path) and path.read_bytes() != content:
        raise DataError(f"{path} exists and is not that of the release; it is not overwritten. Give another folder.")


@contextlib.contextmanager
def _work_folder(root: Path) -> Iterator[Path]:
    """``root/.download``, for one process at a time. Kept after an error, so that the next call can go on."""
    work = root / ".download"
    try:
        with held(work / "lock", wait=never):
            yield work
            shutil.rmtree(work)
    except BlockingIOError as error:
        raise DataError(f"Another process downloads to {root}. Wait for it, or give another folder.") from error


def _annotations_archive(source: _Source, work: Path) -> Path:
    try:
        return source.archive(f"annotations/{ANNOTATIONS_ZIP}", work)
    except DataError as error:
        raise DataError(
            f"{error} Run this again to go on; or fetch {source.base_url}/annotations/{ANNOTATIONS_ZIP} on a machine "
            "that can reach it, and name the file with --annotations-zip."
        ) from error


def _member(archive: Path, split: str) -> bytes:
    """The split's instances file, from the annotations' archive."""
    name = f"annotations/instances_{split}.json"
    with _opened(archive) as opened:
        if name not in opened.namelist():
            raise DataError(f"{archive} has no {name}. Valid: COCO's {ANNOTATIONS_ZIP}, splits train2017 and val2017.")
        return opened.read(name)


def _fetch_images(source: _Source, index: CocoIndex, content: bytes) -> None:
    """Download every image of the index. Each appears only when it is whole and has the right size."""
    decoded = msgspec.json.decode(content, type=_ImageUrls)
    urls = {image.id: image.coco_url for image in decoded.images}

    def get(i: int) -> None:
        target = index.image_path(i)
        if not target.exists():
            url = urls[int(index.image_ids[i])]
            width, height = int(index.widths[i]), int(index.heights[i])
            source.file(url, target, check=lambda arrived: image_problem(arrived, width, height, decode=True))

    pool = ThreadPoolExecutor(PARALLEL_IMAGES)
    try:
        for done, _ in enumerate(pool.map(get, range(index.num_images)), start=1):
            if source.progress is not None:
                source.progress(index.split, done, index.num_images)
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_split(source: _Source, work: Path, index: CocoIndex) -> None:
    """Unpack the missing images of the split from its archive, which is then removed."""
    missing = missing_images(index)
    if not missing:
        return
    path = f"zips/{index.split}.zip"
    try:
        archive = source.archive(path, work)
    except DataError as error:
        folder = index.root / index.split
        raise DataError(
            f"{error} Run this again to go on; or fetch {source.base_url}/{path} by other means and unpack its images "
            f"into {folder}."
        ) from error
    unpack(archive, {f"{index.split}/{name}": index.root / index.split / name for name in missing})
    archive.unlink()


def unpack(archive: Path, members: dict[str, Path]) -> None:
    """Write members of a zip file to files, each whole or not at all. members: the file for each member's name.

    No name in the archive becomes a path, so a hostile archive cannot write elsewhere. Raises DataError where the
    archive is damaged or lacks a member.
    """
    with _opened(archive) as opened:
        absent = sorted(members.keys() - set(opened.namelist()))
        if absent:
            raise DataError(f"{archive} lacks {len(absent):,} files, first {absent[0]}. Remove it and run this again.")
        for name, target in members.items():
            with opened.open(name) as packed:
                # Not flushed to the disk one by one, which is slow for 118,000 images.
                write_atomic(target, partial(shutil.copyfileobj, packed), flush=False)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """An open zip file. Damage is raised as DataError; each member's checksum is verified while it is read."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except FileNotFoundError as error:
        raise DataError(f"There is no archive {archive}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is damaged: {error}. Remove it and run this again.") from error
