"""``harness eval``, ``score`` and ``detect``: trained weights and detections in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detector.errors import UsageError
from harness.cli import completion
from harness.cli.options import (
    AsJson,
    DataOption,
    DeviceOption,
    ForceOption,
    ProfileOption,
    SeedOption,
    SetOption,
    finite,
    pick_device,
    print_json,
    print_metrics,
    put,
    refuse,
    say,
)

BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="Scores with pycocotools or, to the same bits, ultrafast or hotcoco; fast: whichever is installed.",
        autocompletion=completion.choices(("pycocotools", "ultrafast", "hotcoco", "fast")),
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("eval", short_help="Evaluate a row's weights, or any weights file.")(evaluate)
    app.command("score", short_help="Score any detector's result file with COCO's metrics.")(score)
    app.command("detect", short_help="Draw a trained detector's boxes on images.")(detect)


def evaluate(
    context: typer.Context,
    ref: Annotated[
        str | None,
        typer.Argument(metavar="TABLE/ROW", help="A trained row, such as table2/L6.", autocompletion=completion.rows),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="With --weights: the model and test of this recipe.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="A detector's weights, of any known format.")
    ] = None,
    profile: ProfileOption = "paper",
    overrides: SetOption = None,
    data: DataOption = None,
    split: Annotated[
        str,
        typer.Option("--split", help="With --weights: the split to evaluate on.", autocompletion=completion.splits),
    ] = "val2017",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="With --weights: keep detections and metrics here.")
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    backend: BackendOption = "pycocotools",
    force: ForceOption = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a row's trained weights, or any weights file: harness eval --recipe dr-r50-1x --weights FILE.

    Nothing is trained. For other test settings: --set test.score_threshold=0.05. A row's record is kept in its run's
    folder, and only read the next time. Evaluating a file makes no record and fills no table's cell.
    """
    if (ref is None) == (name is None) or (name is None) != (weights is None):
        raise UsageError("Give a row, such as table2/L6, or both --recipe NAME and --weights FILE.")
    if ref is not None:
        refuse(context, ["force"], "goes with --out and --weights; the record of a row is never replaced.")
        refuse(context, ("out", "split"), "goes with --weights; a row's evaluation has a split and a place already.")
        refuse(context, ["backend"], "goes with --weights; a record has the numbers of pycocotools.")
        _evaluate_row(ref, profile, overrides or [], data, seed, device, as_json)
    else:
        assert name is not None
        assert weights is not None
        refuse(context, ["seed"], "chooses among the runs of a row; a weights file has none.")
        _evaluate_file(name, weights, profile, overrides or [], data, split, out, force, device, backend, as_json)


def _evaluate_row(
    ref: str, profile: str, overrides: list[str], data: Path | None, seed: int, device: str, as_json: bool
) -> None:
    import torch

    from detector.device.world import join_world
    from detector.worker.run import evaluate_and_record
    from harness.launch.assignments import assignments
    from harness.launch.prepare import prepare_data
    from harness.planning.selection import Selection
    from harness.registry.resolve import require_test_settings
    from harness.status.find import find_run

    require_test_settings("eval", overrides)
    selection = Selection(ref, profile, overrides, data)
    root = selection.data_root()
    run, planned = find_run(selection, seed, root)
    (cell,) = [cell for cell in planned.cells if cell.seed == seed]
    if not run.record(cell.job.id).exists():
        prepare_data(planned.data, root, say)
        (assignment,) = [
            item
            for item in assignments(planned, selection.store, root=root, weights={}, notes=selection.notes(planned))
            if item.train.id == cell.job.train.id
        ]
        torch.set_num_threads(selection.profile.execution.threads)  # as the profile's own runs
        with join_world(pick_device(device)) as world:
            evaluate_and_record(assignment, cell.job, run, world=world, heartbeat=None)
    record = run.read_record(cell.job.id)
    assert record is not None
    if as_json:
        print_json(record)
    else:
        print_metrics(record.metrics)
        say(f"record: {run.record(record.eval_id)}")


def _evaluate_file(
    name: str,
    weights: Path,
    profile: str,
    overrides: list[str],
    data: Path | None,
    split: str,
    out: Path | None,
    force: bool,
    device: str,
    backend: str,
    as_json: bool,
) -> None:
    from detector.evaluation.scoring import named_backend
    from harness.console.bars import share_bar
    from harness.planning.data import named_root
    from harness.registry.load import Registry
    from harness.registry.resolve import parse_overrides
    from harness.weights.evaluate import evaluate_file

    changed = parse_overrides(overrides)
    scorer = named_backend(backend)
    root = named_root(data)
    with share_bar(f"detecting on {split}") as report:
        found = evaluate_file(
            Registry(),
            name,
            weights,
            profile=profile,
            overrides=changed,
            root=root,
            split=split,
            device=pick_device(device),
            backend=scorer,
            out=out,
            force=force,
            report=report,
        )
    if as_json:
        print_json({"recipe": name, "weights": str(weights), **vars(found), "written": [str(p) for p in found.written]})
    else:
        print_metrics(found.metrics)
    for note in found.notes:
        say(note)
    for path in found.written:
        say(f"written: {path}")
    say("This is no record and fills no table's cell.")


def score(
    detections: Annotated[Path, typer.Argument(metavar="DETECTIONS", help="COCO result list, .json or .json.gz.")],
    data: DataOption = None,
    split: Annotated[
        str, typer.Option(help="The split that the detections are of.", autocompletion=completion.splits)
    ] = "val2017",
    backend: BackendOption = "pycocotools",
    verify: Annotated[
        bool, typer.Option("--verify", help="Score with pycocotools and a fast library; exit with 1 if a bit differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a file of detections, of any detector, with COCO's metrics."""
    from detector.data.coco.index import load_index
    from detector.evaluation.detections import detection_notes, read_detections
    from detector.evaluation.scoring import coco_stats, differences, in_percent, named_backend
    from harness.planning.data import named_root

    scorer = named_backend(backend)
    second = named_backend("fast" if scorer == "pycocotools" else "pycocotools") if verify else None
    index, found = load_index(named_root(data), split), read_detections(detections)
    stats = coco_stats(index, found, scorer)
    for note in detection_notes(index, found):
        say(f"note: {note}")
    if as_json:
        print_json(in_percent(stats))
    else:
        print_metrics(in_percent(stats))
    if second is None:
        return
    different = differences(stats, coco_stats(index, found, second))
    if different:
        say(f"{scorer} and {second} differ (fractions): {'; '.join(different)}.")
        raise typer.Exit(1)
    say(f"{scorer} and {second} agree on all {len(stats)} numbers to the last bit.")


def detect(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the drawn images and detections.json.")],
    ref: Annotated[
        str,
        typer.Option(
            "--run", metavar="ROW|FOLDER", help="A trained row, or a run's folder.", autocompletion=completion.rows
        ),
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
            callback=finite,
            help="Draw boxes with at least this score. Focal loss gives lower scores: try 0.3.",
        ),
    ] = 0.6,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Draw a trained detector's boxes on images, with names and scores, and list them in detections.json.

    Small images are drawn enlarged, and labels stand beside the objects. The list has pixels of the image itself.
    """
    from detector.evaluation.detect import detect_files
    from detector.runs.folder import RunDir
    from harness.planning.selection import Selection
    from harness.status.find import find_trained

    if ref.strip() and Path(ref).is_dir():
        refuse(context, ("profile", "data", "seed"), f"chooses among the runs of a row; {ref} is one run's folder.")
        run, test = RunDir(Path(ref)), None
    else:
        run, test = find_trained(Selection(ref, profile, [], data), seed)
    drawn = detect_files(run, images, out, test=test, min_score=min_score, device=pick_device(device), force=force)
    for one in drawn:
        enlarged = f"  enlarged {one.factor:g} times" if one.factor != 1 else ""
        left_out = f"  {one.unlabelled} without a label, for lack of room" if one.unlabelled else ""
        put(f"{one.path}  {one.objects} objects{enlarged}{left_out}")
