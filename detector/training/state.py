"""All state of a training between two steps: nothing that changes the next step lives anywhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from msgspec import convert, to_builtins
from msgspec.structs import replace
from torch import nn

from detector.errors import DataError
from detector.runs.log_lines import resumed_after
from detector.runs.origin.conditions import changes, described, starts_of
from detector.runs.provenance import Inputs, Start, unequal
from detector.runs.timing import StepTiming
from detector.weights import checkpoint

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Model, optimiser, loss scaler, iteration and random state, saved and restored together.

    starts: of the training so far, this one last; empty where none was noted. inputs: the files that it began with.
    seconds: training time up to the newest checkpoint, over all starts. loss_sources: of the package that the loss
    comes from (``runs.origin.loss_package``); empty for a built-in loss. timing: where that time went; it lacks the
    iterations of starts that did not note it yet.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    starts: list[Start] = field(default_factory=list)
    inputs: Inputs = field(default_factory=Inputs)
    seconds: float = 0.0
    loss_sources: list[str] = field(default_factory=list)
    timing: StepTiming | None = None

    def save(self, folder: Path, iteration: int) -> None:
        """Write the state after ``iteration`` steps."""
        state = {
            "iteration": iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "starts": to_builtins(self.starts),
            "inputs": to_builtins(self.inputs),
            "seconds": self.seconds,
            "loss_sources": self.loss_sources,
            "timing": to_builtins(self.timing),
        }
        checkpoint.save_step(folder, iteration, state)

    def resume(self, folder: Path, precision: str) -> int:
        """Restore the newest checkpoint, if there is one; returns the number of steps already taken.

        precision: the job's, which older checkpoints do not say. Raises DataError where the checkpoint's training began
        with other files.
        """
        state = checkpoint.load_newest(folder)
        if state is None:
            return 0
        self._check_inputs(convert(state.get("inputs", {}), Inputs))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        self.seconds = state["seconds"]
        self.timing = convert(state.get("timing"), StepTiming | None)
        self._add_loss_sources(state.get("loss_sources", []))
        logger.info("%s", resumed_after(state["iteration"]))
        self._add_starts(starts_of(state, precision), state["iteration"])
        iteration: int = state["iteration"]
        return iteration

    def _check_inputs(self, earlier: Inputs) -> None:
        """What an older checkpoint does not know is taken from this start."""
        found = unequal(earlier, self.inputs)
        if found:
            raise DataError(
                f"The training began with other files, and cannot go on with these: {'; '.join(found)}. Put the first "
                "ones back, or train anew: harness run TARGET --fresh."
            )

    def _add_starts(self, earlier: list[Start], iteration: int) -> None:
        """Earlier starts before this one, and what changed since the last of them."""
        here = [replace(start, iteration=iteration) for start in self.starts]
        for start in here:
            changed = changes(earlier[-1], start) if earlier else []
            if changed:
                before, now = described(earlier[-1], changed), described(start, changed)
                logger.warning("%s, not as before (%s): equality to the last bit is void", now, before)
        self.starts = [*earlier, *here]

    def _add_loss_sources(self, earlier: list[str]) -> None:
        """Earlier starts' sources before this one's."""
        if earlier and earlier[-1:] != self.loss_sources:
            logger.warning("the source of the loss's package changed since the checkpoint; the record will say so")
        self.loss_sources = list(dict.fromkeys([*earlier, *self.loss_sources]))
