"""What ``harness check`` ends with: what its verdicts show in plain words, and the command that would decide more."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.console.layout import text_width, wrapped
from harness.figures.rows.shown import profile_runs
from harness.planning.budget import PriceList, as_tests
from harness.planning.seed_choice import cost, least_seeds
from harness.planning.selection import Selection
from harness.registry.claims import Claim
from harness.report.check import CheckView
from harness.report.costs import rough_duration
from harness.verdicts.estimates import ALPHA
from harness.verdicts.judge import ClaimVerdict, judge_claims
from harness.verdicts.measure import SEEDS_TO_TEST_A_COLLAPSE
from harness.verdicts.power import Line, Wanted


@dataclass(frozen=True)
class Step:
    """Rows and seeds that would decide a claim, if the paper's own difference is the truth (with 80% power).

    rows: each once. runs: trainings that are left to do. hours: of one device, all together.
    """

    claim: Claim
    rows: tuple[str, ...]
    seeds: int
    runs: int
    hours: float
    unit: str
    command: str


def ending(view: CheckView, selection: Selection, width: int | None = None) -> str:
    """Two or three sentences and one command, from the verdicts of ``check`` and the costs of ``plan``.

    Empty for a target that has only rows of the user's own. width: of the terminal, if it is one.
    """
    if view.paper is None:
        return ""
    lines = [_measured(selection), *_decided(view, selection)]
    if (step := next_step(selection)) is not None:
        lines += [*_step(step), f"  {step.command}"]
    within = text_width(width)
    return "\n".join(wrapped(line, within) for line in ("In short", *lines) if line)


def next_step(selection: Selection) -> Step | None:
    """Of all claims of the paper that the profile can decide and has not, the one that takes the fewest device-hours.

    None where all are decided or were measured with so many seeds, and where no cost is known.
    """
    name = selection.profile.name
    family = [claim for claim in selection.registry.claims if name in claim.decidable_in]
    measured = profile_runs(selection, own=False)
    verdicts = judge_claims(selection.registry.claims, measured, name)
    decided = {verdict.claim.id for verdict in verdicts if _is_decided(verdict)}
    left = {claim.id: claim for claim in family if claim.id not in decided}
    if not left:
        return None
    prices = PriceList(selection, list(left.values()))
    wanted, _ = as_tests(list(left.values()), prices)
    done = prices.done()
    steps = [
        step
        for claim in wanted
        if (step := _step_of(left[claim.id], claim, done, prices, ALPHA / len(family), selection)) is not None
    ]
    # What has its seeds and is undecided all the same is a matter of luck; the same seeds give the same numbers again.
    open_ones = (step for step in steps if any(len(measured.values(ref, "AP")) < step.seeds for ref in step.rows))
    return min(open_ones, key=_dearness, default=None)


def _dearness(step: Step) -> tuple[float, int, bool]:
    """Of equally dear ones the surest comes first: "no usable detector", without a number, says the most."""
    return round(step.hours, 3), step.seeds, step.claim.published is not None


def _is_decided(verdict: ClaimVerdict) -> bool:
    return verdict.outcome in ("supported", "contradicted") and not verdict.provisional


def _step_of(
    claim: Claim, wanted: Wanted, done: dict[Line, int], prices: PriceList, alpha: float, selection: Selection
) -> Step | None:
    """One command gives all rows of a claim the same seeds: as many as the one that needs the most."""
    if wanted.by_ratio:
        seeds = SEEDS_TO_TEST_A_COLLAPSE
    else:
        least = least_seeds([wanted], done, prices.price(), alpha)
        if least is None:
            return None
        seeds = max(least[line] for line in wanted.lines)
    rows = tuple(next(ref for ref in claim.refs() if ref in line.refs) for line in wanted.lines)
    price = prices.price()
    every = dict.fromkeys(wanted.lines, seeds)
    left = {line: min(done.get(line, 0), seeds) for line in wanted.lines}
    hours = cost(every, price)
    if hours == 0:
        return None
    trainings = {(line.training, seed) for line in wanted.lines for seed in range(left[line], seeds)}
    return Step(
        claim=claim,
        rows=rows,
        seeds=seeds,
        runs=len(trainings),
        hours=hours,
        unit=prices.first[wanted.lines[0]].unit,
        command=f"harness run {' '.join(rows)} --profile {selection.profile.name} --seeds {seeds}",
    )


def _measured(selection: Selection) -> str:
    """``Measured at profile tiny: 8 of 8 rows, 1 seed each; AP from 20.7 (table2/focal) to 23.9 (table2/L10).``"""
    runs = selection.runs()
    found = {ref: runs[ref] for ref in selection.refs if ref in runs}
    where = f"at profile {selection.profile.name}"
    of = "" if selection.target == "all" else f" of {selection.target}"
    if not found:
        return f"None of the {len(selection.refs)} rows{of} was run {where}."
    means = {ref: statistics.fmean(values) for ref, row in found.items() if (values := row.values("AP"))}
    seeds = sorted({len(row.values("AP")) for row in found.values()})
    counts = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    each = f"{counts} seed{'' if seeds[-1] == 1 else 's'} each"
    text = f"Measured {where}: {len(found)} of {len(selection.refs)} rows{of}, {each}"
    if len(means) > 1:
        low, high = (pick(means, key=means.__getitem__) for pick in (min, max))
        text += f"; AP from {means[low]:.1f} ({low}) to {means[high]:.1f} ({high})"
    return f"{text}."


def _decided(view: CheckView, selection: Selection) -> list[str]:
    """How many claims about these rows are decided, and what a single seed leaves open."""
    assert view.paper is not None
    can = [verdict for verdict in view.paper.claims if verdict.outcome != "not decidable here"]
    if not can:
        return ["This profile can decide none of the paper's claims about these rows."]
    counts = Counter(verdict.outcome for verdict in can if _is_decided(verdict))
    provisional = sum(verdict.provisional for verdict in can)
    said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("supported", "contradicted"))
    rest = len(can) - sum(counts.values()) - provisional
    text = f"Of the {len(can)} claims about these rows that it can decide: {said}, {rest} undecided"
    lines = [f"{text}{f', {provisional} only provisionally decided' if provisional else ''}."]
    runs = selection.runs()
    if any(len(runs[ref].values("AP")) == 1 for ref in selection.refs if ref in runs):
        lines.append("One seed per row shows a collapse and no finer difference: that takes two seeds or more.")
    return lines


def _step(step: Step) -> Sequence[str]:
    rows = f"{len(step.rows)} row{'' if len(step.rows) == 1 else 's'}"
    time = rough_duration(step.hours * 3600)
    device = "one GPU" if step.unit == "GPU" else "one CPU core"
    return (
        f"What decides something at the least cost is whether {step.claim.id} holds: {step.claim.text} It takes {rows} "
        f"with {step.seeds} seeds, {step.runs} trainings to do, about {time} of {device} in all:",
    )
