"""What a run was made from, held against what the same command would train from now; and training anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from detector.errors import DataError, RecordError, UsageError, WeightsError
from detector.runs.folder import RunDir, read_own_record
from detector.runs.job import DataSource, TrainJob
from detector.runs.provenance import FileDigest, ImagesDigest, Inputs, unequal
from detector.runs.record import Record, differences
from detector.storage.reading import open_regular, read_json
from harness.launch.assignments import Wanted, wanted_weights
from harness.planning.plan import Plan
from harness.status.find import of_plan
from harness.status.kinds import LIVING
from harness.status.observe import look_at_queue, observe
from harness.status.words import state_text
from harness.store.records import Store
from harness.store.replaced import replace_run

MOST_NAMED = 5  # runs in one message

Part = Literal["train", "test"]


class _Now:
    """What a training of ``source`` would read now: each thing looked up once, where a record has one to compare."""

    def __init__(self, source: DataSource, root: Path, given: Path | None) -> None:
        self.annotations = cache(partial(_annotations_now, source, root))
        self.images = cache(partial(_images_now, source, root))
        self.weights = cache(partial(_weights_now, given))

    def begun(self, job: TrainJob, had: Inputs) -> Inputs:
        """What a training that has a checkpoint would go on with now, as far as it noted what it began with."""
        return Inputs(
            weights=self.weights(wanted_weights(job)) if had.weights is not None else None,
            train_annotations=self.annotations("train") if had.train_annotations is not None else None,
            train_images=self.images("train") if had.train_images is not None else None,
        )

    def record(self, record: Record) -> Record:
        """The record as it would be if the same were trained now; what is not there now stays as it is."""
        had, own_test = record.inputs or Inputs(), record.job.split is None  # else the server has the annotations
        inputs = Inputs(
            weights=self.weights(wanted_weights(record.job.train)) if had.weights is not None else None,
            train_images=self.images("train") if had.train_images is not None else None,
            test_images=self.images("test") if had.test_images is not None and own_test else None,
        )
        train, test = record.train_split, record.test_split
        train = replace(train, sha256=self.annotations("train") or train.sha256)
        test = replace(test, sha256=self.annotations("test") or test.sha256) if own_test else test
        return replace(record, inputs=inputs, train_split=train, test_split=test)


def changed_inputs(planned: Plan, store: Store, root: Path, given: Path | None) -> dict[str, tuple[str, ...]]:
    """By training with a record or a checkpoint in the runs folder: which of its inputs have changed since, in words.

    given: the file of ``--weights``. What a run does not know, or what is no longer there, has not changed.
    """
    now, found = _Now(planned.data, root, given), dict[str, tuple[str, ...]]()
    for train_id, jobs in planned.evaluations.items():
        begun = _begun_with(store.run_dir(train_id))
        if begun and (other := unequal(begun, now.begun(planned.trainings[train_id], begun))):
            found[train_id] = tuple(other)
            continue
        for job in jobs:
            with suppress(RecordError, OSError):  # not there, or not whole: nothing to compare with
                record = read_own_record(store.run_dir(train_id).record(job.id))
                if changed := differences(record, now.record(record)):
                    found[train_id] = changed
                    break
    return found


def _begun_with(run: RunDir) -> Inputs | None:
    """What a training that is not done began with; None where it has no checkpoint or did not note it."""
    if run.final.exists() or not any(run.checkpoints.glob("*.pt")):
        return None
    with suppress(RecordError, OSError):
        return read_json(run.inputs, Inputs)
    return None


def require_same_inputs(planned: Plan, store: Store, root: Path, given: Path | None, command: str) -> None:
    """Raises UsageError where a run of the plan was made, or begun, from other files than those that are there now."""
    changed = changed_inputs(planned, store, root, given)
    if not changed:
        return
    lines = [f"{_name(planned, train_id)}: {'; '.join(what)}" for train_id, what in changed.items()]
    more = [f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
    raise UsageError(
        "\n  ".join(
            [
                "Runs were made from other files than those that are there now (then and now):",
                *lines[:MOST_NAMED],
                *more,
            ]
        )
        + "\nTwo ways out: put the earlier files back; or train anew, which moves the old folders of all runs of the "
        f"target to <id>.replaced-<time>: {command} --fresh"
    )


def begin_anew(planned: Plan, store: Store, say: Callable[[str], None]) -> None:
    """Move the folders of all of the plan's runs aside. Raises UsageError, before any, where one waits or runs."""
    scheduler = look_at_queue(store.runs)
    known = [item for item in of_plan(planned, store.runs) if item.exists]
    for item in known:
        state = observe(item, store, planned.profile.name, scheduler)
        if state.kind == "unknown":
            raise UsageError(f"--fresh: {item.name} may run: {state_text(state)}. Try again when its queue answers.")
        if state.kind in LIVING:
            raise UsageError(f"--fresh: {item.name} waits or runs. Stop it first: harness cancel {item.refs[0]}")
    for item in known:
        assert item.run is not None
        try:
            target = replace_run(item.run)
        except BlockingIOError as error:
            raise UsageError(f"--fresh: {item.run.root} is being written by another process.") from error
        say(f"{item.name}: the old folder is kept as {target}")


def _annotations_now(source: DataSource, root: Path, part: Part) -> str | None:
    from detector.data.coco.files import annotations_sha256
    from detector.data.splits import split_name

    try:
        return annotations_sha256(root, split_name(source, part))
    except (DataError, OSError):  # not there: whoever trains says so
        return None


def _images_now(source: DataSource, root: Path, part: Part) -> ImagesDigest | None:
    from detector.data.digest import images_digest
    from detector.data.splits import open_split

    try:
        return images_digest(open_split(source, root, part))
    except (DataError, OSError):
        return None


def _weights_now(given: Path | None, wanted: Wanted) -> FileDigest | None:
    """The weights that would be loaded, without a download."""
    from detector.weights.find import weights_file

    try:
        file = given or weights_file(*wanted)
        return None if file is None else FileDigest(name=file.name, sha256=_sha256(file))
    except (WeightsError, OSError):
        return None


def _sha256(file: Path) -> str:
    """Of a large file only once: again where its size, times or inode have changed."""
    from detector.data.coco.cache import content_of

    if (content := content_of(file)) is not None:
        return content.sha256
    with open_regular(file, raises=WeightsError) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _name(planned: Plan, train_id: str) -> str:
    return f"{' = '.join(planned.refs_of(train_id))}, seed {planned.trainings[train_id].seed}"
