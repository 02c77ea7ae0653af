"""Once before any run: make or check the data, and find the pretrained weights."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from detector.errors import DataError, UsageError, WeightsError
from detector.runs.folder import RunDir, is_locked
from detector.runs.job import DataSource, Shapes, TrainJob
from harness.console.bars import count_bar
from harness.folders import elsewhere_text, may_write
from harness.launch.assignments import Wanted, wanted_weights
from harness.machine import usable_cores
from harness.planning.plan import Plan
from harness.planning.selection import Selection

# Up to this many images, decoding all of them takes seconds; larger sets are checked by 'harness data verify'.
DECODE_ALL_BELOW = 2_000
MOST_NAMED = 5  # runs in one message
IN_PLACE = (".lock", "log.txt", "metrics.jsonl")


def require_writable(*places: Path) -> None:
    """Raises PermissionError where a folder is another user's, with whom this one shares the runs."""
    for path in places:
        if not may_write(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def refused(run: RunDir) -> Path | None:
    """What is in the way of a start: a folder or file of the run that is another user's. None where nothing is.

    A run that a process of this machine has now is only watched.
    """
    if not may_write(run.root):
        return None if is_locked(run) else run.root
    if not run.root.is_dir():
        return None
    inside = [path for path in run.root.rglob("*") if not path.is_symlink()]
    # A file is replaced by another one, which takes its folder alone, but for those that are written to the end.
    return next((path for path in inside if (path.is_dir() or path.name in IN_PLACE) and not may_write(path)), None)


def prepare_data(source: DataSource, root: Path, say: Callable[[str], None]) -> None:
    """Generate the set, or check that the folder holds what the job names.

    Raises DataError, naming file and id, for what is wrong with files, boxes or categories.
    """
    if isinstance(source, Shapes):
        from detector.data.shapes.generate import SPEC_FILE, generate_shapes, lack_of_disk

        count = source.num_train + source.num_test
        if not (root / SPEC_FILE).exists():
            if lack := lack_of_disk(root, source):
                raise DataError(f"{lack}{elsewhere_text(root)}")
            say(f"Drawing {count:,} images of {source.size} px in {root}")
        with count_bar("drawing", count) as advance:
            generate_shapes(root, source, workers=usable_cores(), progress=advance)
        return
    from detector.data.coco.index import trainable
    from detector.data.coco.problems import summary
    from detector.data.coco.verify import check_images, missing_images
    from detector.data.splits import PARTS, check_categories, open_split

    indices = [open_split(source, root, part) for part in PARTS]
    train, test = indices
    check_categories(test, train.category_ids.tolist(), train.category_names, trained_on=train.split)
    if not len(trainable(train)):
        raise DataError(
            f"{root}: {train.split} has no image with a box to train on: they are crowd regions, or at most one pixel "
            f"wide or high. Run 'harness data verify {root}'."
        )
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


def plan_with_weights(
    selection: Selection, planned: Plan, seeds: int, root: Path, given: Path | None, say: Callable[[str], None]
) -> tuple[Plan, dict[Wanted, Path]]:
    """``planned`` and the files that its trainings start from; where there are none, and the profile allows it, the
    plan from scratch instead. given: the file of ``--weights``. Raises as ``find_weights``."""
    try:
        found = find_weights(list(planned.trainings.values()), given)
        return planned, {wanted: path.absolute() for wanted, path in found.items()}
    except WeightsError as error:
        if selection.profile.without_weights == "stop" or given is not None:
            raise
        say(f"{error}\nGoing on from scratch: nothing frozen, group norm; the records say 'not the paper's'.")
        return selection.plan(seeds, root=root, from_scratch=True), {}


def say_use_of_weights(planned: Plan, todo: Iterable[str], given: Path, say: Callable[[str], None]) -> None:
    """Tell for which of the runs the file of ``--weights`` is of use. todo: ids of those that will be trained.

    Raises UsageError where none of the plan's runs starts from weights, and WeightsError where there is no such file.
    """
    scratch = [train_id for train_id, job in planned.trainings.items() if job.model.weights == "none"]
    if len(scratch) == len(planned.trainings):
        raise UsageError(
            f"--weights {given} has no use here: all of these runs start from random weights (model.weights is none at "
            f"profile {planned.profile.name}). Leave it out, or choose another row or profile."
        )
    if not given.is_file():
        raise WeightsError(f"There is no weights file {given}.")
    trained = [train_id for train_id in todo if train_id not in scratch]
    if not trained:
        say(f"--weights {given}: nothing is trained from it; it is only compared with what the runs began with.")
    elif scratch:
        names = ", ".join(" = ".join(planned.refs_of(train_id)) for train_id in scratch[:MOST_NAMED])
        more = f" and {len(scratch) - MOST_NAMED} more" if len(scratch) > MOST_NAMED else ""
        say(f"--weights {given}: not for {names}{more}, which start from random weights.")


def find_weights(trainings: list[TrainJob], given: Path | None) -> dict[Wanted, Path]:
    """The files that the trainings start from, one per weights and backbone, each read once to see that it fits.

    given: the file of ``--weights``. Raises WeightsError where a file cannot be downloaded or does not fit, UsageError
    where one file is given and several, or none, are needed.
    """
    wanted = {wanted_weights(job): job for job in trainings if job.model.weights != "none"}
    if not wanted and given is not None:
        raise UsageError(f"--weights {given} has no use here: all of these runs start from random weights.")
    if not wanted:
        return {}
    if given is not None and len(wanted) > 1:
        listed = ", ".join(f"{backbone} ({weights})" for weights, backbone in sorted(wanted))
        raise UsageError(
            f"--weights names one file, but {listed} are wanted. Put a file for each into a folder and set "
            "HARNESS_WEIGHTS to the folder."
        )
    from detector.build import read_pretrained

    return {key: read_pretrained(job, given).file for key, job in wanted.items()}
