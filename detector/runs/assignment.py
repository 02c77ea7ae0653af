"""What a worker is told to do. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from detector.runs.job import EvalJob, TrainJob
from detector.runs.record import Code

# The logger of whoever runs a training: its lines in a run's log are found again by this name.
WORKER_LOG: Final = "detector.worker"


class AnchorRanges(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a batch's mean number of anchors per image can be on a data set, [low, high] (``sanity.first_batch``).

    ``borderline``: those with an IoU between 0.4 and the positives'.
    """

    positives: tuple[float, float]
    borderline: tuple[float, float]


class Assignment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a worker is to do, and how; paths are this machine's and in no identity."""

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
    code_diff: str = ""  # what its ``diff_sha256`` is of
    notes: tuple[str, ...]
    anchor_ranges: AnchorRanges | None = None
    max_requeues: int = 0  # how often a scheduler is asked to start the run again after its signal to stop
    evaluate_every: int = 0  # iterations; what the run has learned so far, for those who wait; 0: never
    compile: bool = False  # the network that is trained, by torch.compile
