"""``harness.plan``, ``run`` and ``curves``: trainings as frames, and training itself."""

from __future__ import annotations

import sys

import pandas as pd

from harness.api.targets import Folder, Overrides, override_texts, path_of, select
from harness.launch.run import Request, RunResult, run_target
from harness.planning.selection import Targets
from harness.report.export.curves import curves_of
from harness.report.export.jobs import job_lines
from harness.store.records import Source


def plan(
    target: Targets,
    profile: str = "paper",
    *,
    seeds: int = 1,
    batch_size: int | None = None,
    overrides: Overrides | None = None,
    data: Folder | None = None,
) -> pd.DataFrame:
    """The trainings that one or several targets need, each once: one line per training.

    Columns: ``id``, ``rows`` (those that it serves), ``seed``, ``backbone``, ``iterations``, ``images`` (per batch),
    ``lr`` (learning rate), ``done`` (all its records are in the runs folder). ``attrs["identity_is_open"]``: the data
    is a folder that was not named, so that ids are not those of its runs yet and nothing is done.

    target: "all" (the four tables), a table, a row, or several. seeds: runs per row, with the seeds 0, 1, ...
    batch_size: images per batch, with the schedule rescaled by the paper's Remark 2. overrides: settings in place of
    the recipe's, such as {"optimizer.lr": 0.005}. data: the COCO root. Raises UsageError for an unknown name.

    >>> import harness
    >>> harness.plan("table3", profile="tiny")[["rows", "seed", "iterations", "done"]]
                     rows  seed  iterations   done
    0       (table3/all,)     0         400  False
    1  (table3/neg-only,)     0         400  False
    2        (table3/dr,)     0         400  False
    """
    selection = select(target, profile, overrides=overrides, data=data, batch_size=batch_size)
    frame = pd.DataFrame(job_lines(selection, seeds))
    frame.attrs = {"profile": profile, "scale": selection.profile.title, "identity_is_open": selection.identity_is_open}
    return frame


def run(
    target: Targets,
    profile: str = "paper",
    *,
    seeds: int = 1,
    batch_size: int | None = None,
    overrides: Overrides | None = None,
    data: Folder | None = None,
    weights: Folder | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    cluster: str | None = None,
    dry_run: bool = False,
) -> RunResult:
    """Train, evaluate and record what is missing of one or several targets, as ``harness run`` does.

    Progress goes to stderr. A run that fails does not raise: see ``failed`` (each with ``message`` and ``log``),
    ``stopped``, ``trained`` and ``done`` (training ids) of what is returned; printed, it says so in words.
    KeyboardInterrupt passes on after the runs have saved; the same call goes on from there.

    target: "all" (the four tables), a table, a row, or several. seeds: runs per row, with the seeds 0, 1, ...
    batch_size, overrides: as for ``plan``; such runs fill no table's cell. data: the COCO root. weights: the file to
    start from. retry_failed: only what failed or was lost. fresh: train all of it anew; the old folders are moved
    aside. cluster: submit to this Slurm cluster and return at once, see
    ``submission``; dry_run: say what would be submitted, see ``dry_run``.

    It starts processes: a script calls it under ``if __name__ == "__main__":``, a notebook as it is.

    Raises:
        UsageError: an unknown name, an option that does not fit, or a finished run whose weights, annotations or
            images have changed since (``fresh`` trains it anew).
        DataError, WeightsError: what the runs need is not there or does not fit.
        SchedulerError: Slurm is not there, or refuses.

    >>> import harness
    >>> result = harness.run("table2/L6", profile="tiny")  # half a minute, or nothing where it is done
    >>> result.failed
    ()
    >>> len(result.done) + len(result.trained)
    1
    """
    request = Request(
        target=target,
        profile=profile,
        seeds=seeds,
        batch_size=batch_size,
        overrides=override_texts(overrides),
        data=path_of(data),
        weights=path_of(weights),
        retry_failed=retry_failed,
        fresh=fresh,
        cluster=cluster,
        dry_run=dry_run,
    )
    return run_target(request, lambda text: print(text, file=sys.stderr))


def curves(
    target: Targets,
    profile: str = "paper",
    *,
    seeds: int | None = None,
    batch_size: int | None = None,
    overrides: Overrides | None = None,
    data: Folder | None = None,
    source: Source | None = None,
) -> pd.DataFrame:
    """The losses of the target's runs while they trained: one line per row, seed and logged iteration.

    Columns: ``row``, ``seed``, ``train_id``, ``points`` ("all" that the run's folder on this machine has, or those that
    the record of a finished run keeps: "thinned", 200 at most), ``iteration`` (steps taken), and means since the point
    logged before: ``loss`` and its parts, ``lr`` (learning rate), ``seconds_per_iteration``, of which
    ``data_seconds_per_iteration`` waiting for data and ``host_seconds_per_iteration`` at work in the loop
    (``detector.runs.timing``), ``images_per_second``; of runs on a GPU also ``device_busy`` (0..1) and
    ``peak_memory_gib``. A training that serves several rows of the target is there once for each. Records of format 1
    hold no curves.

    seeds: so many runs per row, 0, 1, ..., must be there; None for those that are. source: "local" for the runs folder
    only, "committed" for the records of the results folder only. The rest is as for ``plan``.

    Raises:
        UsageError: no run of the target has a curve here, or one of those that ``seeds`` asks for.
        RecordError: the files of all of them are damaged; one that is damaged among others is left out, with a warning.

    >>> import harness
    >>> frame = harness.curves("table2/L6", profile="tiny")
    >>> frame.columns.tolist()
    ['row', 'seed', 'train_id', 'points', 'iteration', 'classification', 'bbox_regression', 'loss', 'lr',
     'seconds_per_iteration', 'data_seconds_per_iteration', 'host_seconds_per_iteration', 'images_per_second',
     'gradient_backbone', 'gradient_pyramid', 'gradient_classifier', 'gradient_boxes']
    """
    selection = select(target, profile, overrides=overrides, data=data, batch_size=batch_size, source=source)
    return pd.DataFrame([line for curve in curves_of(selection, seeds) for line in curve.lines()])
