"""Whether to stop: the same answer at the same step in all processes."""

from __future__ import annotations

from collections import deque

import torch
import torch.distributed as dist

from detector.device.world import World

# Steps between the question and the answer on a GPU. So far may the host be ahead of the device.
LAG = 2


class Agreement:
    """Asked once per step with this process's wish; True in all processes as soon as one of them wished for it.

    On a GPU the answer is that of ``LAG`` steps before, since the newest would have to be waited for.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._asked: deque[tuple[torch.Tensor, torch.cuda.Event]] = deque()

    def __call__(self, wanted: bool) -> bool:
        """Whether to stop after this step."""
        if self.world.device.type != "cuda":
            if self.world.size == 1:
                return wanted
            return bool(self._of_all(wanted).item())
        answer = torch.empty((), pin_memory=True)
        answer.copy_(self._of_all(wanted), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._asked.append((answer, event))
        if len(self._asked) <= LAG:
            return False
        answer, event = self._asked.popleft()
        event.synchronize()
        return bool(answer.item())

    def _of_all(self, wanted: bool) -> torch.Tensor:
        flag = torch.full((), float(wanted), device=self.world.device)
        if self.world.size > 1:
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return flag
