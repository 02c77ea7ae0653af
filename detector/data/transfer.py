"""From the loader's memory to the device, beside the device's other work."""

from __future__ import annotations

import torch

from detector.data.loader import Group


class Transfer:
    """Copies a step's groups to the device. A GPU copies while it still computes earlier steps."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, groups: list[Group]) -> list[Group]:
        """The groups on the device; the host does not wait for the copies."""
        if self._stream is None:
            return groups
        with torch.cuda.stream(self._stream):
            moved = [group.to(self.device) for group in groups]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._stream)
        for tensor in (tensor for group in moved for tensor in group.tensors()):
            tensor.record_stream(computing)  # its memory is not given away before the computation is over
        return moved
