"""What the newest submission of each run says of it, and the runs that a name stands for. May import slurm."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detector.errors import UsageError
from detector.runs.folder import RunDir
from harness.slurm.submissions import Member, Options, Submission, read_submissions, submissions_folder

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{3,16}")
_JOB = re.compile(r"\d+(?:_\d+)?")
MOST_NAMED = 8  # runs in one message


@dataclass(frozen=True)
class Submitted:
    """One run's newest submission. member, options: None in submissions of older versions.

    job: Slurm's id, with the index of an array's element; "" where Slurm did not take it, or has not answered yet.
    """

    submission: Submission
    member: Member | None
    options: Options | None
    job: str

    @property
    def cluster(self) -> str:
        """As ``--cluster`` takes it."""
        return self.options.cluster if self.options is not None else self.submission.cluster

    @property
    def words(self) -> tuple[str, ...]:
        """The options of the command that submitted it, other than profile and seeds."""
        given = self.options
        if given is None:
            return ()
        words = [word for override in given.overrides for word in ("--set", override)]
        words += ["--batch-size", str(given.batch_size)] if given.batch_size is not None else []
        named = {"--data": given.data, "--weights": given.weights, "--cluster": given.cluster}
        return (*words, *(word for name, value in named.items() if value for word in (name, value)))

    @property
    def departures(self) -> tuple[str, ...]:
        """Those by which it is another training than its row's."""
        given = self.options
        if given is None:
            return ()
        batch = (f"--batch-size {given.batch_size}",) if given.batch_size is not None else ()
        return (*batch, *(f"--set {override}" for override in given.overrides))

    @property
    def name(self) -> str:
        """For a person."""
        if self.member is None:
            return self.job
        return f"{' '.join([' = '.join(self.member.refs), *self.departures])}, seed {self.member.train.seed}"


def newest_submissions(runs: Path) -> dict[str, Submitted]:
    """By training id. A submission that was withdrawn before Slurm had it does not count."""
    found: dict[str, Submitted] = {}
    if not submissions_folder(runs).is_dir():
        return found
    entries = read_submissions(runs, damaged=logger.debug)  # whoever asks the queue tells it
    # As the queue has it: the newest that has not ended, else the newest.
    for item in sorted(entries, key=lambda item: (item.state not in ("ended", "refused"), item.time)):
        if item.state == "ended" and item.job_id is None:
            continue
        for index, run in enumerate(item.runs):
            member = item.members[index] if index < len(item.members) else None
            element = f"_{index}" if len(item.runs) > 1 else ""
            found[run] = Submitted(item, member, item.options, f"{item.job_id}{element}" if item.job_id else "")
    return found


def is_name_of_run(name: str) -> bool:
    """Whether a name is a training's id or its beginning, a Slurm job, or the folder of a run; no table and no row."""
    return bool(_ID.fullmatch(name) or _JOB.fullmatch(name) or is_run_folder(Path(name)))


def is_run_folder(path: Path) -> bool:
    """Whether a run was started or submitted there."""
    run = RunDir(path)
    return bool(str(path).strip()) and (run.job.exists() or run.submitit.is_dir() or (path / "claim.json").exists())


def runs_named(runs: Path, name: str, folders: Iterable[RunDir]) -> list[RunDir]:
    """The runs whose id begins with ``name``, or that Slurm's job ``name`` has; folders: those of the runs folder.

    Several only for the job of an array (17). Raises UsageError where there are none, or the name has two meanings.
    """
    submitted = newest_submissions(runs)
    ids = dict.fromkeys([*(run.root.name for run in folders), *submitted])
    by_id = [run for run in ids if _ID.fullmatch(name) and run.startswith(name)]
    by_job = [run for run, entry in submitted.items() if entry.job and name in (entry.job, entry.job.split("_")[0])]
    slurms = {(submitted[run].submission.slurm, submitted[run].submission.cluster) for run in by_job}
    if len(by_id) == 1 and not by_job:
        return [RunDir(runs / by_id[0])]
    if by_job and not by_id and len(slurms) == 1:
        return [RunDir(runs / run) for run in by_job]
    raise UsageError(f"{name!r} does not name one run in {runs}: {_meanings(by_id, by_job, submitted)}")


def only(name: str, found: list[RunDir], submitted: Mapping[str, Submitted]) -> RunDir:
    """The run, if it is one. Raises UsageError that names those of a job array."""
    if len(found) == 1:
        return found[0]
    listed = [f"{submitted[run.root.name].job} ({submitted[run.root.name].name})" for run in found]
    raise UsageError(f"Job {name} has {len(found)} runs: {_listed(listed)}. Give one of them.")


def _meanings(by_id: list[str], by_job: list[str], submitted: Mapping[str, Submitted]) -> str:
    said = []
    if by_id:
        said.append(f"{len(by_id)} id{'s begin' if len(by_id) > 1 else ' begins'} with it: {_listed(by_id)}")
    if by_job:
        jobs = [f"{submitted[run].job} on {submitted[run].submission.cluster} ({run})" for run in by_job]
        said.append(f"it is Slurm's job of: {_listed(jobs)}")
    return f"{'; '.join(said) or 'no id begins with it, and it is no job'}. Run 'harness status'."


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return ", ".join(items[:MOST_NAMED]) + more
