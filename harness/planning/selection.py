"""What every command on a target begins with: experiments, profile, rows, overrides, data and the store of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from detector.errors import HarnessError, MissingLossError, RecordError, UsageError
from detector.runs.job import AnnotatedFolder, DataSource, EvalJob, TrainJob
from detector.runs.record import Record
from harness.folders import results_folder, runs_folder
from harness.planning import data as planning_data
from harness.planning import plan as planning
from harness.planning.costs import Rates
from harness.planning.data import named_data
from harness.planning.gpus import GpuSet, parse_gpus
from harness.planning.plan import Plan
from harness.planning.rows import row_records, row_runs
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.registry.resolve import parse_overrides
from harness.store.records import Source, Store
from harness.verdicts.runs import RowRuns

TEST_DEV = "test-dev2017"
MOST_NAMED: Final = 3  # profiles with records, where this one has none
Targets = str | Sequence[str]  # "all", a table, a row; or several of them


class Selection:
    """One or several targets at a profile.

    targets: each once, in the order given, without those whose rows another one has. target: the same as they are typed
    on a command line. refs: the rows that they train, each once.

    Raises UsageError for an unknown name, RegistryError for a wrong file.
    """

    def __init__(
        self,
        targets: Targets,
        profile: str,
        overrides: list[str],
        data: Path | None,
        batch_size: int | None = None,
        *,
        source: Source | None = None,
    ) -> None:
        self.registry = Registry()
        self.profile: Profile = self.registry.profile(profile)
        rows = {name: self.registry.select(name, profile) for name in target_names(targets)}
        self.targets = _widest(self.registry, tuple(rows))
        self.target = " ".join(self.targets)
        self.refs = list(dict.fromkeys(ref for name in self.targets for ref in rows[name]))
        self.overrides: dict[str, Any] = parse_overrides(overrides)
        self.batch_size = batch_size
        self.given_data = data
        self.store = Store(runs_folder(), results_folder(), source)

    @cached_property
    def source(self) -> DataSource:
        """The data that the runs name. A folder has no identity before it is named."""
        refs = self.refs or self.registry.select("all", self.profile.name)  # a table may have cited rows only
        return planning_data.data_source(self.registry, refs, self.profile, self.overrides)

    @property
    def identity_is_open(self) -> bool:
        """Whether the runs' ids wait for a data folder to be named."""
        return isinstance(self.source, AnnotatedFolder) and self._named_root() is None

    def data_root(self) -> Path:
        """Where the data lies. Raises UsageError where it must be named and was not."""
        return planning_data.data_root(self.source, self.given_data, self.store.runs)

    def plan(self, seeds: int, *, root: Path | None = None, from_scratch: bool = False) -> Plan:
        """The target's plan; with ``root``, or a folder named by --data or HARNESS_DATA, over that very data.

        Raises UsageError where its rows are of several data sets, which recipes of one's own may name.
        """
        plan = self.plan_of(self.refs, seeds, root=root or self._named_root(), from_scratch=from_scratch)
        first = {cell.job.train.data: cell.ref for cell in reversed(plan.cells)}
        if len(first) > 1:
            raise UsageError(
                f"The rows of {self.target} are of {len(first)} data sets at profile {self.profile.name}. "
                f"Plan them apart, such as {' and '.join(first.values())}."
            )
        return plan

    def plan_of(self, refs: list[str], seeds: int, *, root: Path | None = None, from_scratch: bool = False) -> Plan:
        """A plan of any rows, as ``plan``."""
        return planning.make_plan(
            self.registry,
            refs,
            self.profile,
            seeds=seeds,
            overrides=self.overrides,
            from_scratch=from_scratch,
            batch_size=self.batch_size,
            data=planning_data.identify(self.source, root) if root is not None else None,
        )

    def reading_plans(self, refs: list[str]) -> list[Plan]:
        """What fills the rows' cells: the plan as it is and, where the profile allows it, the one from scratch."""
        root = self._named_root()
        plans = [self.plan_of(refs, 1, root=root)]
        if self.profile.without_weights == "from_scratch":
            plans.append(self.plan_of(refs, 1, root=root, from_scratch=True))
        return plans

    def runs(self, split: str | None = None) -> dict[str, RowRuns]:
        """Finished runs of every row that this project trains, whatever the target: they share seed deviations.

        split: None for the profile's own test split; "test-dev2017" for what the evaluation server answered.
        """
        return row_runs(self.row_records(split), split="test-dev" if split else "minival")

    def row_records(self, split: str | None = None) -> dict[str, list[Record]]:
        """The finished records of the same rows, also those that ``runs`` leaves out."""
        return row_records(self.store, self._plans_of_all, split=split)

    @property
    def departures(self) -> str:
        """The options by which the selected runs are not the paper's; empty where they are."""
        batch = [f"--batch-size {self.batch_size}"] if self.batch_size is not None else []
        return " ".join(
            [*batch, *(f"--set {quote(f'{path}={_text(value)}')}" for path, value in self.overrides.items())]
        )

    def row_jobs(self) -> list[EvalJob]:
        """What every row that this project trains evaluates, with seed 0."""
        return [cell.job for plan in self._plans_of_all for cell in plan.cells]

    @cached_property
    def trainings(self) -> dict[TrainJob, dict[str, EvalJob]]:
        """What trains the rows that ``row_records`` reads, with seed 0 (``training_key``); of each, its rows' jobs."""
        found: dict[TrainJob, dict[str, EvalJob]] = {}
        for plan in self._plans_of_all:
            for cell in plan.cells:
                found.setdefault(self.training_key(cell.job.train), {})[cell.ref] = cell.job
        return found

    def training_key(self, train: TrainJob) -> TrainJob:
        """What a training has in common with those of other seeds, and of other folders where none was named."""
        first = replace(train, seed=0)
        if isinstance(first.data, AnnotatedFolder) and self.identity_is_open:
            return replace(first, data=replace(first.data, train_sha256=None, test_sha256=None))
        return first

    @cached_property
    def _plans_of_all(self) -> list[Plan]:
        if self.departures:  # other rows may not have the setting, and share nothing with these
            return self.reading_plans(self.refs)
        refs = [ref for table in self.registry.tables.values() for ref in table.refs(self.profile.name)]
        return self.reading_plans(refs)

    def gpus(self, text: str | None) -> GpuSet | None:
        """The GPUs of ``--gpus``. Raises UsageError for a kind that is not known."""
        return None if text is None else parse_gpus(text, self.registry.speeds, self.store.records)

    def rates(self, gpus: GpuSet | None = None) -> Rates:
        """How fast the profile's trainings are, on GPUs that were named or on those that finished runs had."""
        return Rates(self.profile, self.store.records, self.registry.speeds, gpus)

    def notes(self, planned: Plan) -> tuple[str, ...]:
        """What departs from the paper beyond the profile's scale, for the records."""
        notes = []
        if planned.from_scratch:
            notes.append("no ImageNet weights: trained from scratch with group norm, not the paper's")
        if self.batch_size is not None:
            notes.append(f"--batch-size {self.batch_size}: learning rate and schedule by Remark 2, not the paper's")
        if self.overrides:
            changed = ", ".join(f"{path}={value}" for path, value in self.overrides.items())
            notes.append(f"overridden by --set, not the paper's: {changed}")
        return tuple(notes)

    def _named_root(self) -> Path | None:
        """A COCO folder that the user named; without it the records of any one folder are shown."""
        return named_data(self.given_data) if isinstance(self.source, AnnotatedFolder) else None


def target_names(targets: Targets) -> tuple[str, ...]:
    """The targets, each once. Raises UsageError where there is none."""
    names = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
    if not names:
        raise UsageError("No target was given: 'all', a table such as 'table2', a row such as 'table2/L6', or several.")
    return names


def _widest(registry: Registry, names: tuple[str, ...]) -> tuple[str, ...]:
    """Without a row whose table is named too, and without what ``all`` stands for where that is named."""
    papers = {table.id for table in registry.paper_tables} if "all" in names else set[str]()
    wider = papers | {name for name in names if "/" not in name}
    return tuple(name for name in names if name not in papers and not ("/" in name and name.split("/")[0] in wider))


def _text(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def missing(planned: Plan, store: Store) -> list[str]:
    """Ids of the trainings of which an evaluation has no record in the runs folder yet."""
    return [
        train_id
        for train_id, jobs in planned.evaluations.items()
        if not all(store.run_dir(train_id).record(job.id).exists() for job in jobs)
    ]


def unusable(planned: Plan, store: Store) -> dict[str, str]:
    """By id, the trainings with a record in the runs folder that cannot be used: damaged, edited, or of another job.

    Such a training is neither done nor missing until the file is moved away, as the sentence says.
    """
    found = dict[str, str]()
    for train_id, jobs in planned.evaluations.items():
        for job in jobs:
            try:
                store.run_dir(train_id).read_record(job.id)
            except MissingLossError:
                pass  # whole, but its loss is not installed here
            except RecordError as error:
                found.setdefault(train_id, f"{error} Then the same command makes it again.")
    return found


def records_elsewhere(selection: Selection) -> str:
    """``No record at profile paper, but 8 at tiny: add -p tiny.`` Empty where the profile has any of the target.

    For every command that has nothing to show: the default profile is the paper's, which few people have run.
    """
    if selection.departures or _count(selection):
        return ""
    profiles = Counter(record.profile for record in selection.store.records)
    found = []
    for name in sorted(profiles, key=lambda name: (-profiles[name], name)):
        if name == selection.profile.name or name not in selection.registry.profiles:
            continue
        with suppress(HarnessError):  # a row that the profile does not have, records of several data sets
            other = Selection(selection.targets, name, [], None)
            other.store = selection.store
            if count := _count(other):
                found.append((count, name))
    if not found:
        return ""
    shown = ", ".join(f"{count} at {name}" for count, name in found[:MOST_NAMED])
    return f"No record at profile {selection.profile.name}, but {shown}: add -p {found[0][1]}."


def _count(selection: Selection) -> int:
    """Records that fill the target's rows, each once."""
    records = selection.row_records()
    return len({record.eval_id for ref in selection.refs for record in records.get(ref, ())})
