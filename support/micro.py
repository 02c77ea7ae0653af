"""A scale of seconds for tests: the tiny profile on 64-pixel images, a few iterations."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import yaml

from detector.data.shapes.generate import generate_shapes
from detector.device.world import World
from detector.runs.assignment import Assignment
from detector.runs.code import Code
from detector.runs.job import EvalJob, Shapes
from harness.folders import experiments_folder
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve

ALONE = World(0, 1, torch.device("cpu"))  # the one process of a run
DATA = {"source": "shapes", "version": 1, "seed": 0, "size": 64, "num_train": 24, "num_test": 6, "num_classes": 3}


def write_experiments(folder: Path, *, iterations: int = 8) -> Path:
    """Write the project's experiments with the tiny profile shrunk to seconds."""
    shutil.copytree(experiments_folder(), folder)
    path = folder / "profiles" / "tiny.yaml"
    profile = yaml.safe_load(path.read_text())
    profile |= {"iterations_1x": iterations, "short_side_800": 64}
    profile["settings"]["data"] = DATA
    profile["settings"]["batch"] = {"images": 4}
    profile["settings"]["schedule"] = {"warmup_iterations": 2}
    profile["execution"]["checkpoint_every"] = 2
    del profile["anchor_ranges"]  # those of 96 pixels
    path.write_text(yaml.safe_dump(profile))
    return folder


def micro_job(experiments: Path, ref: str = "table2/L6", seed: int = 0) -> EvalJob:
    """The evaluation of one row at that scale."""
    registry = Registry(experiments)
    return eval_job(resolve(registry, ref, registry.profile("tiny")), seed)


def micro_data(folder: Path, job: EvalJob) -> Path:
    """The generated set of the job."""
    assert isinstance(job.train.data, Shapes)
    generate_shapes(folder, job.train.data)
    return folder


def micro_assignment(job: EvalJob, run_dir: Path, data: Path, **changes: object) -> Assignment:
    """What the launcher would hand to a worker."""
    values: dict = {
        "train": job.train,
        "evals": (job,),
        "run_dir": str(run_dir),
        "data_root": str(data),
        "profile": "tiny",
        "device": "cpu",
        "threads": 1,
        "loader_workers": 0,
        "checkpoint_every": 2,
        "groups_per_forward": 2,
        "weights_file": None,
        "code": Code(version="0", commit=None, modified=None),
        "notes": (),
        **changes,
    }
    return Assignment(**values)
