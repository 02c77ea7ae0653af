"""Before anything is trained: the data is made or checked, and the pretrained weights are found, once for all runs."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from detector.errors import DataError, UsageError
from detector.job import DataSource, Shapes, TrainJob
from detector.record import Code
from detector.worker import Assignment
from harness.launch import usable_cores
from harness.plan import Plan
from harness.progress import count_bar
from harness.results import Store, checkout
from harness.snapshot import difference

# Below this many images a whole decoding check takes seconds, so it is made before any training.
DECODE_ALL_BELOW = 2_000

DISTRIBUTION = "drloss-harness"

Wanted = tuple[str, str]  # model.weights and model.backbone of a job


def prepare_data(source: DataSource, root: Path, say: Callable[[str], None]) -> None:
    """Generate the set, or check that the folder holds what the job names.

    Raises DataError naming file and id for whatever can be known before training: missing files, boxes, categories.
    """
    if isinstance(source, Shapes):
        from detector.data.shapes import SPEC_FILE, generate_shapes

        count = source.num_train + source.num_test
        if not (root / SPEC_FILE).exists():
            say(f"Drawing {count:,} images of {source.size} px in {root}")
        with count_bar("drawing", count) as advance:
            generate_shapes(root, source, workers=usable_cores(), progress=advance)
        return
    from detector.data.coco import summary
    from detector.data.source import PARTS, check_categories, open_split
    from detector.data.verify import check_images, missing_images

    indices = [open_split(source, root, part) for part in PARTS]
    train, test = indices
    check_categories(test, train.category_ids.tolist())
    for index in indices:
        missing = missing_images(index)
        if missing:
            raise DataError(
                f"{root}/{index.split} lacks {len(missing):,} image files, first {missing[0]}. "
                f"Run 'harness data verify {root}'."
            )
        if index.num_images < DECODE_ALL_BELOW:
            problems = check_images(index, decode=True)
            if problems:
                raise DataError(f"{root}: {summary(problems)}. Run 'harness data verify {root}'.")


def find_weights(trainings: list[TrainJob], given: Path | None) -> dict[Wanted, Path]:
    """The files that the trainings start from, one for each (weights, backbone), read once to see that they fit.

    Raises WeightsError where a file is missing and cannot be downloaded, or does not fit, UsageError for one file and
    two wanted.
    """
    wanted = {_wanted(job): job for job in trainings if job.model.weights != "none"}
    if not wanted:
        return {}
    if given is not None and len(wanted) > 1:
        listed = ", ".join(f"{backbone} ({weights})" for weights, backbone in sorted(wanted))
        raise UsageError(
            f"--weights names one file, but {listed} are wanted. Put one file for each into a folder and "
            "set HARNESS_WEIGHTS to it."
        )
    from detector.build import read_pretrained

    return {key: read_pretrained(job, given).file for key, job in wanted.items()}


def _wanted(job: TrainJob) -> Wanted:
    return job.model.weights, job.model.backbone


def assignments(
    plan: Plan, store: Store, *, root: Path, weights: dict[Wanted, Path], notes: tuple[str, ...]
) -> list[Assignment]:
    """One assignment a training of the plan, done or not. weights: empty where nothing will be trained."""
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
            weights_file=str(weights[_wanted(job)]) if _wanted(job) in weights else None,
            code=code,
            code_diff=diff,
            notes=notes,
            anchor_ranges=None if plan.overridden else plan.profile.anchor_ranges,
        )
        for train_id, job in plan.trainings.items()
    ]


def current_code(diff: str = "") -> Code:
    """The version that is installed and, in a checkout, the commit and what differs from it."""
    folder = checkout()
    commit = _git(folder, "rev-parse", "HEAD") if folder and (folder / ".git").exists() else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if folder and commit else None
    return Code(
        version=version(DISTRIBUTION),
        commit=commit,
        modified=None if changes is None else bool(changes),
        diff_sha256=hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    )


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
