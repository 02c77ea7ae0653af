"""Finds the runs of a target's rows, of any seed: by the jobs in their folders and in the submissions to Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replace_run
from pathlib import Path

from msgspec.structs import replace

from detector.errors import RecordError, UsageError
from detector.runs.folder import RunDir, read_train_job
from detector.runs.job import AnnotatedFolder, EvalJob, TestSettings, TrainJob
from harness.folders import may_read, refused_text
from harness.planning.plan import Plan
from harness.planning.rows import row_records
from harness.planning.selection import Selection
from harness.status.submitted import Submitted, newest_submissions
from harness.store.replaced import replaced_folders

# What is to be done about a job.json that is not its folder's.
EDITED = "It was edited, or written by code whose results have changed since. Move the folder away and run again."
SEEDS_SEARCHED = 10  # for a folder whose job.json is not written yet
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class KnownRun:
    """One training of some rows. run: None where its folder has no known name, because no data set is named.

    submitted: its newest submission to Slurm, if it has one.
    """

    refs: tuple[str, ...]
    seed: int
    jobs: tuple[EvalJob, ...]  # the evaluations that its rows need
    run: RunDir | None
    one_is_enough: bool = False  # whether it counts as done with one of ``jobs``, not only with all
    submitted: Submitted | None = None
    departures: tuple[str, ...] = ()  # options by which it is another training than its row's, where it is listed so
    evals: tuple[str, ...] = ()  # ids of the evaluations that it needs, where ``jobs`` are not known

    @property
    def title(self) -> str:
        """Its rows, and the options by which it is another training than theirs."""
        return " ".join([" = ".join(self.refs), *self.departures])

    @property
    def ref(self) -> str:
        """The row by which a command names it: one that it was submitted for, if it was."""
        member = self.submitted.member if self.submitted is not None else None
        return next((ref for ref in (member.refs if member is not None else ()) if ref in self.refs), self.refs[0])

    @property
    def key(self) -> tuple[str, int, RunDir | None]:
        """What no other run of a target has."""
        return self.refs[0], self.seed, self.run

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.title}, seed {self.seed}"

    @property
    def exists(self) -> bool:
        """Whether it was ever started."""
        return self.run is not None and self.run.root.is_dir()


@dataclass(frozen=True)
class FoundRuns:
    """The runs of a target, in the order of its rows, and what else is in the runs folder."""

    runs: tuple[KnownRun, ...]
    others: int  # folders of no row of the target: of other profiles, of --set, ...
    unreadable: Mapping[Path, str]  # job.json files that cannot be used, and why
    replaced: tuple[Path, ...] = ()  # folders that 'harness run --fresh' moved aside


class RunFinder:
    """Finds the runs of a selection's rows. The plans are made once, so that ``find`` can be called again and again.

    seeds: how many runs per row are listed even if they were never started; 0: only those that were started or
    submitted. departing: also list what was submitted at the profile with options by which it is no row's.
    """

    def __init__(self, selection: Selection, *, seeds: int, departing: bool = False) -> None:
        self.store = selection.store
        self.seeds = seeds
        self.profile = selection.profile.name if departing else None
        self.any_data = selection.identity_is_open
        self.plans = selection.reading_plans(selection.refs)
        self.rows: dict[TrainJob, list[tuple[str, EvalJob]]] = {}
        for plan in self.plans:
            for cell in plan.cells:
                served = self.rows.setdefault(self._key(cell.job.train), [])
                if (cell.ref, cell.job) not in served:
                    served.append((cell.ref, cell.job))

    def find(self, begun_soon: Iterable[str] = ()) -> FoundRuns:
        """Search the runs folder. begun_soon: ids of runs that a launcher here will begin; those of the rows count."""
        found, others, unreadable, jobless = list[KnownRun](), 0, dict[Path, str](), dict[str, RunDir]()
        submitted, there = newest_submissions(self.store.runs), set[str]()
        for run in run_folders(self.store.runs):
            there.add(run.root.name)
            if not may_read(run.root):  # another user's, for nobody else
                unreadable[run.root] = f"{run.root} may not be read. {refused_text(run.root)}"
                continue
            if not run.job.exists():
                jobless[run.root.name] = run
                continue
            try:
                job = read_train_job(run)
            except RecordError as error:
                unreadable[run.job] = str(error)
                continue
            known = self._known(job, run) or self._departing(submitted.get(run.root.name), run)
            if known is not None and not known.departures and (name := job.id) != run.root.name:
                unreadable[run.job] = f"{run.job} is the job of {name}, not of its folder. {EDITED}"
                continue
            others += known is None
            found += [known] if known is not None else []
        soon = {run: self.store.run_dir(run) for run in (*submitted, *begun_soon) if run not in there}
        named = self._by_submission({**jobless, **soon}, submitted)
        told = {run for run, entry in submitted.items() if entry.member is not None}
        named |= self._by_name({run: folder for run, folder in {**jobless, **soon}.items() if run not in told})
        found += named.values()
        others += len(jobless.keys() - named)
        found = [replace_run(known, submitted=submitted.get(known.run.root.name)) for known in found if known.run]
        found += [item for item in self._never_started(found) if item.run is None or item.run.root not in unreadable]
        order = {ref: i for i, ref in enumerate(ref for served in self.rows.values() for ref, _ in served)}
        return FoundRuns(
            tuple(sorted(found, key=lambda known: (order.get(known.refs[0], len(order)), known.seed))),
            others,
            unreadable,
            tuple(replaced_folders(self.store.runs)),
        )

    @property
    def trainings(self) -> list[TrainJob]:
        """Seed 0 of each training of the rows; none where no data set is named."""
        return [] if self.any_data else list(self.rows)

    def _known(self, train: TrainJob, run: RunDir | None) -> KnownRun | None:
        served = self.rows.get(self._key(train))
        if served is None:
            return None
        # Jobs are compared by value: an id takes 0.8 ms, too long for a thousand runs.
        jobs = dict.fromkeys(replace(job, train=train) for _, job in served)
        refs = tuple(dict.fromkeys(ref for ref, _ in served))
        return KnownRun(refs, train.seed, tuple(jobs), run, one_is_enough=self.seeds == 0)

    def _departing(self, entry: Submitted | None, run: RunDir) -> KnownRun | None:
        """A run that was submitted with options by which it is no row's, if such runs are listed."""
        if self.profile is None or entry is None or entry.member is None or entry.options is None:
            return None
        if entry.options.profile != self.profile or not entry.departures:
            return None
        member = entry.member
        return KnownRun(member.refs, member.train.seed, (), run, True, departures=entry.departures, evals=member.evals)

    def _by_submission(self, folders: Mapping[str, RunDir], submitted: Mapping[str, Submitted]) -> dict[str, KnownRun]:
        """By id, those runs without a job.json whose submission says what they train."""
        named = {}
        for name, run in folders.items():
            entry = submitted.get(name)
            if entry is None or entry.member is None:
                continue
            known = self._known(entry.member.train, run) or self._departing(entry, run)
            if known is not None:
                named[name] = known
        return named

    def _by_name(self, folders: Mapping[str, RunDir]) -> dict[str, KnownRun]:
        """By id, those of the other runs without a job.json that are of one of the first seeds."""
        named: dict[str, KnownRun] = {}
        for seed in range(max(self.seeds, SEEDS_SEARCHED)):
            for key in self.trainings:
                if len(named) == len(folders):
                    return named
                train = replace(key, seed=seed)
                run = folders.get(train.id)
                known = self._known(train, run) if run is not None else None
                named |= {train.id: known} if known is not None else {}
        return named

    def _never_started(self, found: list[KnownRun]) -> list[KnownRun]:
        there = {(ref, known.seed) for known in found for ref in known.refs}
        fresh = []
        for key in dict.fromkeys(self._key(cell.job.train) for cell in self.plans[0].cells):
            for seed in range(self.seeds):
                train = replace(key, seed=seed)
                known = self._known(train, None if self.any_data else self.store.run_dir(train.id))
                assert known is not None
                if not any((ref, seed) in there for ref in known.refs):
                    fresh.append(known)
        return fresh

    def _key(self, train: TrainJob) -> TrainJob:
        first = replace(train, seed=0)
        if self.any_data and isinstance(first.data, AnnotatedFolder):
            return replace(first, data=replace(first.data, train_sha256=None, test_sha256=None))
        return first


def run_folders(runs: Path) -> list[RunDir]:
    """All run folders, by name."""
    if not runs.is_dir():
        return []
    return [RunDir(path) for path in sorted(runs.iterdir()) if _ID.fullmatch(path.name)]


def of_plan(plan: Plan, folder: Path) -> list[KnownRun]:
    """The runs of a plan. Its data set must be named. folder: the runs folder."""
    return [
        KnownRun(tuple(plan.refs_of(train_id)), job.seed, tuple(plan.evaluations[train_id]), RunDir(folder / train_id))
        for train_id, job in plan.trainings.items()
    ]


def find_run(selection: Selection, seed: int, root: Path) -> tuple[RunDir, Plan]:
    """The finished training of one row and seed on the data at ``root``, and the plan with its evaluation.

    Raises UsageError where there is none.
    """
    _require_one_row(selection)
    gone: RunDir | None = None
    for from_scratch in (False, True) if selection.profile.without_weights == "from_scratch" else (False,):
        planned = selection.plan(seed + 1, root=root, from_scratch=from_scratch)
        (cell,) = [cell for cell in planned.cells if cell.seed == seed]
        run = selection.store.run_dir(cell.job.train.id)
        if run.final.exists():
            return run, planned
        gone = run if run.has_records() else gone
    raise _untrained(selection, seed, gone)


def find_trained(selection: Selection, seed: int) -> tuple[RunDir, TestSettings]:
    """The finished run of one row and seed, and its test settings. Found by its record, so no data is needed.

    Raises UsageError where there is none.
    """
    _require_one_row(selection)
    gone: RunDir | None = None
    for record in row_records(selection.store, selection.reading_plans(selection.refs)).get(selection.refs[0], []):
        run = selection.store.run_dir(record.train_id)
        if record.job.train.seed != seed:
            continue
        if run.final.exists():
            return run, record.job.test
        gone = run if run.has_records() else gone
    raise _untrained(selection, seed, gone)


def _require_one_row(selection: Selection) -> None:
    if len(selection.refs) != 1:
        raise UsageError(f"One row is needed, such as table2/L6; {selection.target} has {len(selection.refs)}.")


def _untrained(selection: Selection, seed: int, gone: RunDir | None) -> UsageError:
    """The error for a run without weights. gone: the folder of a finished run whose weights were removed."""
    command = f"harness run {selection.target} --profile {selection.profile.name} --seeds {seed + 1}"
    if gone is not None:
        return UsageError(
            f"{selection.target}, seed {seed}, is finished, but its weights {gone.final} are gone. To train it again, "
            f"move {gone.root} away, then: {command}"
        )
    return UsageError(
        f"No trained weights of {selection.target}, seed {seed}, profile {selection.profile.name} "
        f"in {selection.store.runs}. "
        f"Train them: {command}"
    )
