"""``harness.records``: every finished evaluation with its job, as a frame."""

from __future__ import annotations

import pandas as pd

from harness.planning.selection import Targets
from harness.registry.declarations import METRICS
from harness.report.export.records import choose_records
from harness.store.records import Source


def records(target: Targets | None = None, profile: str | None = None, *, source: Source | None = None) -> pd.DataFrame:
    """The finished records of the results folder and of the runs on this machine: one line per record.

    Columns: ``eval_id``, ``train_id``, ``profile``, ``rows`` (those that it fills; none after ``--set``), ``seed``, the
    metrics (AP .., AR .. in percent, unrounded; positive_score and negative_score in 0..1), ``train_seconds``,
    ``eval_seconds``, ``finished`` (UTC), ``commit`` (of the code that ran), ``notes``. Then every field of the record
    under its path: job.train.optimizer.lr, job.test.nms_iou, environment.torch, test_split.images, code.modified, ...
    NaN where a record has no such field: timing.data_seconds, timing.device_busy, ... of trainings before these were
    noted. What errors cost at IoU 0.5 is in lost_ap.missed, ..., lost_parts.sizes.small.AP50,
    lost_parts.objects.2-4.lost.missed, ...; of classes as tuples in the order of lost_parts.classes.names.

    target: "all" (the four tables), a table, a row, or several; None for every record, also of no row. profile: the
    scale; None for all. source: "local" for the records of the runs folder only, "committed" for those of the results
    folder. ``attrs["set_aside"]``: files that are no usable records, and why. Raises UsageError for an unknown name.

    >>> import harness
    >>> frame = harness.records("table2/L6", profile="tiny")
    >>> frame[["seed", "AP", "job.train.optimizer.lr", "train_seconds"]].round(1)
       seed    AP  job.train.optimizer.lr  train_seconds
    0     0  23.0                     0.1           29.6
    1     1  24.8                     0.1           26.1
    2     2  24.2                     0.1           25.2
    """
    chosen = choose_records(target, profile, source)
    if not chosen.records:
        return pd.DataFrame(columns=["eval_id", "train_id", "profile", "rows", "seed", *METRICS])
    frame = pd.DataFrame(chosen.lines())
    frame["finished"] = pd.to_datetime(frame["finished"], utc=True)
    frame = frame.astype({name: "float64" for record in chosen.records for name in record.metrics})
    frame = frame.copy()  # in one piece: a column that is added to hundreds of pieces makes pandas warn
    frame.attrs["set_aside"] = {str(item.path): item.why for item in chosen.set_aside}
    return frame
