"""The first 50 losses of two tiny trainings, to be the same from release to release: tests/data/golden_tiny.json.

python -m tests.golden    # writes them anew, where a change of the results is meant
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import torch

from detector.build import build_model
from detector.data.loader import TrainingData
from detector.data.shapes.generate import generate_shapes
from detector.data.splits import open_split
from detector.device.world import World
from detector.runs.folder import RunDir
from detector.runs.job import Shapes, TrainJob
from detector.training import train as training
from detector.training.stop import StopRequested
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve

FILE = Path(__file__).parent / "data" / "golden_tiny.json"
REFS = ("table2/L6", "table2/focal")
ITERATIONS = 50

Curve = dict[str, list[float]]


def job_of(ref: str) -> TrainJob:
    """The tiny training of a row, seed 0."""
    registry = Registry()
    return eval_job(resolve(registry, ref, registry.profile("tiny")), 0).train


def draw_data(folder: Path) -> Path:
    """The tiny profile's set: 2,300 images, about 15 seconds."""
    data = job_of(REFS[0]).data
    assert isinstance(data, Shapes)
    generate_shapes(folder, data)
    return folder


def curve(job: TrainJob, data: Path) -> Curve:
    """Both losses of the first iterations, by one process of one thread, with all checks of the first batch on."""
    registry = Registry()
    test = eval_job(resolve(registry, REFS[0], registry.profile("tiny")), 0).test
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    images = TrainingData(job, open_split(job.data, data, "train"), rank=0, world_size=1)
    model = build_model(job, num_classes=len(images.index.category_ids), test=test)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        run.checkpoints.mkdir()
        steps = iter(range(1, ITERATIONS + 1))
        try:
            training.train(
                job,
                model,
                images,
                run,
                world=World(0, 1, torch.device("cpu")),
                pace=training.Pace(checkpoint_every=1000, groups_per_forward=8, loader_workers=0, log_every=1),
                anchor_ranges=registry.profile("tiny").anchor_ranges,
                report=lambda _: None,
                stop=lambda: next(steps) == ITERATIONS,
            )
        except StopRequested:
            pass
        finally:
            torch.set_num_threads(threads)
        lines = [msgspec.json.decode(line) for line in run.metrics.read_text().splitlines()]
    return {name: [line[name] for line in lines] for name in ("classification", "bbox_regression")}


def main() -> None:
    """Draw the data, train, write the file."""
    with tempfile.TemporaryDirectory() as folder:
        data = draw_data(Path(folder) / "data")
        curves = {ref: curve(job_of(ref), data) for ref in REFS}
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(curves), indent=1) + b"\n")


if __name__ == "__main__":
    main()
