"""``harness plan --gpus 8xH100``: which GPUs are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from detector.errors import UsageError, did_you_mean
from detector.runs.record import Record
from harness.planning.rates import gpu_of
from harness.registry.speeds import GpuKind, SpeedsFile, plain_name


@dataclass(frozen=True)
class GpuSet:
    """``count`` GPUs of one name. ``kind``: their maker's figures; None where only measurements know the name."""

    count: int
    name: str
    kind: GpuKind | None

    def text(self) -> str:
        """``8 x NVIDIA H200``."""
        return f"{self.count} x {self.name}"


def parse_gpus(text: str, speeds: SpeedsFile, records: Iterable[Record]) -> GpuSet:
    """The GPUs of ``8xH100``, of any kind that speeds.yaml or a record names, whatever the case and spelling.

    Raises UsageError for anything else, with the known names.
    """
    found = re.fullmatch(r"([0-9]{1,5}) ?x ?(\S.*)", text.strip(), flags=re.IGNORECASE)
    if found is None or int(found[1]) == 0:
        raise UsageError(f"--gpus takes a number and a kind of GPU, such as 8xH100 or 1xH200; got {text!r}.")
    return gpu_set(int(found[1]), found[2].strip(), speeds, records)


def gpu_set(count: int, name: str, speeds: SpeedsFile, records: Iterable[Record]) -> GpuSet:
    """As ``parse_gpus``, for a number and a name that are apart."""
    kind = speeds.kind(name)
    if kind is not None:
        full = next((full for full in kind.names if plain_name(full) == plain_name(name)), kind.names[0])
        return GpuSet(count, full, kind)
    seen = {gpu_of(record) for record in records} - {None}
    measured = dict.fromkeys([*(speed.gpu for speed in speeds.speeds), *sorted(filter(None, seen))])
    for full in measured:
        if plain_name(full) == plain_name(name):
            return GpuSet(count, full, None)
    others = [full for full in measured if speeds.kind(full) is None]
    known = ", ".join(dict.fromkeys([*(kind.name for kind in speeds.gpus), *others])) or "none"
    raise UsageError(
        f"--gpus: no GPU named {name!r} is known. Known: {known}. Another one can be described in a speeds.yaml of "
        "your own (HARNESS_EXPERIMENTS names its folder); its form: harness schema speeds."
        f"{did_you_mean(name, (kind.name for kind in speeds.gpus))}"
    )
