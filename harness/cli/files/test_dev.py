"""``harness export`` and ``record``: detections for COCO's evaluation server, which alone has test-dev's labels."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from detector.errors import RecordError, UsageError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.record import Record, content_hash
from detector.storage.files import write_atomic, write_json
from detector.storage.outputs import claim_file
from harness.cli import completion
from harness.cli.options import (
    AsJson,
    DataOption,
    DeviceOption,
    ForceOption,
    ProfileOption,
    SeedOption,
    SetOption,
    pick_device,
    print_json,
    print_metrics,
    put,
    refuse,
    say,
)

if TYPE_CHECKING:
    from detector.data.coco.index import CocoIndex
    from detector.evaluation.test_dev.package import Export
    from harness.planning.plan import Plan
    from harness.planning.selection import Selection
    from harness.store.records import Store

SplitOption = Annotated[
    str,
    typer.Option("--split", help="The split that the server evaluates.", autocompletion=completion.splits),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("export", short_help="Write the zip that COCO's evaluation server takes.")(export)
    app.command("record", short_help="Record what the evaluation server answered.")(record)


def export(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="TABLE/ROW", help="A trained row, such as table4/dr-r101.", autocompletion=completion.rows
        ),
    ],
    split: SplitOption = "test-dev2017",
    name: Annotated[
        str | None, typer.Option("--name", help="Part of the file's name. Default: the row and the evaluation's id.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the zip. Default: in the run's folder.")
    ] = None,
    profile: ProfileOption = "paper",
    overrides: SetOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    as_json: AsJson = False,
) -> None:
    """Detect on a split without public labels, and write the zip that COCO's evaluation server takes.

    The detections are kept in the run's folder, so that the next export only writes the zip.
    """
    from detector.evaluation.detections import read_detections
    from detector.evaluation.test_dev.detect import open_export_split, stored_export
    from detector.evaluation.test_dev.package import MAX_DETECTIONS, check_name, file_stem, pack, write_export
    from harness.planning.selection import Selection
    from harness.registry.resolve import require_test_settings
    from harness.status.find import find_run

    require_test_settings("export", overrides)
    if name is not None:
        check_name(name)
    device = pick_device(device)
    selection = Selection(ref, profile, overrides or [], data)
    root = selection.data_root()
    run, planned = find_run(selection, seed, root)
    (cell,) = [cell for cell in planned.cells if cell.seed == seed]
    job = replace(cell.job, split=split)
    index = open_export_split(job, root)
    stem = file_stem(split, name or _default_name(ref, job))
    path = (out or run.evaluation(job.id)) / f"{stem}.zip"
    if out is not None:  # in the run's folder, the zip of the same detections and name is replaced
        claim_file(path, force=force)
    found = stored_export(run, job, index)
    if found is None:
        found = _detect(selection, planned, job, run, index, device)
    else:
        say(f"The detections were made at {found.finished}; only the zip is written.")
    if job.test.detections_per_image > MAX_DETECTIONS:
        say(f"The best {MAX_DETECTIONS} detections per image are written, not {job.test.detections_per_image}.")
    content, sent = pack(read_detections(run.detections(job.id)), split, name or _default_name(ref, job))
    write_atomic(path, content)
    found = replace(found, sent=sent)
    write_export(run, found)
    if as_json:
        print_json({"zip": str(path), "export": found})
    else:
        put(path)
    say(
        f"{sent.detections:,} detections on {found.test_split.images:,} images, {len(content) / 1e6:.2f} MB. Next: "
        f"give it to the evaluation server, then: {_command('record', selection, split, seed)} --from-server FILE"
    )


def record(
    *,
    context: typer.Context,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="TABLE/ROW",
            help="The exported row. Default: the one without an answer yet.",
            autocompletion=completion.rows,
        ),
    ] = None,
    answer: Annotated[
        Path,
        typer.Option(
            "--from-server",
            metavar="FILE",
            help="What the server printed: COCO's twelve summary lines, scores.txt, or JSON.",
        ),
    ],
    split: SplitOption = "test-dev2017",
    profile: ProfileOption = "paper",
    overrides: SetOption = None,
    data: DataOption = None,
    seed: SeedOption = 0,
    as_json: AsJson = False,
) -> None:
    """Record what the evaluation server answered to an export: it fills the row's cells of a test-dev table.

    A record with other numbers is never overwritten.
    """
    from detector.evaluation.test_dev.answer import read_answer
    from harness.folders import results_folder, runs_folder
    from harness.planning.selection import TEST_DEV, Selection
    from harness.registry.resolve import require_test_settings
    from harness.store.records import Store

    require_test_settings("record", overrides)
    store = Store(runs_folder(), results_folder())
    if ref is None:
        refuse(context, ("overrides", "data", "seed"), "goes with a row, such as table4/dr-r101.")
        run, found = _awaited(store, split)
        if profile != found.profile:
            refuse(context, ["profile"], f"{profile}: the one export that awaits an answer is of {found.profile}.")
        say(f"The answer to {found.sent.name if found.sent else ''}, profile {found.profile}.")
    else:
        run, found = _find_export(Selection(ref, profile, overrides or [], data), split, seed)
    answered = _record_of(found, read_answer(answer, split))
    existing = _existing(store, run, answered)
    if existing is None:
        write_json(run.record(found.eval_id), answered)
    if as_json:
        print_json(answered if existing is None else existing)
    else:
        print_metrics(answered.metrics)
    say(f"record: {run.record(found.eval_id)}" if existing is None else "These numbers are recorded already.")
    if split == TEST_DEV and not overrides:  # no other fills a cell
        say(f"Next: harness table {ref.split('/')[0] if ref else 'table4'} --profile {found.profile}")


def _detect(selection: Selection, planned: Plan, job: EvalJob, run: RunDir, index: CocoIndex, device: str) -> Export:
    """Detect on the split, with a bar at a terminal."""
    import torch

    from detector.device.world import join_world
    from detector.evaluation.test_dev.detect import Origin, detect_and_store
    from harness.code.version import current_code
    from harness.console.bars import share_bar

    torch.set_num_threads(selection.profile.execution.threads)  # as the profile's own runs
    origin = Origin(selection.profile.name, current_code(), selection.notes(planned))
    with join_world(device) as world, share_bar("detecting") as report:
        return detect_and_store(origin, job, run, index, world=world, report=report)


def _default_name(ref: str, job: EvalJob) -> str:
    """The row, with hyphens, and the first digits of the evaluation's id, which depends on every setting."""
    return f"{re.sub(r'[^a-z0-9.]+', '-', ref.lower())}-{job.id[:8]}"


def _find_export(selection: Selection, split: str, seed: int) -> tuple[RunDir, Export]:
    """The export of one row and seed. It needs no data, unless the row was exported over several data sets.

    Raises UsageError where there is no export, or several that the options do not tell apart.
    """
    from detector.evaluation.test_dev.package import find_exports
    from harness.store.records import without_data

    if len(selection.refs) != 1:
        raise UsageError(f"One row is needed, such as table4/dr-r101; {selection.target} has {len(selection.refs)}.")
    every = [(run, found) for run, found in find_exports(selection.store.runs) if found.sent is not None]
    for from_scratch in (False, True) if selection.profile.without_weights == "from_scratch" else (False,):
        planned = selection.plan(seed + 1, from_scratch=from_scratch)
        (wanted,) = [replace(cell.job, split=split) for cell in planned.cells if cell.seed == seed]
        if selection.identity_is_open:
            matching = [(run, found) for run, found in every if without_data(found.job) == without_data(wanted)]
        else:
            matching = [(run, found) for run, found in every if found.job == wanted]
        if len(matching) > 1:
            raise UsageError(
                f"{selection.target} was exported over {len(matching)} data sets. "
                "Say which with --data DIR (the folder)."
            )
        if matching:
            return matching[0]
    raise UsageError(
        f"{selection.target}, seed {seed}, was not exported for {split} in {selection.store.runs}. "
        f"Export it: {_command('export', selection, split, seed)}"
    )


def _awaited(store: Store, split: str) -> tuple[RunDir, Export]:
    """The one export of the split without a record yet. Raises UsageError where there is none, or several."""
    from detector.evaluation.test_dev.package import find_exports

    sent = [(run, found) for run, found in find_exports(store.runs) if found.sent and found.job.split == split]
    open_ones = [(run, found) for run, found in sent if not run.record(found.eval_id).exists()]
    if len(open_ones) == 1:
        return open_ones[0]
    names = ", ".join(found.sent.name for _, found in open_ones if found.sent) or "none"
    raise UsageError(
        f"{len(open_ones)} exports to {split} in {store.runs} await an answer ({names}): name the row, such as "
        "table4/dr-r101."
    )


def _command(verb: str, selection: Selection, split: str, seed: int) -> str:
    """The command ``verb`` for the same row, seed and split."""
    options = [f"--profile {selection.profile.name}", f"--split {split}"]
    options += [f"--seed {seed}"] if seed else []
    options += [f"--set {path}={value}" for path, value in selection.overrides.items()]
    options += [f"--data {selection.given_data}"] if selection.given_data else []
    return " ".join([f"harness {verb} {selection.target}", *options])


def _record_of(found: Export, metrics: dict[str, float | None]) -> Record:
    from detector.evaluation.test_dev.answer import note

    record = Record(
        format=found.format,
        eval_id=found.eval_id,
        train_id=found.job.train.id,
        profile=found.profile,
        job=found.job,
        metrics=metrics,
        train_split=found.train_split,
        test_split=found.test_split,
        environment=found.environment,
        code=found.code,
        train_seconds=found.train_seconds,
        eval_seconds=found.seconds,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=(*found.notes, note(metrics)),
        timing=found.timing,
        starts=found.starts,
        evaluation=found.evaluation,
        inputs=found.inputs,
        health=found.health,
    )
    return replace(record, sha256=content_hash(record)) if record.format > 1 else record


def _existing(store: Store, run: RunDir, answered: Record) -> Record | None:
    """The record that is there already, among the runs or the results.

    Raises RecordError where it has other numbers.
    """
    from detector.runs.folder import read_own_record

    for path in (run.record(answered.eval_id), store.committed(answered)):
        if not path.exists():
            continue
        existing = read_own_record(path)
        shared = [name for name in answered.metrics if name in existing.metrics]
        other = [name for name in shared if existing.metrics[name] != answered.metrics[name]]
        if other:
            numbers = ", ".join(f"{name} {existing.metrics[name]}, not {answered.metrics[name]}" for name in other)
            raise RecordError(
                f"{path} has other numbers than the server's file ({numbers}); nothing was overwritten. Is the file "
                "of this row and seed? If so, move the record away."
            )
        return existing
    return None
