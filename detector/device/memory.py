"""A GPU's memory that does not suffice for a training step, as one message that says what would help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from detector.data.loader import Group
from detector.device.precision import AUTOCAST
from detector.errors import TrainingError
from detector.runs.job import Precision

WORTH_NAMING = 2**30  # bytes of others on the same GPU


@dataclass(frozen=True)
class PassSize:
    """What goes through the network at once: groups, their images, and the padded height and width in pixels."""

    groups: int
    images: int
    height: int
    width: int

    @staticmethod
    def largest(passes: Iterable[Sequence[Group]]) -> PassSize:
        """Of the passes of one step, each some groups of one padded shape, the one with most pixels."""
        sizes = [
            PassSize(len(groups), sum(len(group.images) for group in groups), *groups[0].padded_shape)
            for groups in passes
        ]
        return max(sizes, key=lambda size: size.images * size.height * size.width)

    def __str__(self) -> str:
        return f"{self.groups} group{'s' * (self.groups > 1)}, {self.images} images of {self.height} x {self.width}"


@contextmanager
def explained_lack_of_memory(largest: PassSize, precision: Precision, device: torch.device) -> Iterator[None]:
    """Raises TrainingError in the place of torch's own error; ``largest``: of the step's passes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_message(str(error), largest, precision, device)) from error


def _message(said: str, largest: PassSize, precision: Precision, device: torch.device) -> str:
    # torch's text has several sentences, of which the first two say what was asked for.
    asked = ". ".join(said.splitlines()[0].split(". ")[1:2]).rstrip(".") if said else ""
    held, others = _held(device) if device.type == "cuda" else ("", 0)
    helps = []
    if largest.groups > 1:
        helps.append(f"execution.groups_per_forward in the profile, below {largest.groups} (the results stay the same)")
    if others > WORTH_NAMING:
        helps.append("ending what else uses the GPU (nvidia-smi shows it)")
    if precision not in AUTOCAST:
        helps.append("--set precision=bf16, about half the memory (another training)")
    helps.append("smaller images or another GPU")
    sentences = [
        f"CUDA out of memory in a training step of precision {precision}; its largest pass: {largest} pixels",
        *([asked] if asked else []),
        *([held] if held else []),
        f"What helps: {'; '.join(helps)}",
    ]
    return ". ".join(sentences) + "."


def _held(device: torch.device) -> tuple[str, int]:
    """Who holds how much of the GPU, in words, and the bytes of other processes."""
    free, total = torch.cuda.mem_get_info(device)
    own, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_allocated(device)
    others = max(0, total - free - own)
    words = f"Of the GPU's {_gib(total)} this process holds {_gib(own)} (at most {_gib(peak)} in tensors)"
    return f"{words}, others {_gib(others)}", others


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
