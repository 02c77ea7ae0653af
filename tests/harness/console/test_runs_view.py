"""The bars of several runs on terminals of two widths, and what is said of a run that waits."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from detector.runs.status import Status
from harness.console.runs_view import RunsView

NAMES = {"a": "table2/L6, seed 0", "b": "table1/hp-5.5_hn-3.5 = table2/L6 = table3/dr, seed 2"}
TEXT = "iteration 13600/90000, loss 1.234, 0.061 s per iteration, data 31%, GPU 94%"


def status(**changes: object) -> Status:
    values = {
        **{"phase": "training", "time": 0.0, "pid": 1, "iteration": 13_600, "iterations": 90_000, "loss": 1.234},
        **{"seconds_per_iteration": 0.061, "data_share": 0.31, "device_busy": 0.94},
        **changes,
    }
    return Status(**values)  # type: ignore[arg-type]


def drawn(width: int) -> list[str]:
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    view = RunsView(NAMES, console)
    for train_id in NAMES:
        view.update(train_id, status())
    with console.capture() as capture:
        console.print(view.progress.get_renderable())
    return capture.get().splitlines()


def test_on_80_columns_bars_and_texts_have_lines_of_their_own() -> None:
    lines = drawn(80)
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if line.startswith("  iteration")] == [TEXT, TEXT]
    assert all(any(name in line and "14%" in line for line in lines) for name in NAMES.values())


@pytest.mark.parametrize("width", [170, 250])
def test_where_there_is_room_a_run_is_one_line(width: int) -> None:
    lines = drawn(width)
    assert len(lines) == 1 + len(NAMES)
    assert all(any(name in line and TEXT in line for line in lines) for name in NAMES.values())


def test_why_a_run_waits_is_said_once() -> None:
    file = io.StringIO()
    view = RunsView(NAMES, Console(width=200, file=file))
    for _ in range(3):
        view.update("a", status(note="the training waits for data"))
    assert file.getvalue() == "table2/L6, seed 0: the training waits for data\n"
