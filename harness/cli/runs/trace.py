"""``harness trace``: which kernels the steps of a training spend their time in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import completion
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    DeviceOption,
    ForceOption,
    ProfileOption,
    SetOption,
    WeightsOption,
    pick_device,
    print_json,
    put,
    say,
)

if TYPE_CHECKING:
    from harness.launch.trace import Traced

SHOWN = 20  # kernels
WIDTH = 80


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Trace some steps of a training: the kernels that take longest.")(trace)


def trace(
    ref: Annotated[
        str, typer.Argument(metavar="TABLE/ROW", help="A row, such as table2/L6.", autocompletion=completion.rows)
    ],
    profile: ProfileOption = "paper",
    steps: Annotated[int, typer.Option("--steps", min=1, max=10_000, help="How many to trace.")] = 3,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup", min=2, max=100_000, help="How many to train before. Default: 2 on a CPU, 30 on a GPU."
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Chrome's trace. Default: trace-TABLE-ROW-PROFILE.json.gz, here."
        ),
    ] = None,
    force: ForceOption = False,
    as_json: AsJson = False,
) -> None:
    """Train some steps of a row's first run under torch's profiler; no run is begun or changed.

    Prints the time of a step, then the kernels that take the most of the GPU's time; on a CPU, the operators. One
    process trains the whole batch, as on one GPU. The trace itself is for https://ui.perfetto.dev or chrome://tracing.
    """
    from harness.launch.trace import trace_row
    from harness.planning.selection import Selection

    selection = Selection(ref, profile, overrides or [], data, batch_size)
    traced = trace_row(
        selection,
        say,
        device=pick_device(device),
        steps=steps,
        warmup=warmup,
        weights=weights,
        output=output,
        force=force,
    )
    if as_json:
        print_json(_as_data(traced))
    else:
        put(_as_text(traced))


def _as_data(traced: Traced) -> dict[str, Any]:
    return {**asdict(traced), "path": str(traced.path)}


def _as_text(traced: Traced) -> str:
    """The time of a step, the kernels as a table of 80 columns, and where the trace is."""
    trace = traced.trace
    on_gpu = trace.device == "cuda"
    count = f"{trace.steps} step{'' if trace.steps == 1 else 's'} of {traced.images} images"
    shown, rest = trace.kernels[:SHOWN], trace.kernels[SHOWN:]
    what = "kernel" if on_gpu else "operator (without those it calls)"
    lines = [
        f"{traced.row}, profile {traced.profile}: {count} on the {'GPU' if on_gpu else 'CPU'}, "
        f"after {trace.warmup} others",
        f"Without the profiler: {trace.timing.text()}, {trace.timing.images_per_second:.1f} images per second",
        "",
        f"{'share':>6}  {'ms/step':>9}  {'calls/step':>10}  {what}",
    ]
    if not trace.kernels:
        what = "the driver may let only administrators profile (NVreg_RestrictProfilingToAdminUsers)"
        return "\n".join([*lines[:2], "", f"The profiler saw no kernel: {what}.", f"Trace: {traced.path}"])
    for kernel in shown:
        head = f"{kernel.share:>6.1%}  {kernel.milliseconds:>9.2f}  {kernel.calls:>10.0f}  "
        lines.append(head + _cut(kernel.name, WIDTH - len(head)))
    if rest:
        milliseconds = sum(kernel.milliseconds for kernel in rest)
        calls = sum(kernel.calls for kernel in rest)
        share = milliseconds / trace.milliseconds
        lines.append(f"{share:>6.1%}  {milliseconds:>9.2f}  {calls:>10.0f}  {len(rest)} others")
    calls = sum(kernel.calls for kernel in trace.kernels)
    lines += [f"{1:>6.0%}  {trace.milliseconds:>9.2f}  {calls:>10.0f}  all", "", f"Trace: {traced.path}"]
    return "\n".join(lines)


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."
