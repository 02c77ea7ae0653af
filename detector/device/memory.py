"""A GPU's memory that does not suffice for a training step, as one message that says what would help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from detector.data.loader import Group
from detector.device.precision import AUTOCAST
from detector.errors import TrainingError
from detector.runs.job import Precision

WORTH_NAMING = 2**30  # bytes of others on the same GPU


@contextmanager
def explained_lack_of_memory(groups: Sequence[Group], precision: Precision, device: torch.device) -> Iterator[None]:
    """Raises TrainingError in the place of torch's own error. groups: of one padded shape, in the pass at hand."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_message(str(error), groups, precision, device)) from error


def _message(said: str, groups: Sequence[Group], precision: Precision, device: torch.device) -> str:
    # torch's text has several sentences, of which the second says what was asked for.
    asked = ". ".join(said.splitlines()[0].split(". ")[1:2]).rstrip(".") if said else ""
    held, others = _held(device) if device.type == "cuda" else ("", 0)
    helps = []
    if len(groups) > 1:
        helps.append(f"execution.groups_per_forward in the profile, below {len(groups)} (the results stay the same)")
    if others > WORTH_NAMING:
        helps.append("ending what else uses the GPU (nvidia-smi shows it)")
    if precision not in AUTOCAST:
        helps.append("--set precision=bf16, about half the memory (another training)")
    helps.append("smaller images or another GPU")
    height, width = groups[0].padded_shape
    num_images = sum(len(group.images) for group in groups)
    sentences = [
        f"CUDA out of memory in a pass of {len(groups)} group{'s' * (len(groups) > 1)}, {num_images} images of "
        f"{height} x {width} pixels, precision {precision}",
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
