"""What an audit looks at: every record file of a profile, and the rows that they fill; and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from detector.errors import MissingLossError, RecordError
from detector.runs.job import EvalJob
from detector.runs.record import Record
from harness.planning.rows import row_runs
from harness.planning.selection import TEST_DEV, Selection
from harness.registry.claims import Claim
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.store.records import Store, without_data
from harness.store.replaced import record_files
from harness.verdicts.judge import ClaimVerdict, judge_claims
from harness.verdicts.runs import ProfileRuns


@dataclass(frozen=True)
class Finding:
    """Something that a reader of the numbers must know. check: its short name; where: rows, claims or files."""

    check: str
    where: tuple[str, ...]
    found: str
    means: str
    do: str


@dataclass(frozen=True)
class Evidence:
    """Everything of one profile, whatever the target. ``refs``: the rows of the target.

    ``files``: every record that can be read, with its path; ``unreadable``: the others, with what is wrong.
    ``rows``: by row, the records that fill it, in the order of their seeds; ``server``: those with the answer of the
    evaluation server for test-dev. ``jobs``: what rows evaluate, with seed and data left open.
    """

    target: str
    refs: tuple[str, ...]
    registry: Registry
    profile: Profile
    files: Mapping[Path, Record]
    unreadable: Mapping[Path, str]
    rows: Mapping[str, Sequence[Record]]
    server: Mapping[str, Sequence[Record]]
    jobs: frozenset[EvalJob]

    @property
    def whole(self) -> bool:
        """Whether the audit is of everything, so that files of no row concern it too."""
        return "all" in self.target.split()

    @cached_property
    def runs(self) -> ProfileRuns:
        """The rows as the verdicts on the paper see them."""
        return self.runs_of(self.rows)

    def runs_of(self, rows: Mapping[str, Sequence[Record]]) -> ProfileRuns:
        """The same of other records."""
        found = row_runs({ref: list(records) for ref, records in rows.items()}, split="minival")
        return ProfileRuns(found, self.profile.assumed_sd).without(self.registry.own_rows)

    @cached_property
    def claims(self) -> list[Claim]:
        """The paper's claims about a row of the target; of everything, all."""
        refs = set(self.refs)
        return [claim for claim in self.registry.claims if self.whole or not refs.isdisjoint(claim.refs())]

    @cached_property
    def verdicts(self) -> list[ClaimVerdict]:
        """On ``claims``, corrected for all of the profile's."""
        return self.verdicts_on(self.runs)

    def verdicts_on(self, runs: ProfileRuns) -> list[ClaimVerdict]:
        """The same by other runs."""
        asked = {claim.id for claim in self.claims}
        judged = judge_claims(self.registry.claims, runs, self.profile.name)
        return [verdict for verdict in judged if verdict.claim.id in asked]

    @cached_property
    def concerned(self) -> tuple[str, ...]:
        """The rows of the target and those that claims compare them with, where there are records."""
        named = [*self.refs, *(ref for claim in self.claims for ref in claim.refs())]
        return tuple(ref for ref in dict.fromkeys(named) if self.rows.get(ref))

    @cached_property
    def trainings(self) -> dict[str, Sequence[Record]]:
        """The same rows with their records; of rows that share their records, the first."""
        distinct: dict[tuple[str, ...], str] = {}
        for ref in self.concerned:
            distinct.setdefault(tuple(record.eval_id for record in self.rows[ref]), ref)
        return {ref: self.rows[ref] for ref in distinct.values()}


def gather(selection: Selection) -> Evidence:
    """Read it all. Raises RecordError nowhere: what cannot be read is evidence too."""
    files, unreadable = _read(selection.store, selection.profile.name)
    rows, server = selection.row_records(), selection.row_records(TEST_DEV)
    return Evidence(
        target=selection.target,
        refs=tuple(selection.refs),
        registry=selection.registry,
        profile=selection.profile,
        files=files,
        unreadable=unreadable,
        rows={ref: records for ref, records in rows.items() if records},
        server={ref: records for ref, records in server.items() if records},
        jobs=frozenset(map(opened, selection.row_jobs())),
    )


def opened(job: EvalJob) -> EvalJob:
    """An evaluation with its seed, its split and what its data folder held left open, as a row names it."""
    return without_data(replace(job, train=replace(job.train, seed=0), split=None))


def _read(store: Store, profile: str) -> tuple[dict[Path, Record], dict[Path, str]]:
    """Records of the profile by path, the committed first; and what is wrong with the files that are none."""
    files: dict[Path, Record] = {}
    unreadable: dict[Path, str] = {}
    for path in _paths(store, profile):
        try:
            record = store.record_at(path)
        except MissingLossError:
            continue  # its package is not here; every table leaves it out, and says so
        except RecordError as error:
            unreadable[path] = str(error)
            continue
        if record.profile == profile:
            files[path] = record
    return files, unreadable


def _paths(store: Store, profile: str) -> Iterator[Path]:
    """Committed records, then those in run folders, which are named by an id: one that was set aside is not counted."""
    yield from sorted(store.results.glob(f"records/{profile}/*.json"))
    yield from record_files(store.runs)
