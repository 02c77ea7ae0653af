"""What every command on a target begins with: registry, profile, rows, overrides, data and the store of results."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from detector.job import AnnotatedFolder, DataSource
from harness import plan as planning
from harness.plan import Plan
from harness.registry import Profile, Registry
from harness.resolve import parse_overrides
from harness.results import Store, results_folder, runs_folder


class Session:
    """A target at a profile. Raises UsageError for an unknown name, RegistryError for a wrong file."""

    def __init__(self, target: str, profile: str, overrides: list[str], data: Path | None) -> None:
        self.registry = Registry()
        self.target = target
        self.profile: Profile = self.registry.profile(profile)
        self.refs = self.registry.select(target)
        self.overrides: dict[str, Any] = parse_overrides(overrides)
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

    def plan_of(
        self, refs: list[str], seeds: int, *, root: Path | None = None, from_scratch: bool = False
    ) -> Plan:
        """A plan of any rows, as ``plan``."""
        return planning.make_plan(
            self.registry,
            refs,
            self.profile,
            seeds=seeds,
            overrides=self.overrides,
            from_scratch=from_scratch,
            data=planning.identify(self.source, root) if root is not None else None,
        )

    def reading_plans(self, refs: list[str]) -> list[Plan]:
        """What fills the rows' cells: the plan as it is and, where the profile allows it, the one from scratch."""
        root = self._named_root()
        plans = [self.plan_of(refs, 1, root=root)]
        if self.profile.without_weights == "from_scratch":
            plans.append(self.plan_of(refs, 1, root=root, from_scratch=True))
        return plans

    def notes(self, planned: Plan) -> tuple[str, ...]:
        """What departs from the paper beyond the profile's scale, for the records."""
        notes = []
        if planned.from_scratch:
            notes.append("no ImageNet weights: trained from scratch with group norm, not the paper's")
        if self.overrides:
            changed = ", ".join(f"{path}={value}" for path, value in self.overrides.items())
            notes.append(f"overridden by --set, not the paper's: {changed}")
        return tuple(notes)

    def _named_root(self) -> Path | None:
        """A COCO folder that the user named; None leaves the identity open (records of any one folder are shown)."""
        if not isinstance(self.source, AnnotatedFolder):
            return None
        if self.given_data is not None:
            return self.given_data
        return Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None


def missing(planned: Plan, store: Store) -> list[str]:
    """Ids of the trainings of which an evaluation has no record in the runs folder yet."""
    return [
        train_id
        for train_id, jobs in planned.evaluations.items()
        if not all(store.run_dir(train_id).record(job.id).exists() for job in jobs)
    ]
