"""From a plan to one assignment per training: all that a worker is told."""

from __future__ import annotations

from pathlib import Path

from detector.runs.assignment import Assignment
from detector.runs.job import TrainJob
from harness.code.version import current_code, difference
from harness.planning.plan import Plan
from harness.store.records import Store

Wanted = tuple[str, str]  # model.weights and model.backbone of a job


def wanted_weights(job: TrainJob) -> Wanted:
    """What a training starts from, and for which backbone."""
    return job.model.weights, job.model.backbone


def assignments(
    plan: Plan, store: Store, *, root: Path, weights: dict[Wanted, Path], notes: tuple[str, ...]
) -> list[Assignment]:
    """The assignments of all trainings of the plan, done or not. weights: empty where nothing will be trained."""
    execution, diff = plan.profile.execution, difference()
    code = current_code(diff)
    return [
        Assignment(
            train=job,
            evals=tuple(plan.evaluations[train_id]),
            run_dir=str(store.run_dir(train_id).root),
            data_root=str(root.absolute()),
            profile=plan.profile.name,
            device="cpu",  # the launcher decides
            threads=execution.threads,
            loader_workers=execution.loader_workers,
            checkpoint_every=execution.checkpoint_every,
            groups_per_forward=execution.groups_per_forward,
            evaluate_every=execution.evaluate_every,
            compile=execution.compile,
            cuda_graphs=execution.cuda_graphs,
            deterministic=execution.deterministic,
            weights_file=str(weights[wanted_weights(job)]) if wanted_weights(job) in weights else None,
            code=code,
            code_diff=diff,
            notes=notes,
            anchor_ranges=None if plan.overridden else plan.profile.anchor_ranges,
        )
        for train_id, job in plan.trainings.items()
    ]
