"""The trainings that a target needs, as lines of plain values: each once."""

from __future__ import annotations

from typing import Any

from harness.planning.selection import Selection, missing, unusable


def job_lines(selection: Selection, seeds: int) -> list[dict[str, Any]]:
    """One line per training: what it is for, how large it is, whether all its records are in the runs folder."""
    planned = selection.plan(seeds)
    to_do = {*missing(planned, selection.store), *unusable(planned, selection.store)}
    return [
        {
            "id": train_id,
            "rows": tuple(planned.refs_of(train_id)),
            "seed": job.seed,
            "backbone": job.model.backbone,
            "iterations": job.schedule.iterations,
            "images": job.batch.images,
            "lr": job.optimizer.lr,
            "done": train_id not in to_do,
        }
        for train_id, job in planned.trainings.items()
    ]
