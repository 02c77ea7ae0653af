"""Pairs of trainings of one job that are executed in different ways, or read different files under equal names.

Each trial changes one thing and returns the final weights of the job. They take seconds: four steps at the micro scale.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob, PixelSettings
from detector.training.train import StopRequested
from detector.worker.run import train_to_final
from support.final_weights import final_weights
from support.micro import ALONE, micro_assignment, micro_data, micro_job, write_experiments
from support.processes import outputs, run_processes
from tests.weight_files import caffe2_shapes, save_pickle

ITERATIONS = 4
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Bench:
    """A folder, a job, and its data; every training gets a folder of its own."""

    root: Path

    @cached_property
    def job(self) -> EvalJob:
        """The evaluation of Table 2's row L = 6."""
        return micro_job(write_experiments(self.root / "experiments", iterations=ITERATIONS))

    @cached_property
    def data(self) -> Path:
        """Its generated images."""
        return micro_data(self.root / "shapes", self.job)

    @cached_property
    def reference(self) -> Weights:
        """One process of one thread, nothing special."""
        return self.train()

    def train(self, *, job: EvalJob | None = None, data: Path | None = None, stop: int = 0, **changes: Any) -> Weights:
        """The final weights; ``stop``: after so many steps the training stops and goes on with ``changes``."""
        run = self._new_run()
        asked = job or self.job
        plain = micro_assignment(asked, run.root, data or self.data)
        if stop:
            looks = iter(range(stop))
            with suppress(StopRequested):
                train_to_final(plain, run, world=ALONE, heartbeat=None, stop=lambda: next(looks, stop) >= stop - 1)
            assert not run.final.exists()
        assignment = micro_assignment(asked, run.root, data or self.data, **changes)
        with threads(assignment.threads):
            train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
        return final_weights(run)

    def processes(self, count: int, **variables: str) -> Weights:
        """The same in new processes with other environment variables."""
        run = self._new_run()
        before = dict(os.environ)
        os.environ.update(variables)
        try:
            assignment = micro_assignment(self.job, run.root, self.data, groups_per_forward=1)
            codes = run_processes(assignment, count)
        finally:
            os.environ.clear()
            os.environ.update(before)
        assert codes == [0] * count, outputs(run)
        return final_weights(run)

    def copy_of_data(self) -> Path:
        """The data in another folder."""
        folder = self.root / f"copy-{len(list(self.root.iterdir()))}"
        shutil.copytree(self.data, folder)
        return folder

    def _new_run(self) -> RunDir:
        run = RunDir(self.root / f"run-{len(list(self.root.iterdir()))}")
        run.root.mkdir()
        return run


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch, one afterwards."""
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def difference(a: Weights, b: Weights) -> float:
    """The largest difference of a weight, relative to the largest weight; 0 for equal bits."""
    assert a.keys() == b.keys()
    largest = max(float(value.abs().max()) for value in a.values())
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a) / largest


def lower_precision_flag(bench: Bench) -> Weights:
    """Matrix products of torch in "medium" precision, which a program may have set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        return bench.train()
    finally:
        torch.set_float32_matmul_precision(before)


def inverted_pixels(bench: Bench) -> Weights:
    """Every training image inverted, under its old name."""
    data = bench.copy_of_data()
    for path in sorted(data.glob("train2017/*")):
        with Image.open(path) as image:
            pixels = 255 - np.asarray(image.convert("RGB"))
        Image.fromarray(pixels).save(path)
    return bench.train(data=data)


def other_labels(bench: Bench) -> Weights:
    """Each object of the training set under the next category."""
    data = bench.copy_of_data()
    (path,) = data.glob("annotations/*train2017.json")
    annotations = json.loads(path.read_text())
    ids = [category["id"] for category in annotations["categories"]]
    following = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    for item in annotations["annotations"]:
        item["category_id"] = following[item["category_id"]]
    path.write_text(json.dumps(annotations))
    return bench.train(data=data)


def weights_of_one_role(bench: Bench) -> tuple[Weights, Weights]:
    """ResNet-50 from two files that are both given as the Caffe2 model."""
    made = []
    model = bench.job.train.model
    model = replace(model, backbone="resnet50", weights="caffe2", norm="frozen_batch", frozen_stages=2)
    job = replace(bench.job, train=replace(bench.job.train, model=replace(model, **CAFFE2)))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        arrays = {name: _array(rng, shape) for name, shape in caffe2_shapes().items()}
        path = save_pickle(bench.root / f"caffe2-{seed}.pkl", {"blobs": arrays})
        made.append(bench.train(job=job, weights_file=str(path)))
    return made[0], made[1]


CAFFE2 = {
    "pixels": PixelSettings(order="bgr", range=255, mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0)),
    "stride_in_1x1": True,
}


def _array(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Convolutions that keep the size of what goes through them, scales below one, no bias."""
    if len(shape) == 1:
        return rng.uniform(0.1, 0.3, shape).astype(np.float32)
    return (rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
