"""Where the time of training steps went: of one window of the log, or of a whole training. Free of torch."""

from __future__ import annotations

from msgspec import Struct, convert


class StepTiming(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The time of some iterations, over all processes of the training.

    iterations: how many. seconds: of wall time, with checkpoints, without evaluations. data_seconds: in which the loop
    waited for the next batch. host_seconds: in which the loop itself was at work: all but waiting for data, and for
    the device to catch up. On a GPU that is launching, and writing checkpoints; on a CPU, the computation. Of several
    processes the longest counts, for each of the two, because the others wait for it. device_busy: share of the time
    (0..1) in which a GPU ran kernels, as NVML samples it, mean of all GPUs; None on a CPU and where NVML does not tell.
    images_per_second: of all processes together. peak_memory_gib: the most that tensors took on any of the GPUs at a
    time; None on a CPU.
    """

    iterations: int
    seconds: float
    data_seconds: float
    host_seconds: float
    images_per_second: float
    device_busy: float | None = None
    peak_memory_gib: float | None = None

    @property
    def seconds_per_iteration(self) -> float:
        """Of wall time."""
        return self.seconds / self.iterations

    @property
    def data_share(self) -> float:
        """Share of the time (0..1) in which the loop waited for data."""
        return min(1.0, self.data_seconds / self.seconds) if self.seconds > 0 else 0.0

    def per_iteration(self) -> dict[str, float]:
        """The values of a line of ``metrics.jsonl``; without those that are None."""
        values = {
            "seconds_per_iteration": self.seconds_per_iteration,
            "data_seconds_per_iteration": self.data_seconds / self.iterations,
            "host_seconds_per_iteration": self.host_seconds / self.iterations,
            "device_busy": self.device_busy,
            "images_per_second": self.images_per_second,
            "peak_memory_gib": self.peak_memory_gib,
        }
        return {name: value for name, value in values.items() if value is not None}

    def text(self) -> str:
        """For a person: ``0.061 s per iteration, data 1%, GPU 94%``."""
        return timing_text(self.seconds_per_iteration, self.data_share, self.device_busy)


def joined(earlier: StepTiming | None, later: StepTiming) -> StepTiming:
    """Both together: sums, means over their time, and the higher peak."""
    if earlier is None:
        return later
    seconds = earlier.seconds + later.seconds
    images = sum(part.images_per_second * part.seconds for part in (earlier, later))
    busy = [(part.device_busy, part.seconds) for part in (earlier, later) if part.device_busy is not None]
    busy_seconds = sum(length for _, length in busy)
    return StepTiming(
        iterations=earlier.iterations + later.iterations,
        seconds=seconds,
        data_seconds=earlier.data_seconds + later.data_seconds,
        host_seconds=earlier.host_seconds + later.host_seconds,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        device_busy=sum(share * length for share, length in busy) / busy_seconds if busy_seconds > 0 else None,
        peak_memory_gib=max(
            (part.peak_memory_gib for part in (earlier, later) if part.peak_memory_gib is not None), default=None
        ),
    )


def recorded(saved: object) -> StepTiming | None:
    """What a record keeps of the timing that final weights hold: to the millisecond, and four digits.

    saved: as plain data; None where the weights were trained before it was noted.
    """
    timing = convert(saved, StepTiming | None)
    if timing is None:
        return None
    return StepTiming(
        iterations=timing.iterations,
        seconds=round(timing.seconds, 3),
        data_seconds=round(timing.data_seconds, 3),
        host_seconds=round(timing.host_seconds, 3),
        images_per_second=float(f"{timing.images_per_second:.4g}"),
        device_busy=None if timing.device_busy is None else round(timing.device_busy, 4),
        peak_memory_gib=None if timing.peak_memory_gib is None else round(timing.peak_memory_gib, 3),
    )


def timing_text(seconds_per_iteration: float, data_share: float | None, device_busy: float | None) -> str:
    """``0.061 s per iteration, data 1%, GPU 94%``, without what is None."""
    digits = 3 if seconds_per_iteration < 1 else 2 if seconds_per_iteration < 10 else 1
    data = "" if data_share is None else f", data {data_share:.0%}"
    device = "" if device_busy is None else f", GPU {device_busy:.0%}"
    return f"{seconds_per_iteration:.{digits}f} s per iteration{data}{device}"
