"""What ``harness trace`` does: the job of one row, a few of its steps on this machine, and no run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from detector.errors import UsageError
from detector.storage.outputs import claim_file
from harness.launch.assignments import assignments
from harness.launch.prepare import plan_with_weights, prepare_data
from harness.planning.selection import Selection

if TYPE_CHECKING:
    from detector.worker.trace import Trace

SUFFIXES = (".json", ".json.gz")
WARMUP = {"cpu": 2, "cuda": 30}  # on a GPU, the first batch of each padded shape takes longer


@dataclass(frozen=True)
class Traced:
    """A trace, and what it is of. images: per step. path: Chrome's trace."""

    row: str
    profile: str
    train_id: str
    images: int
    path: Path
    trace: Trace


def trace_row(
    selection: Selection,
    say: Callable[[str], None],
    *,
    device: Literal["cpu", "cuda"],
    steps: int,
    warmup: int | None = None,
    weights: Path | None = None,
    output: Path | None = None,
    force: bool = False,
) -> Traced:
    """Trace ``steps`` steps of the selection's one training, after ``warmup`` others. Makes no run and no record.

    weights: the file to start from. output: of Chrome's trace; None: in this folder, named after row and profile.
    force: replace one that is there.

    Raises:
        UsageError: not one row that is trained, or an output that cannot be written.
        DataError, WeightsError: what the training needs is not there or does not fit.
    """
    refs = selection.refs
    if len(refs) != 1:
        raise UsageError(
            f"{selection.target} is {len(refs)} rows that are trained; a trace is of one, such as table2/L6."
        )
    path = output or Path(f"trace-{refs[0].replace('/', '-')}-{selection.profile.name}.json.gz")
    if not path.name.endswith(SUFFIXES):
        raise UsageError(f"--output {path}: a trace is written as {' or '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}.")
    claim_file(path, force=force)
    root = selection.data_root()
    planned, found = plan_with_weights(selection, selection.plan(1, root=root), 1, root, weights, say)
    prepare_data(planned.data, root, say)
    (assignment,) = assignments(planned, selection.store, root=root, weights=found, notes=())
    warmup = WARMUP[device] if warmup is None else warmup
    say(f"Training {warmup} steps of {refs[0]}, then tracing {steps}.")

    from detector.worker.trace import trace_training

    trace = trace_training(replace(assignment, device=device), path, steps=steps, warmup=warmup)
    return Traced(refs[0], selection.profile.name, assignment.train.id, assignment.train.batch.images, path, trace)
