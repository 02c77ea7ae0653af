"""Memory per loader worker for a split's annotations: pycocotools' dictionaries beside our columns. Free of torch."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from pycocotools.coco import COCO

from detector.data.coco.files import annotation_file
from detector.data.coco.index import load_index

SPLIT = "train2017"
WORKERS = 2


def open_peer(path: Path) -> COCO:
    """Load it without what pycocotools prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def worker_memory(root: Path) -> dict[str, float | str]:
    """Private megabytes that a forked worker gains by going over every image's boxes once."""
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, float | str] = {}
    for name, work in {"pycocotools": fork_peers, "ours": fork_ours}.items():
        results: SimpleQueue[float] = spawn.SimpleQueue()
        process = spawn.Process(target=work, args=(root, results))
        process.start()
        process.join()
        gained = [results.get() for _ in range(WORKERS)]
        found[f"private MB a loader worker gains, {name}"] = round(max(gained), 1)
    return found


def fork_peers(root: Path, results: SimpleQueue[float]) -> None:
    """Workers over the dictionaries of pycocotools."""
    peer = open_peer(annotation_file(root, SPLIT))
    fork_workers(lambda: sum(row["bbox"][2] for image in peer.getImgIds() for row in peer.imgToAnns[image]), results)


def fork_ours(root: Path, results: SimpleQueue[float]) -> None:
    """Workers over the mapped columns."""
    load_index(root, SPLIT)
    index = load_index(root, SPLIT)
    fork_workers(lambda: sum(index.boxes[index.annotations_of(i)].sum() for i in range(index.num_images)), results)


def fork_workers(work: Callable[[], object], results: SimpleQueue[float]) -> None:
    """What each gains while all are alive: memory that they share belongs to none."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(WORKERS)
    workers = [fork.Process(target=measured, args=(work, barrier, results)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def measured(work: Callable[[], object], barrier: Barrier, results: SimpleQueue[float]) -> None:
    """Runs in a worker."""
    before = private_megabytes()
    work()
    barrier.wait()
    results.put(private_megabytes() - before)
    barrier.wait()


def private_megabytes() -> float:
    """Megabytes of this process that it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
