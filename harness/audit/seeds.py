"""Verdicts that rest on a deviation nobody measured, and seeds that look as if they were chosen after the fact."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from harness.audit.evidence import Evidence, Finding
from harness.registry.declarations import METRICS
from harness.verdicts.judge import judge_cell

DECIDED = ("supported", "contradicted")


def provisional(evidence: Evidence) -> Iterator[Finding]:
    """Verdicts that say yes or no by an assumed deviation, or by one seed."""
    said = [f"{v.claim.id} {v.outcome}" for v in evidence.verdicts if v.provisional and v.outcome in DECIDED]
    if evidence.profile.compare_with_paper:
        said += _provisional_cells(evidence)
    if said:
        yield Finding(
            "provisional verdicts",
            tuple(said),
            f"{len(said)} verdicts say yes or no although the deviation between seeds was not measured for them.",
            "The assumed deviation does the work: another assumption gives another verdict.",
            f"Train more seeds: harness run {evidence.target} --profile {evidence.profile.name} --seeds 3",
        )


def _provisional_cells(evidence: Evidence) -> Iterator[str]:
    for ref in evidence.refs:
        table, row = evidence.registry.row(ref)
        runs = evidence.runs_of(evidence.server) if table.split == "test-dev" else evidence.runs
        for metric, published in zip(METRICS, row.published or (), strict=False):
            verdict = judge_cell(ref, metric, published, runs)
            if verdict.provisional and verdict.outcome in ("reproduced", "not reproduced"):
                yield f"{ref} {metric} {verdict.outcome}"


def gaps(evidence: Evidence) -> Iterator[Finding]:
    """Rows that lack a seed below their largest: seeds are 0, 1, 2, ..., so one is missing or was left out."""
    found = {}
    for ref, records in evidence.trainings.items():
        seeds = {record.job.train.seed for record in records}
        if missing := sorted(set(range(max(seeds))) - seeds)[:9]:
            found[ref] = f"{ref} has seeds {_listed(seeds)}, not {_listed(missing)}"
    if found:
        yield Finding(
            "seeds with gaps",
            tuple(found),
            "; ".join(found.values()) + ".",
            "A seed whose number did not please can be left out this way. The rows that are compared should have the "
            "same seeds: the seed decides the initial weights and the order of images, so equal seeds cancel out.",
            f"Train the seeds that are missing: harness run {next(iter(found))} --profile {evidence.profile.name} "
            f"--seeds {max(len(evidence.trainings[ref]) for ref in found) + 1}",
        )


def added_until_decided(evidence: Evidence) -> Iterator[Finding]:
    """Claims whose rows have more seeds than most rows, and which are decided only with the seeds added last."""
    distinct = {tuple(record.train_id for record in records) for records in evidence.rows.values()}
    if not distinct:
        return
    usual = statistics.mode(sorted(map(len, distinct)))
    decided = [
        verdict
        for verdict in evidence.verdicts
        if verdict.outcome in DECIDED and any(len(evidence.rows.get(ref, ())) > usual for ref in verdict.claim.refs())
    ]
    if not decided:
        return
    first = {ref: sorted(records, key=lambda record: record.finished)[:usual] for ref, records in evidence.rows.items()}
    before = {verdict.claim.id: verdict.outcome for verdict in evidence.verdicts_on(evidence.runs_of(first))}
    for verdict in decided:
        claim = verdict.claim
        if before[claim.id] != verdict.outcome:
            more = {ref: len(evidence.rows[ref]) for ref in claim.refs() if len(evidence.rows.get(ref, ())) > usual}
            yield Finding(
                "seeds added until a verdict",
                (claim.id, *more),
                f"{verdict.outcome} with {max(more.values())} seeds, {before[claim.id]} with the {usual} that most "
                "rows have and that were finished first.",
                "If seeds were added until the verdict came, it is wrong more often than the 5% that are stated: each "
                "look is another chance.",
                "Give all rows of the table the same number of seeds, declared beforehand: "
                f"harness run {claim.refs()[0].partition('/')[0]} --profile {evidence.profile.name} "
                f"--seeds {max(more.values())}",
            )


def _listed(seeds: set[int] | list[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
