"""What loader workers say to the training beside their batches: that they wait for a file; and that they are to end."""

from __future__ import annotations

import multiprocessing
from typing import Final

from torch.utils.data import get_worker_info

from detector.errors import TrainingError
from detector.storage.retry import Waiting

ROOM: Final = 512  # bytes of what one worker says


class Said:
    """Shared by the training and its workers, however they are started."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._ends = multiprocessing.Event()
        self._texts = multiprocessing.RawArray("c", ROOM * workers)

    def note(self, waiting: Waiting | None) -> None:
        """By a worker: what it waits for. Raises TrainingError where the training has ended meanwhile."""
        if self._ends.is_set():
            raise TrainingError("The training ended while its loader worker waited for a file.")
        worker = get_worker_info()
        if worker is None:
            return
        text = "" if waiting is None else f"{waiting.seconds:.0f}\t{waiting.why}\t{waiting.what}"
        start = ROOM * worker.id
        self._texts[start : start + ROOM] = text.encode()[:ROOM].ljust(ROOM, b"\0")

    def longest(self) -> Waiting | None:
        """By the training: the longest wait of a worker."""
        found = []
        for start in range(0, ROOM * self.workers, ROOM):
            parts = bytes(self._texts[start : start + ROOM]).rstrip(b"\0").decode(errors="replace").split("\t")
            if len(parts) == 3 and parts[0].isdigit():
                found.append(Waiting(parts[2], parts[1], float(parts[0])))
        return max(found, key=lambda waiting: waiting.seconds, default=None)

    def end(self) -> None:
        """By the training: the workers are to stop waiting."""
        self._ends.set()
