"""``harness dump``: a target's records, curves, verdicts or trainings as one file, or as TensorBoard's folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

from detector.errors import UsageError
from detector.runs.record import COCO_METRICS, SCORE_METRICS
from detector.storage.files import write_atomic
from detector.storage.outputs import claim_file, claim_folder
from harness.planning.selection import Selection, Targets
from harness.registry.load import Registry
from harness.report.export.board import board_files, board_runs, check_tensorboard
from harness.report.export.curves import curves_of
from harness.report.export.jobs import job_lines
from harness.report.export.records import ChosenRecords, choose_records
from harness.report.export.sheets import Sheet, check_parquet, csv_bytes, write_parquet
from harness.report.export.verdicts import cell_lines, claim_lines
from harness.report.views import judge, table_views
from harness.store.records import Source, Store

To = Literal["csv", "parquet", "tensorboard"]
What = Literal["records", "curves", "claims", "cells", "jobs"]
# Columns of numbers, some of which no line may have: of objects of a size that the test set has none of, of rows
# without a run, of one seed.
_NUMBERS: Final = frozenset(
    [
        *(
            f"{before}{name}{after}"
            for name in COCO_METRICS
            for before, after in (("", ""), ("", "_sd"), ("paper_", ""))
        ),
        *(f"{name}{after}" for name in COCO_METRICS for after in ("_difference", "_half_width")),
        *(*SCORE_METRICS, "mean_a", "mean_b", "difference", "low", "high", "p", "published", "seeds_needed"),
    ]
)


def dump(
    targets: Targets | None,
    profile: str,
    *,
    to: To,
    what: What,
    out: Path,
    seeds: int = 1,
    source: Source | None = None,
    force: bool = False,
) -> str:
    """Write the file or folder. Returns in words what is in it.

    targets: None for every record of the profile, and for all rows of anything else. seeds: of the jobs only.
    Raises UsageError where something is there that is not to be replaced, where a library is missing, and where there
    is nothing to write.
    """
    if to == "tensorboard":
        check_tensorboard()
        claim_folder(out)
        return _write_board(_records(targets, profile, source), out)
    if to == "parquet":
        check_parquet()
    claim_file(out, force=force)
    lines = _lines(targets, profile, what, seeds, source)
    sheet = Sheet.of(lines, numbers=_NUMBERS)
    if to == "csv":
        write_atomic(out, csv_bytes(sheet))
    else:
        write_atomic(out, lambda file: write_parquet(sheet, file))
    return f"{out}: {len(lines):,} lines ({what}), {len(sheet.kinds):,} columns"


def _lines(
    targets: Targets | None, profile: str, what: What, seeds: int, source: Source | None
) -> list[dict[str, Any]]:
    if what == "records":
        return _records(targets, profile, source).lines()
    selection = Selection(targets or "all", profile, [], None, source=source)
    if what == "curves":
        return [line for curve in curves_of(selection) for line in curve.lines()]
    if what == "claims":
        return claim_lines(judge(selection))
    if what == "cells":
        return cell_lines(table_views(selection))
    return job_lines(selection, seeds)


def _records(targets: Targets | None, profile: str, source: Source | None) -> ChosenRecords:
    """Raises UsageError where there is no record."""
    chosen = choose_records(targets, profile, source)
    if not chosen.records:
        name = "any row" if targets is None else targets if isinstance(targets, str) else " ".join(targets)
        raise UsageError(f"No finished record of {name} at profile {profile}. {_others(chosen.store, name, profile)}")
    return chosen


def _others(store: Store, name: str, profile: str) -> str:
    """Which profiles have records, with the option that names them."""
    counts = Counter(record.profile for record in store.records if record.profile != profile)
    if not counts:
        target = "table2" if name == "any row" else name
        return f"Make one: harness run {target} --profile {profile}"
    known = [other for other in Registry().profiles if other in counts] or sorted(counts)
    listed = ", ".join(f"{other} ({counts[other]:,})" for other in known)
    return f"There are records at: {listed}. Add --profile {known[0]}."


def _write_board(chosen: ChosenRecords, out: Path) -> str:
    runs = board_runs(chosen)
    for path, content in board_files(runs):
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, content)
    bare = sum(not run.points for run in runs)
    note = f" {bare} of them without curves: their records are of format 1, and their folders are not here."
    return f"{out}: {len(runs):,} trainings.{note if bare else ''} See them: tensorboard --logdir {out}"
