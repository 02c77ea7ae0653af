"""All state of a training between two steps: nothing that changes the next step lives anywhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.device.world import World
from detector.runs.conditions import Conditions
from detector.runs.log_lines import resumed_after
from detector.training.pace import Pace
from detector.weights import checkpoint

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Model, optimiser, loss scaler, iteration and random state, saved and restored together.

    executions: the ``Conditions`` that the training ran with so far, as lists; a second one voids bit equality.
    seconds: training time up to the newest checkpoint, over all starts. loss_sources: of the package that the loss
    comes from (``runs.loss_package``); empty for a built-in loss.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    pace: Pace
    executions: list[list[Any]] = field(default_factory=list)
    seconds: float = 0.0
    loss_sources: list[str] = field(default_factory=list)

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
            "loss_sources": self.loss_sources,
        }
        checkpoint.save_step(folder, iteration, state)

    def resume(self, folder: Path, world: World) -> int:
        """Restore the newest checkpoint, if there is one; returns the number of steps already taken."""
        on_gpu = world.device.type == "cuda"
        conditions = Conditions(
            world.size,
            torch.get_num_threads(),
            self.pace.compile,
            torch.cuda.get_device_name(world.device) if on_gpu else "",
            on_gpu and self.pace.deterministic,
        )
        here = conditions.as_list()
        state = checkpoint.load_newest(folder)
        if state is None:
            self.executions = [here]
            return 0
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        self.executions, self.seconds = state["executions"], state["seconds"]
        self._add_loss_sources(state.get("loss_sources", []))
        logger.info("%s", resumed_after(state["iteration"]))
        if here not in self.executions:
            self.executions.append(here)
            logger.warning("%s, not as before: equality to the last bit is void", conditions)
        iteration: int = state["iteration"]
        return iteration

    def _add_loss_sources(self, earlier: list[str]) -> None:
        """Earlier starts' sources before this one's."""
        if earlier and earlier[-1:] != self.loss_sources:
            logger.warning("the source of the loss's package changed since the checkpoint; the record will say so")
        self.loss_sources = list(dict.fromkeys([*earlier, *self.loss_sources]))
