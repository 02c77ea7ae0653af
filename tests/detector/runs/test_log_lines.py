"""What a training says of itself, for a person."""

from __future__ import annotations

import pytest

from detector.runs.log_lines import ap_by_iteration, evaluated_after, window_text
from detector.runs.timing import StepTiming

LOSSES = {"classification": 0.31234, "bbox_regression": 0.22, "loss": 0.53234}


def timing(seconds: float, **changes: float) -> StepTiming:
    return StepTiming(
        **{"iterations": 20, "seconds": 20 * seconds, "data_seconds": 0.2, "host_seconds": 1, "images_per_second": 16},
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("iteration", "timing", "end"),
    [
        (
            400,
            timing(0.0625, device_busy=0.94, peak_memory_gib=5.06),
            "0.062 s per iteration, data 16%, GPU 94%, 5.1 GiB, 1.6 h left",
        ),
        (89_000, timing(0.5), "0.500 s per iteration, data 2%, 8 min left"),
        (90_000, timing(0.5), "0.500 s per iteration, data 2%, 0 s left"),
    ],
)
def test_a_window_is_one_line_with_losses_rate_pace_memory_and_time_left(
    iteration: int, timing: StepTiming, end: str
) -> None:
    begin = f"iteration {iteration}/90000: loss 0.5323 (classification 0.3123, bbox_regression 0.22), lr 0.00125, "
    assert window_text(iteration, 90_000, LOSSES, rate=0.00125, timing=timing) == begin + end


def test_the_aps_on_the_way_are_read_back_the_last_of_each_iteration() -> None:
    told = [(1000, 7.25), (2000, 1e-05), (1000, 7.5), (3000, None)]
    log = "".join(f"2026-11-28 INFO detector.worker: {evaluated_after(iteration, ap)}\n" for iteration, ap in told)
    assert ap_by_iteration(log) == {1000: 7.5, 2000: 1e-05}
    assert ap_by_iteration("after iteration 4000: AP 9.1") == {}  # a line that is not whole yet
