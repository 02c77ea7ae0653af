"""All state of a training between two steps: nothing that changes the next step lives anywhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from detector.device.world import World
from detector.runs.conditions import Conditions
from detector.weights import checkpoint

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Model, optimiser, loss scaler, iteration and random state, saved and restored together.

    executions: the ``Conditions`` that the training ran with so far, as lists; a second one voids bit equality.
    seconds: training time up to the newest checkpoint, over all starts.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    compiled: bool = False
    executions: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, folder: Path, iteration: int) -> None:
        """Write the state after ``iteration`` steps."""
        state = {
            "iteration": iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "executions": self.executions,
            "seconds": self.seconds,
        }
        checkpoint.save_step(folder, iteration, state)

    def resume(self, folder: Path, world: World) -> int:
        """Restore the newest checkpoint, if there is one; returns the number of steps already taken."""
        conditions = Conditions(world.size, torch.get_num_threads(), self.compiled)
        here = list(conditions) if conditions.compiled else list(conditions[:2])
        state = checkpoint.load_newest(folder)
        if state is None:
            self.executions = [here]
            return 0
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        self.executions, self.seconds = state["executions"], state["seconds"]
        logger.info("resumed after iteration %d", state["iteration"])
        if here not in self.executions:
            self.executions.append(here)
            logger.warning("%s, not as before: equality to the last bit is void", conditions)
        iteration: int = state["iteration"]
        return iteration
