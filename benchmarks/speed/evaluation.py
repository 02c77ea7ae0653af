"""COCO's twelve numbers, and opening the files they are made from, against pycocotools, at the size of val2017."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO

from benchmarks.measure import Curve, Report, Row, compare
from detector.data.coco.files import annotation_file
from detector.data.coco.index import CocoIndex, load_index
from detector.evaluation.detections import Detections, read_detections, write_detections
from detector.evaluation.reweighted import reweighted_ap
from detector.evaluation.scoring import FAST, Backend, coco_metrics_and_matches, coco_stats
from harness.verdicts.images import RESAMPLES, resampled

IMAGES, BOXES, CLASSES, DETECTIONS = 5_000, 36_781, 80, 500_000
SHARES = (0.1, 0.3, 1.0)  # of the detections, for the curve
WIDTH, HEIGHT = 640, 480
POLYGON = 40  # numbers of a segmentation, which the readers have to pass over
BACKENDS: tuple[Backend, ...] = ("pycocotools", *FAST)


def report(*, quick: bool) -> Report:
    """Seconds from arrays to the twelve numbers, from files to arrays, and their growth. Minutes, most pycocotools'."""
    part, rounds = (100, 7) if quick else (1, 3)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        index = make_truth(Path(folder), IMAGES // part, BOXES // part, rng)
        found = make_detections(index, DETECTIONS // part, rng)
        counts = [int(share * len(found)) for share in SHARES]
        seconds = [score(index, first(found, count), rounds) for count in counts]
        rows = (
            *scoring_rows(index, found, seconds[-1]),
            bootstrap_row(index, found, seconds[-1][FAST[0]], rounds),
            *reading_rows(index, found, rounds),
        )
    series = {backend: tuple(measured[backend] for measured in seconds) for backend in BACKENDS}
    curve = Curve(title=f"Scoring, {IMAGES // part:,} images", x="detections", xs=tuple(counts), series=series)
    return Report(rows=rows, curves=(curve,))


def make_truth(root: Path, images: int, boxes: int, rng: np.random.Generator) -> CocoIndex:
    """An instances file with polygons, a hundredth of the boxes crowds."""
    sides = np.exp(rng.normal(4, 1, (boxes, 2))).clip(4, [WIDTH, HEIGHT]).round(2)
    corners = (rng.random((boxes, 2)) * ([WIDTH, HEIGHT] - sides)).round(2)
    polygon = (rng.random(POLYGON) * HEIGHT).round(2).tolist()
    columns = (rng.integers(0, images, boxes), rng.integers(0, CLASSES, boxes), rng.random(boxes) < 0.01)
    rows = zip(*(column.tolist() for column in (*columns, corners, sides)), strict=True)
    content = {
        "info": {},
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(images)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(CLASSES)],
        "annotations": [
            {
                "id": i,
                "image_id": image,
                "category_id": category,
                "bbox": [*corner, *size],
                "area": 0.6 * size[0] * size[1],
                "iscrowd": int(crowd),
                "segmentation": [polygon],
            }
            for i, (image, category, crowd, corner, size) in enumerate(rows, 1)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_bytes(msgspec.json.encode(content))
    return load_index(root, "val")


def make_detections(index: CocoIndex, count: int, rng: np.random.Generator) -> Detections:
    """Each object found many times, by shifted boxes and often in a wrong class; sorted by image."""
    rows = np.sort(rng.integers(0, len(index.boxes), count))
    sides = index.sides[rows] * np.exp(rng.normal(0, 0.3, (count, 2)))
    corners = index.boxes[rows, :2] + rng.normal(0, 0.2, (count, 2)) * sides
    labels = np.where(rng.random(count) < 0.3, index.labels[rows], rng.integers(0, CLASSES, count))
    scores = rng.random(count).astype(np.float32).astype(np.float64)
    boxes = np.concatenate([corners, sides], axis=1)
    return Detections(index.image_ids[index.positions()[rows]], index.category_ids[labels], boxes, scores)


def first(found: Detections, count: int) -> Detections:
    """Detections of all images, fewer of each."""
    rows = np.linspace(0, len(found) - 1, count).astype(np.int64)
    return Detections(found.image_ids[rows], found.category_ids[rows], found.boxes[rows], found.scores[rows])


def score(index: CocoIndex, found: Detections, rounds: int) -> dict[str, float]:
    """Seconds of each backend, pycocotools once: half a minute. Raises ValueError where a bit of a number differs."""
    stats: dict[Backend, NDArray[np.float64]] = {}

    def by(backend: Backend) -> Callable[[], None]:
        def work() -> None:
            stats[backend] = coco_stats(index, found, backend)

        return work

    seconds = compare({backend: by(backend) for backend in FAST}, rounds=rounds)
    seconds |= compare({"pycocotools": by("pycocotools")}, rounds=1, warmup=0)
    if any((stats[backend] != stats["pycocotools"]).any() for backend in FAST):
        raise ValueError(f"the backends differ: {stats}")
    return seconds


def scoring_rows(index: CocoIndex, found: Detections, seconds: dict[str, float]) -> tuple[Row, ...]:
    """From arrays to twelve numbers; no row unless all backends give the same bits."""
    order = compare({"sort": lambda: np.lexsort((-found.scores, found.image_ids, found.category_ids))})["sort"]
    return tuple(
        Row(
            work=f"score {len(found):,} detections on {index.num_images:,} images by {backend}, bits equal",
            peer="pycocotools",
            peer_seconds=seconds["pycocotools"],
            seconds=seconds[backend],
            limit="sorting the detections once, by class, image and score (NumPy)",
            limit_seconds=order,
            goal="< 1 s at 500,000",
        )
        for backend in FAST
    )


def bootstrap_row(index: CocoIndex, found: Detections, scoring: float, rounds: int) -> Row:
    """A bootstrap over images from known matches. scoring: seconds to score the split once by the fastest library.

    Raises ValueError where the matches do not give the scores' AP to the last bit.
    """
    metrics, matches = coco_metrics_and_matches(index, found)
    (whole,) = reweighted_ap(matches, np.ones((1, index.num_images), np.int64)).tolist()
    if whole[0] != metrics["AP"]:
        raise ValueError(f"AP of the matches is {whole[0]}, of the scores {metrics['AP']}")
    seconds = compare({"ours": lambda: resampled([matches])}, rounds=rounds)["ours"]
    return Row(
        work=f"AP of {RESAMPLES} resamples of {index.num_images:,} images (bootstrap), {len(found):,} detections",
        peer=f"scoring each anew by {FAST[0]} ({RESAMPLES} x one scoring)",
        peer_seconds=RESAMPLES * scoring,
        seconds=seconds,
        goal="seconds",
    )


def reading_rows(index: CocoIndex, found: Detections, rounds: int) -> tuple[Row, Row]:
    """A result file to columns, and the truth's file to an index."""
    path = index.root / "found.json.gz"
    write_detections(path, found)
    annotations = annotation_file(index.root, index.split)
    truth = coco_of(annotations)
    packed, content = path.read_bytes(), annotations.read_bytes()
    work: dict[str, Callable[[], object]] = {
        "pycocotools, results": lambda: silently(lambda: truth.loadRes(json.loads(gzip.decompress(path.read_bytes())))),
        "pycocotools, truth": lambda: coco_of(annotations),
        "results": lambda: read_detections(path),
        "truth": lambda: load_index(index.root, index.split),
        "unpack": lambda: gzip.decompress(packed),
    }
    seconds = compare(work, rounds=rounds)
    return (
        Row(
            work=f"read {len(found):,} detections, {len(packed) / 1e6:.1f} MB of gzipped JSON, checked, as columns",
            peer="json and pycocotools' loadRes",
            peer_seconds=seconds["pycocotools, results"],
            seconds=seconds["results"],
            limit="gzip.decompress",
            limit_seconds=seconds["unpack"],
        ),
        Row(
            work=f"read the truth of {index.num_images:,} images, {len(content) / 1e6:.1f} MB of JSON, checked",
            peer="pycocotools' COCO",
            peer_seconds=seconds["pycocotools, truth"],
            seconds=seconds["truth"],
        ),
    )


def coco_of(annotations: Path) -> COCO:
    """pycocotools' own reading."""
    return silently(lambda: COCO(str(annotations)))


def silently(work: Callable[[], COCO]) -> COCO:
    """Silences what pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return work()
