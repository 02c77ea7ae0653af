"""What a worker is told to do. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from detector.runs.code import Code
from detector.runs.job import EvalJob, TrainJob

# The logger of a run's processes; a run's log is searched for its lines by this name.
WORKER_LOG: Final = "detector.worker"


class AnchorRanges(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Between what a batch's mean number of anchors per image is on a data set: [low, high] (``sanity.first_batch``).

    ``borderline``: those with an IoU between 0.4 and the positives'.
    """

    positives: tuple[float, float]
    borderline: tuple[float, float]


class Assignment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a worker is to do, and how. Paths are this machine's and part of no id."""

    train: TrainJob
    evals: tuple[EvalJob, ...]
    run_dir: str
    data_root: str
    profile: str
    device: Literal["cpu", "cuda"]
    threads: int
    loader_workers: int
    checkpoint_every: int
    groups_per_forward: int
    weights_file: str | None
    code: Code
    code_diff: str = ""  # the text whose sha256 is ``code.diff_sha256``
    notes: tuple[str, ...]
    anchor_ranges: AnchorRanges | None = None
    max_requeues: int = 0  # how often a scheduler is asked to start the run again after its signal to stop
    evaluate_every: int = 0  # iterations between evaluations during the training; 0: none
    compile: bool = False  # whether the network is trained under torch.compile
    cuda_graphs: bool = True  # whether a GPU replays passes of known shapes as CUDA graphs
    deterministic: bool = False  # whether a GPU may use only algorithms that repeat their bits
