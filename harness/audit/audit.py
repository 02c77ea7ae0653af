"""All checks, one after another, and what could not be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from harness.audit import conditions, files, numbers, seeds, settings
from harness.audit.evidence import Evidence, Finding, gather
from harness.planning.selection import Selection

Check = Callable[[Evidence], Iterator[Finding]]
# The gravest first: evidence that is none, then comparisons that are none, then verdicts that say too much.
CHECKS: tuple[Check, ...] = (
    files.unreadable,
    files.duplicates,
    files.two_results,
    files.orphans,
    settings.beyond_the_ledger,
    settings.unequal_contrasts,
    conditions.mixed,
    conditions.ill_runs,
    conditions.collapsed,
    numbers.shifted_tables,
    numbers.baselines_at_the_better_number,
    seeds.provisional,
    seeds.gaps,
    seeds.added_until_decided,
)


@dataclass(frozen=True)
class AuditView:
    """What an audit found. ``unchecked``: what the records do not tell, in words."""

    target: str
    profile: str
    records: int
    rows: int
    findings: tuple[Finding, ...]
    unchecked: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"checks": len(CHECKS), **asdict(self)}

    @property
    def line(self) -> str:
        """The whole in one line, for other commands."""
        if not self.findings:
            return f"Audit: {len(CHECKS)} checks found nothing."
        names = ", ".join(dict.fromkeys(finding.check for finding in self.findings))
        command = f"harness audit {self.target} --profile {self.profile}"
        return f"Audit: {_number(len(self.findings), 'finding')} ({names}); next: {command}"


def audit(selection: Selection) -> AuditView:
    """Look at everything that bears on the target."""
    evidence = gather(selection)
    return AuditView(
        target=evidence.target,
        profile=evidence.profile.name,
        records=len(evidence.files),
        rows=len(evidence.concerned),
        findings=tuple(finding for check in CHECKS for finding in check(evidence)),
        unchecked=tuple(_unchecked(evidence)),
    )


def _unchecked(evidence: Evidence) -> Iterator[str]:
    """In whole sentences, what nobody can know of these records."""
    if not evidence.profile.compare_with_paper:
        yield (
            f"Shifted tables and baselines: the numbers of profile {evidence.profile.name} are at another scale than "
            "the paper's."
        )
    old = [record for record in evidence.files.values() if record.format == 1]
    if old:
        yield (
            f"Edits, weights, images and health of {len(old)} records of format 1, which has no hash of its content, "
            "no digests of its inputs and no findings of the training; their code and environment are the evaluation's."
        )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
