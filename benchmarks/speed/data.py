"""The annotation index beside pycocotools, and JPEGs to training images beside other pipelines, on one core."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from benchmarks.measure import Curve, Report, Row, compare
from benchmarks.speed.data_memory import SPLIT, open_peer, worker_memory
from detector.data.coco import cache
from detector.data.coco.files import annotation_file, annotations_sha256
from detector.data.coco.index import load_index
from detector.data.transforms import augment, random_generator, resize, to_tensor
from detector.runs.job import UNIT_RGB, AugmentationSettings

NUM_IMAGES, NUM_BOXES = 118_287, 860_001  # of train2017
PAPER = AugmentationSettings(short_sides=(800,), max_size=1333, flip_probability=0.5)


def report(*, quick: bool) -> Report:
    """With quick a file of five megabytes and a few images; else train2017's size, in about two minutes and 7 GB."""
    sizes = (1_000, 1_500) if quick else (10_000, 40_000, NUM_IMAGES)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, HARNESS_CACHE=f"{folder}/cache"):
        roots = [Path(folder, str(size)) for size in sizes]
        for root, size in zip(roots, sizes, strict=True):
            write_instances(root, size, round(size * NUM_BOXES / NUM_IMAGES))
        time.sleep(cache.SETTLED_SECONDS + 0.1)
        found = [index_seconds(root, rounds=3 if quick or root != roots[-1] else 1) for root in roots]
        facts = worker_memory(roots[-1])
    series = {name: tuple(seconds[name] for seconds in found) for name in ("pycocotools", "first", "again")}
    curve = Curve(title="Opening a split", x="images", xs=tuple(map(float, sizes)), series=series)
    rows = (*index_rows(found[-1], sizes[-1]), *image_rows(photographs()[: 4 if quick else 32], rounds=3))
    return Report(rows=rows, curves=(curve,), facts=facts)


def write_instances(root: Path, num_images: int, num_boxes: int) -> None:
    """Write a COCO root of annotations alone, with polygons, all fields of the real file, and its size per box."""
    rng = np.random.default_rng(0)
    points = [np.round(600 * rng.random(2 * n), 2).tolist() for n in rng.integers(6, 38, 500)]
    shapes = [f"[{polygon}]" for polygon in points]
    ids = np.sort(rng.choice(5 * num_images, num_images, replace=False)) + 1
    images = [
        f'{{"license": 3, "file_name": "{i:012}.jpg", "coco_url": "http://images.cocodataset.org/{SPLIT}/{i:012}.jpg", '
        f'"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", '
        f'"flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg", "id": {i}}}'
        for i in ids.tolist()
    ]
    boxes = np.round(rng.random((num_boxes, 4)) * [300, 200, 300, 250] + [0, 0, 3, 3], 2)
    columns = (rng.choice(ids, num_boxes), boxes, rng.integers(1, 81, num_boxes), rng.random(num_boxes) < 0.01)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    annotations = [
        f'{{"segmentation": {shapes[i % 500]}, "area": {box[2] * box[3] / 2:.4f}, "iscrowd": {crowd:d}, '
        f'"image_id": {image}, "bbox": {box}, "category_id": {category}, "id": {i}}}'
        for i, (image, box, category, crowd) in enumerate(rows, start=1)
    ]
    categories = [f'{{"supercategory": "thing", "id": {i}, "name": "thing {i}"}}' for i in range(1, 81)]
    path = annotation_file(root, SPLIT)
    path.parent.mkdir(parents=True)
    parts = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text("{" + ", ".join(f'"{name}": [{", ".join(part)}]' for name, part in parts.items()) + "}")


def index_seconds(root: Path, *, rounds: int) -> dict[str, float]:
    """pycocotools, ours the ``first`` time and ``again``, the hash of the content, and of an unchanged file."""
    path = annotation_file(root, SPLIT)

    def first() -> None:
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, HARNESS_CACHE=empty):
            load_index(root, SPLIT)

    load_index(root, SPLIT)
    found = compare({"pycocotools": lambda: open_peer(path), "first": first}, rounds=rounds, warmup=0)
    return found | compare(
        {
            "again": lambda: load_index(root, SPLIT),
            "hash": lambda: hashlib.sha256(path.read_bytes()),
            "hash again": lambda: annotations_sha256(root, SPLIT),
        },
        rounds=5,
    )


def index_rows(seconds: dict[str, float], num_images: int) -> tuple[Row, ...]:
    """Opening and naming the largest file."""
    of = f"{num_images:,} images and {round(num_images * NUM_BOXES / NUM_IMAGES):,} boxes"
    peer, peer_seconds = "pycocotools COCO()", seconds["pycocotools"]
    return (
        Row(
            work=f"COCO index of {of}, first opening",
            peer=peer,
            peer_seconds=peer_seconds,
            seconds=seconds["first"],
            limit="hashing the file's content",
            limit_seconds=seconds["hash"],
            goal="<= 3 s for train2017",
        ),
        Row(
            work=f"COCO index of {of}, opened again",
            peer=peer,
            peer_seconds=peer_seconds,
            seconds=seconds["again"],
            goal="< 0.05 s for train2017",
        ),
        Row(
            work=f"sha256 of the annotations of {of}, file unchanged",
            peer="hashlib over the file",
            peer_seconds=seconds["hash"],
            seconds=seconds["hash again"],
        ),
    )


def photographs() -> list[Path]:
    """Real COCO images where the tests find some, else none: ``image_rows`` then draws its own."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco-tiny"
    return sorted(Path(os.environ.get("HARNESS_COCO_TINY", beside)).glob("val2017/*.jpg"))


def image_rows(paths: list[Path], *, rounds: int) -> tuple[Row, ...]:
    """From the file to what leaves the loader, on one core; the notes have images per second."""
    with photographs_or_drawn(paths) as files, one_thread():
        count = len(files)
        ways: dict[str, Callable[[Path], object]] = {"decode": decode, "ours": ours, "PIL": pil}
        ways |= {"base codebase": base_codebase, "torchvision": TorchvisionReference()}
        seconds = compare({name: partial(over, files, way) for name, way in ways.items()}, rounds=rounds)
    kind = "COCO JPEGs" if paths else "drawn JPEGs of 640 x 480"
    work = f"{count} {kind} decoded, short side 800, half of them flipped, one core"
    peers = {
        "PIL": "PIL resize, uint8 tensor: our pixels to the last bit",
        "base codebase": "maskrcnn-benchmark's steps: PIL resize, float, normalised by the loader",
        "torchvision": "torchvision's reference: PILToTensor, ToDtype, GeneralizedRCNNTransform (other pixels)",
    }
    return tuple(
        Row(
            work=work,
            peer=peer,
            peer_seconds=seconds[name],
            seconds=seconds["ours"],
            limit="decoding alone",
            limit_seconds=seconds["decode"],
            note=f"{count / seconds['ours']:.0f} images/s, the peer {count / seconds[name]:.0f}",
        )
        for name, peer in peers.items()
    )


@contextlib.contextmanager
def photographs_or_drawn(paths: list[Path]) -> Iterator[list[Path]]:
    """``paths``, or four drawn images: smooth with a little noise, as photographs are."""
    if paths:
        yield paths
        return
    with tempfile.TemporaryDirectory() as folder:
        drawn = [Path(folder, f"{i}.jpg") for i in range(4)]
        rng = np.random.default_rng(0)
        for path in drawn:
            smooth = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((640, 480))
            noisy = np.asarray(smooth) + rng.normal(0, 4, (480, 640, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        yield drawn


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As in a loader's worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


BOXES = np.array([[10.0, 20.0, 200.0, 160.0]] * 7)  # as many as an image has on average


def flipped(path: Path) -> bool:
    """Flip every second image, the same ones in every pipeline."""
    return int(path.stem) % 2 == 1


def over(files: list[Path], way: Callable[[Path], object]) -> None:
    """Run ``way`` on each and drop the result, as a loader does after sending it."""
    for path in files:
        way(path)


def decode(path: Path) -> Image.Image:
    """What no pipeline can leave out: RGB, as the loader has it."""
    image = Image.open(path)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def ours(path: Path) -> tuple[torch.Tensor, np.ndarray]:
    """As ``TrainingData`` has it."""
    settings = AugmentationSettings(PAPER.short_sides, PAPER.max_size, float(flipped(path)))
    return augment(decode(path), BOXES, settings, random_generator(0, 0, 1), "modern")


def pil(path: Path) -> torch.Tensor:
    """The same pixels, by PIL."""
    pixels = to_tensor(resize(decode(path), short_side=800, max_size=1333))
    return pixels.flip(-1) if flipped(path) else pixels


def base_codebase(path: Path) -> torch.Tensor:
    """The steps of the paper's code, with torchvision's operations."""
    image = resize(decode(path), short_side=800, max_size=1333)
    if flipped(path):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    values = v2.functional.to_dtype(v2.functional.pil_to_tensor(image), torch.float32, scale=True)
    return v2.functional.normalize(values[[2, 1, 0]] * 255, [102.9801, 115.9465, 122.7717], [1.0, 1.0, 1.0])


class TorchvisionReference:
    """Its detection preset, and the part of it that the model does."""

    def __init__(self) -> None:
        self.tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
        self.model = GeneralizedRCNNTransform(800, 1333, list(UNIT_RGB.mean), list(UNIT_RGB.std))

    def __call__(self, path: Path) -> torch.Tensor:
        image = decode(path)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped(path) else image
        images, _ = self.model([self.tensor(image)], [{"boxes": torch.from_numpy(BOXES).float()}])
        return torch.as_tensor(images.tensors)
