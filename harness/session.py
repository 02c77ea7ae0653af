"""What every command on a target begins with: registry, profile, rows, overrides, data and the store of results."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from detector.job import AnnotatedFolder, DataSource, TestSettings
from detector.rundir import RunDir
from harness import plan as planning
from harness.check import CheckView, build_check
from harness.declarations import Profile
from harness.evidence import RowRuns
from harness.ledger import table_notes
from harness.plan import Plan, named_data
from harness.registry import Registry
from harness.resolve import parse_overrides
from harness.results import Store, results_folder, row_records, row_runs, runs_folder
from harness.tables import TableView, build_table

TEST_DEV = "test-dev2017"


class Session:
    """A target at a profile. Raises UsageError for an unknown name, RegistryError for a wrong file."""

    def __init__(
        self, target: str, profile: str, overrides: list[str], data: Path | None, batch_size: int | None = None
    ) -> None:
        self.registry = Registry()
        self.target = target
        self.profile: Profile = self.registry.profile(profile)
        self.refs = self.registry.select(target, profile)
        self.overrides: dict[str, Any] = parse_overrides(overrides)
        self.batch_size = batch_size
        self.given_data = data
        self.store = Store(runs_folder(), results_folder())

    @cached_property
    def source(self) -> DataSource:
        """The data that the profile's runs name, its identity still open where it is a folder."""
        return planning.data_source(self.registry, self.refs, self.profile, self.overrides)

    @property
    def identity_is_open(self) -> bool:
        """Whether the runs' ids wait for a data folder to be named."""
        return isinstance(self.source, AnnotatedFolder) and self._named_root() is None

    def data_root(self) -> Path:
        """Where the data lies. Raises UsageError where it must be named and was not."""
        return planning.data_root(self.source, self.given_data, self.store.runs)

    def plan(self, seeds: int, *, root: Path | None = None, from_scratch: bool = False) -> Plan:
        """The target's plan; with ``root``, or a folder named by --data or HARNESS_DATA, over that very data."""
        return self.plan_of(self.refs, seeds, root=root or self._named_root(), from_scratch=from_scratch)

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
            data=planning.identify(self.source, root) if root is not None else None,
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
        found = row_records(self.store, self._plans_of_all, split=split)
        return row_runs(found, split="test-dev" if split else "minival")

    @cached_property
    def _plans_of_all(self) -> list[Plan]:
        refs = [ref for table in self.registry.tables.values() for ref in table.refs(self.profile.name)]
        return self.reading_plans(refs)

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
        """A COCO folder that the user named; None leaves the identity open (records of any one folder are shown)."""
        return named_data(self.given_data) if isinstance(self.source, AnnotatedFolder) else None


def missing(planned: Plan, store: Store) -> list[str]:
    """Ids of the trainings of which an evaluation has no record in the runs folder yet."""
    return [
        train_id
        for train_id, jobs in planned.evaluations.items()
        if not all(store.run_dir(train_id).record(job.id).exists() for job in jobs)
    ]


def table_views(session: Session) -> list[TableView]:
    """The target's tables, filled with what is finished; a row as target gives its table with that line only."""
    runs, server = session.runs(), session.runs(TEST_DEV)
    views = []
    for table in session.registry.tables.values():
        wanted = {row for row in (f"{table.id}/{row.id}" for row in table.rows) if _belongs(row, session.target)}
        if wanted:
            seen = runs | server if table.split == "test-dev" else runs
            trained = [ref for ref in table.refs(session.profile.name) if ref in wanted]
            notes = table_notes(session.registry, session.profile, trained)
            views.append(build_table(table, session.profile, seen, wanted, notes))
    return views


def _belongs(ref: str, target: str) -> bool:
    return not ref.startswith("ablations/") if target == "all" else ref == target or ref.startswith(f"{target}/")


def judge(session: Session) -> CheckView:
    """Verdicts on the target's cells and claims."""
    return build_check(
        session.target,
        session.refs,
        list(session.registry.tables.values()),
        session.registry.claims,
        session.profile,
        runs=session.runs(),
        server=session.runs(TEST_DEV),
    )


def find_run(session: Session, seed: int, root: Path) -> tuple[RunDir, Plan]:
    """The finished training of one row and seed over the data at ``root``, and the plan that holds its evaluation.

    Raises UsageError where it was not trained.
    """
    _require_one_row(session)
    gone: RunDir | None = None
    for from_scratch in (False, True) if session.profile.without_weights == "from_scratch" else (False,):
        planned = session.plan(seed + 1, root=root, from_scratch=from_scratch)
        (cell,) = [cell for cell in planned.cells if cell.seed == seed]
        run = session.store.run_dir(cell.job.train.id)
        if run.final.exists():
            return run, planned
        gone = run if run.has_records() else gone
    raise _untrained(session, seed, gone)


def find_trained(session: Session, seed: int) -> tuple[RunDir, TestSettings]:
    """The finished run of one row and seed, found by its record (no data needed), and its test settings.

    Raises UsageError where it was not trained.
    """
    _require_one_row(session)
    gone: RunDir | None = None
    for record in row_records(session.store, session.reading_plans(session.refs)).get(session.refs[0], []):
        run = session.store.run_dir(record.train_id)
        if record.job.train.seed != seed:
            continue
        if run.final.exists():
            return run, record.job.test
        gone = run if run.has_records() else gone
    raise _untrained(session, seed, gone)


def _require_one_row(session: Session) -> None:
    if len(session.refs) != 1:
        raise UsageError(f"One row is needed, such as table2/L6; {session.target} has {len(session.refs)}.")


def _untrained(session: Session, seed: int, gone: RunDir | None) -> UsageError:
    """gone: the folder of a finished run whose weights were removed."""
    command = f"harness run {session.target} --profile {session.profile.name} --seeds {seed + 1}"
    if gone is not None:
        return UsageError(
            f"{session.target}, seed {seed}, is finished, but its weights {gone.final} are gone. To train it again, "
            f"move {gone.root} away, then: {command}"
        )
    return UsageError(
        f"No trained weights of {session.target}, seed {seed}, profile {session.profile.name} in {session.store.runs}. "
        f"Train them: {command}"
    )
