"""How a training is executed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How a training is executed; none of it changes the result beyond float rounding."""

    checkpoint_every: int
    groups_per_forward: int
    loader_workers: int
    evaluate_every: int = 0  # 0: never
    compile: bool = False
    cuda_graphs: bool = True  # on a GPU: passes whose shape was met before are replayed as CUDA graphs
    deterministic: bool = False  # only algorithms that give the same bits from run to run
