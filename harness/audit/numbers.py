"""Numbers that stand where they should not, although each may look well by itself. At the paper's own scale only."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from harness.audit.evidence import Evidence, Finding
from harness.registry.claims import Claim
from harness.registry.declarations import METRICS, Table
from harness.verdicts.judge import DELTA

FEWEST_ROWS = 3  # that show an offset in common
METRIC = "AP"


def shifted_tables(evidence: Evidence) -> Iterator[Finding]:
    """Tables whose cells are all off by about the same: above the margin, and more alike than they are large."""
    if not evidence.profile.compare_with_paper:
        return
    for table in evidence.registry.paper_tables:
        offsets = _offsets(evidence, table)
        if len(offsets) < FEWEST_ROWS:
            continue
        mean = statistics.fmean(offsets.values())
        if abs(mean) < DELTA[METRIC] or any(abs(offset - mean) > abs(mean) / 2 for offset in offsets.values()):
            continue
        low, high = min(offsets.values()), max(offsets.values())
        yield Finding(
            "shifted table",
            (table.id,),
            f"All {len(offsets)} rows that were measured are {low:+.1f} to {high:+.1f} AP from the paper's numbers, "
            f"{mean:+.1f} on average.",
            "They have one cause in common, which is not a loss: images, weights, image size, evaluation, or the seed "
            "(rows with the same seed share initial weights and the order of images). Contrasts between rows hold; "
            "no single number is reproduced by its own merit.",
            f"Look at the common part first: harness explain {table.refs()[0]}; then another seed.",
        )


def _offsets(evidence: Evidence, table: Table) -> dict[tuple[str, ...], float]:
    """Ours minus the paper's by training, so that rows that share one count once; without rows that collapsed."""
    runs = evidence.runs_of(evidence.server) if table.split == "test-dev" else evidence.runs
    offsets = {}
    for row in table.rows:
        ref = f"{table.id}/{row.id}"
        values = runs.values(ref, METRIC) if ref in evidence.refs and ref not in runs.collapsed else []
        if values and row.published:
            offsets[runs.rows[ref].train_ids] = statistics.fmean(values) - row.published[0]
    return offsets


def baselines_at_the_better_number(evidence: Evidence) -> Iterator[Finding]:
    """Baselines that are nearer to the published number of the row that should beat them than to their own."""
    if not evidence.profile.compare_with_paper:
        return
    seen = set()
    for claim in evidence.claims:
        for ref, mean, own, better, better_ref in _compared(evidence, claim):
            if ref not in seen and abs(mean - better) < abs(mean - own):
                seen.add(ref)
                yield Finding(
                    "baseline at the better row's number",
                    (ref, claim.id),
                    f"{ref} has an AP of {mean:.1f}: the paper prints {own:.1f} for it and {better:.1f} for "
                    f"{better_ref}.",
                    "The baseline is stronger than the paper's, as stock baselines of newer codebases are. A row that "
                    "reaches its published number shows no advantage over this baseline.",
                    f"Judge by the contrast, not by the cells: harness check {ref}; and see what the baseline is made "
                    f"of: harness explain {ref}",
                )


def _compared(evidence: Evidence, claim: Claim) -> Iterator[tuple[str, float, float, float, str]]:
    """Of each contrast of a claim "a is better": b, its mean, its published number, a's, a."""
    if claim.kind != "greater" or claim.metric != METRIC:
        return
    for pair in claim.contrasts:
        own, better = _published(evidence, pair.b), _published(evidence, pair.a)
        values = evidence.runs.values(pair.b, METRIC)
        if values and own is not None and better is not None and own < better:
            yield pair.b, statistics.fmean(values), own, better, pair.a


def _published(evidence: Evidence, ref: str) -> float | None:
    _, row = evidence.registry.row(ref)
    return row.published[METRICS.index(METRIC)] if row.published else None
