"""Once before any run: make or check the data, and find the pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from detector.errors import DataError, UsageError, WeightsError
from detector.runs.job import DataSource, Shapes, TrainJob
from harness.console.bars import count_bar
from harness.launch.assignments import Wanted, wanted_weights
from harness.machine import usable_cores
from harness.planning.plan import Plan
from harness.planning.selection import Selection

# Up to this many images, decoding all of them takes seconds; larger sets are checked by 'harness data verify'.
DECODE_ALL_BELOW = 2_000


def prepare_data(source: DataSource, root: Path, say: Callable[[str], None]) -> None:
    """Generate the set, or check that the folder holds what the job names.

    Raises DataError, naming file and id, for what is wrong with files, boxes or categories.
    """
    if isinstance(source, Shapes):
        from detector.data.shapes.generate import SPEC_FILE, generate_shapes

        count = source.num_train + source.num_test
        if not (root / SPEC_FILE).exists():
            say(f"Drawing {count:,} images of {source.size} px in {root}")
        with count_bar("drawing", count) as advance:
            generate_shapes(root, source, workers=usable_cores(), progress=advance)
        return
    from detector.data.coco.index import summary
    from detector.data.coco.verify import check_images, missing_images
    from detector.data.splits import PARTS, check_categories, open_split

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


def require_use(trainings: Iterable[TrainJob], given: Path) -> None:
    """Raises UsageError where no training starts from the file of ``--weights``, WeightsError where it is not there."""
    if all(job.model.weights == "none" for job in trainings):
        raise UsageError(
            f"--weights {given}: none of these trainings starts from weights (model.weights is none). Leave it out."
        )
    if not given.is_file():
        raise WeightsError(f"--weights {given}: there is no such file.")


def find_weights(trainings: list[TrainJob], given: Path | None) -> dict[Wanted, Path]:
    """The files that the trainings start from, one per weights and backbone, each read once to see that it fits.

    given: the file of ``--weights``. Raises WeightsError where a file cannot be downloaded or does not fit, UsageError
    where one file is given and several are needed.
    """
    wanted = {wanted_weights(job): job for job in trainings if job.model.weights != "none"}
    if given is not None:
        require_use(trainings, given)
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
