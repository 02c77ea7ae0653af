"""``harness eval`` and ``harness detect``: using trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detector.errors import UsageError
from harness.options import AsJson, DataOption, ProfileOption, SetOption, TargetArgument, print_json, say

SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Which of the row's runs.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: a GPU if there is one.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("eval")(evaluate)
    app.command("score")(score)
    app.command("detect")(detect)


def evaluate(
    ref: TargetArgument,
    profile: ProfileOption = "paper",
    overrides: SetOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate a row's trained weights, also under other test settings: --set test.score_threshold=0.05.

    Nothing is trained. The record is kept beside the run's others; asked again, it is only read.
    """
    import torch

    from detector.finish import evaluate_and_record
    from detector.world import join_world
    from harness.prepare import assignments, prepare_data
    from harness.resolve import parse_overrides
    from harness.session import Session, find_run

    changed = parse_overrides(overrides or [])
    other = [path for path in changed if not path.startswith("test.")]
    if other:
        raise UsageError(f"eval changes test settings only, not {', '.join(other)}. To train with others: harness run.")
    session = Session(ref, profile, overrides or [], data)
    root = session.data_root()
    run, planned = find_run(session, seed, root)
    (cell,) = [cell for cell in planned.cells if cell.seed == seed]
    if not run.record(cell.job.id).exists():
        prepare_data(planned.data, root, say)
        (assignment,) = [
            item
            for item in assignments(planned, session.store, root=root, weights={}, notes=session.notes(planned))
            if item.train.id == cell.job.train.id
        ]
        torch.set_num_threads(session.profile.execution.threads)  # as the profile's own runs
        with join_world(_device(device)) as world:
            evaluate_and_record(assignment, cell.job, run, world=world, heartbeat=None)
    record = run.read_record(cell.job.id)
    assert record is not None
    if as_json:
        print_json(record)
    else:
        _print_metrics(record.metrics)
        say(f"record: {run.record(record.eval_id)}")


def score(
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS", help="COCO result list, .json or .json.gz.")],
    data: DataOption = None,
    split: Annotated[str, typer.Option(help="The split that the detections are of.")] = "val2017",
    as_json: AsJson = False,
) -> None:
    """Score a file of detections, of any detector, with COCO's metrics."""
    from detector.data.coco import load_index
    from detector.detections import coco_metrics, read_detections
    from harness.plan import named_root

    metrics = coco_metrics(load_index(named_root(data), split), read_detections(detections))
    if as_json:
        print_json(metrics)
    else:
        _print_metrics(metrics)


def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the drawn images and detections.json.")],
    ref: Annotated[
        str, typer.Option("--run", metavar="ROW|FOLDER", help="A trained row, or a run's folder.")
    ] = "table2/L6",
    profile: ProfileOption = "paper",
    data: DataOption = None,
    seed: SeedOption = 0,
    min_score: Annotated[
        float,
        typer.Option(
            "--min-score",
            min=0,
            max=1,
            help="Draw boxes from this score on; with focal loss scores are lower, try 0.3.",
        ),
    ] = 0.6,
    device: DeviceOption = "auto",
) -> None:
    """Draw a trained detector's boxes on images, with names and scores, and write them as detections.json."""
    from detector.detect import detect_files
    from detector.rundir import RunDir
    from harness.session import Session, find_trained

    if Path(ref).is_dir():
        run, test = RunDir(Path(ref)), None
    else:
        run, test = find_trained(Session(ref, profile, [], data), seed)
    drawn = detect_files(run, images, out, test=test, min_score=min_score, device=_device(device))
    for path, count in drawn:
        typer.echo(f"{path}  {count} objects")


def _device(name: str) -> str:
    if name not in ("cpu", "cuda", "auto"):
        raise UsageError(f"Unknown device {name!r}. Known: cpu, cuda, auto.")
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU here. Run 'harness doctor', or give --device cpu.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _print_metrics(metrics: dict[str, float | None]) -> None:
    for name, value in metrics.items():
        typer.echo(f"{name:15} {'none of that size' if value is None else f'{value:.3f}'}")
