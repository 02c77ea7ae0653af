"""How busy the GPU is and how much of its memory was taken, since the last look."""

from __future__ import annotations

import time

import torch

# Asking may take this share of the time: an answer that takes 0.1 ms is asked for every 0.1 s at most.
COST_SHARE = 1e-3


class DeviceLoad:
    """NVML's samples of one device; of a CPU there are none.

    NVML answers with the share of its last period (1/6 s to 1 s) in which a kernel ran, so that the samples of fast
    steps overlap. Where it does not answer once (no driver, no library, a MIG slice), it is not asked again.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_gpu = device.type == "cuda"
        self._answers = self.is_gpu
        self._samples: list[float] = []
        self._latest: float | None = None
        self._next = 0.0  # time.perf_counter() of the next question
        self.sample()  # NVML's start takes long, and says nothing of the training
        self._samples.clear()
        self._next = 0.0

    def sample(self) -> None:
        """Ask once, if it is time; once per iteration is often enough."""
        now = time.perf_counter()
        if not self._answers or now < self._next:
            return
        try:
            self._latest = torch.cuda.utilization(self.device) / 100
        except Exception:  # torch passes on errors of NVML's own classes, which only its library knows
            self._answers, self._latest = False, None
            self._samples.clear()
            return
        self._samples.append(self._latest)
        self._next = now + (time.perf_counter() - now) / COST_SHARE

    def busy(self) -> float | None:
        """Mean of the samples since the last call, 0..1; where none was due, the latest one. None without any."""
        found = sum(self._samples) / len(self._samples) if self._samples else self._latest
        self._samples.clear()
        return found

    def peak_gib(self) -> float | None:
        """The most memory that tensors took at a time since the last call; None on a CPU."""
        if not self.is_gpu:
            return None
        peak: int = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak / 2**30

    def wait(self) -> None:
        """Wait until the device has done all that was launched."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)
