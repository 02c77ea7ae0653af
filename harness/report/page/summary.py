"""The first screen: does the paper hold, how sure is that, what is missing, and what would it cost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from detector.errors import UsageError
from harness.planning.budget import BudgetPlan, plan_budget
from harness.planning.costs import RunCost, plan_costs
from harness.planning.plan import Plan
from harness.report.check import Verdicts
from harness.report.page.grids import SIGNS, TONES
from harness.report.page.scales import Scale
from harness.report.text import CLAIM_OUTCOMES
from harness.verdicts.estimates import ALPHA, CellOutcome

CELL_OUTCOMES: tuple[CellOutcome, ...] = ("reproduced", "consistent", "inconclusive", "not reproduced")
WITHOUT_LIMIT = "1000000"  # device-hours, a century of one GPU: whatever it takes


@dataclass(frozen=True)
class Fact:
    """A line of the small table. tone: of a verdict, "" for none."""

    name: str
    value: str
    tone: str = ""

    @property
    def sign(self) -> str:
        """The verdict's sign."""
        return SIGNS.get(self.tone, "")


@dataclass(frozen=True)
class Summary:
    """What the first screen says of one scale. commands: what to type next, each after what it is for."""

    scale: str
    title: str
    tone: str
    answer: str
    sentences: tuple[str, ...]
    facts: tuple[Fact, ...]
    commands: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Missing:
    """Rows without a run, the trainings that fill them once, and their device-hours; None where a cost is unknown."""

    refs: tuple[str, ...]
    trainings: int
    hours: float | None
    unit: str


def summary(scale: Scale) -> Summary:
    """The sentences and the counts of one scale, of the paper; of the user's own where the target is theirs."""
    verdicts = scale.check.paper or scale.check.own or Verdicts((), (), 0)
    missing = _missing(scale)
    tone, answer = _answer(scale, verdicts)
    sentences = [*_how_sure(scale, verdicts), *_cells_sentence(scale, verdicts), _missing_sentence(scale, missing)]
    asked = f"{scale.selection.target} --profile {scale.name}"
    commands = [("Train what is missing", f"harness run {asked}")] if missing.refs else []
    if (decided := _undecided_sentence(scale, verdicts)) is not None:
        sentences.append(decided[0])
        commands.append(("Plan what decides the rest", f"harness plan {asked} --budget {decided[1]}"))
    return Summary(
        scale=scale.name,
        title=scale.title,
        tone=tone,
        answer=answer,
        sentences=tuple(sentences),
        facts=tuple(_facts(scale, verdicts, missing)),
        commands=tuple(commands),
    )


def _answer(scale: Scale, verdicts: Verdicts) -> tuple[str, str]:
    """The one sentence, and its tone."""
    counts = Counter(verdict.outcome for verdict in verdicts.claims)
    decidable = len(verdicts.claims) - counts["not decidable here"]
    if not scale.records:
        return "open", f"Not known: no run at profile {scale.name} is finished."
    if not verdicts.claims:
        return "open", "Not known: no claim is about these rows."
    if not decidable:
        return "open", f"Not known: none of these claims can be decided at profile {scale.name}."
    what = f"{decidable} claims that this scale can decide"
    supported, against, undecided = counts["supported"], counts["contradicted"], counts["undecided"]
    failed = sum(row.verdicts[m].outcome == "not reproduced" for row in verdicts.cells for m in row.verdicts)
    held = f"{_none(supported)} of the {what} {_are(supported)} supported"
    rest = f", {_none(against)} {_are(against)} contradicted, {_none(undecided)} {_are(undecided)} undecided"
    if decidable == 1:
        outcome = "supported" if supported else "contradicted" if against else "undecided"
        held, rest = f"the one claim that this scale can decide is {outcome}", ""
    if against or failed:
        cells = f" {failed} cells are not reproduced." if failed > 1 else " One cell is not reproduced." * failed
        return "bad", f"Not in every point: {held}{rest}.{cells}"
    if supported == decidable:
        held = f"all {what} are supported" if decidable > 1 else held
        return "good", f"Yes, as far as this scale can tell: {held}."
    lead = "So far, yes" if supported > undecided else "Not decided yet"
    return "fair" if supported > undecided else "open", f"{lead}: {held}{rest}."


def _how_sure(scale: Scale, verdicts: Verdicts) -> list[str]:
    counts = Counter(verdict.outcome for verdict in verdicts.claims)
    if not scale.records or not verdicts.claims:
        return []
    if counts["not decidable here"] == len(verdicts.claims):
        return ["Each claim stands below with the reason why it is not decidable at this scale."]
    seeds = sorted({len(item.kept) for item in scale.chosen.values() if item.kept})
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = [
        f"How sure: {shown} seed{'s' if seeds[-1] > 1 else ''} per row; the chance that even one claim is wrongly "
        f"called supported is at most {100 * ALPHA:.0f}% (Holm's correction)."
    ]
    if provisional := sum(verdict.provisional for verdict in verdicts.claims):
        parts.append(
            f"{_count(provisional, 'verdict is', 'verdicts are')} provisional: a row has too few seeds to test."
        )
    if elsewhere := counts["not decidable here"]:
        parts.append(
            f"{_count(elsewhere, 'claim is', 'claims are')} not decidable at this scale, each with its reason."
        )
    return parts


def _cells_sentence(scale: Scale, verdicts: Verdicts) -> list[str]:
    if not scale.check.compared:
        return ["The numbers of this scale are not the paper's, so no cell of its tables is compared with ours."]
    found = Counter(row.verdicts[metric].outcome for row in verdicts.cells for metric in row.verdicts)
    total = sum(found.values())
    if not total:
        return []
    words = ", ".join(f"{found[name]} {name}" for name in CELL_OUTCOMES if found[name])
    return [f"Of {_count(total, 'number', 'numbers')} compared with the paper's: {words}."]


def _missing(scale: Scale) -> Missing:
    """What has no run at all, by the records, and what one run of each would cost."""
    refs = tuple(ref for ref in scale.selection.refs if ref not in scale.chosen)
    if not refs:
        return Missing((), 0, 0.0, "GPU")
    costs = _costs(scale, scale.selection.plan_of(list(refs), 1))
    hours = [cost.device_hours for cost in costs]
    known = None if None in hours else sum(value for value in hours if value is not None)
    return Missing(refs, len(costs), known, costs[0].unit if costs else "GPU")


def _costs(scale: Scale, plan: Plan) -> list[RunCost]:
    return plan_costs(plan, scale.selection.rates(), scale.selection.store, plan.trainings)


def _missing_sentence(scale: Scale, missing: Missing) -> str:
    total = len(scale.selection.refs)
    if not missing.refs:
        return f"Every row that this scale trains has a run ({_count(total, 'row', 'rows')})."
    hours = "an unknown number of hours" if missing.hours is None else _hours(missing.hours, missing.unit)
    have = "has" if len(missing.refs) == 1 else "have"
    return (
        f"{len(missing.refs)} of {_count(total, 'row', 'rows')} {have} no run: one run of each takes "
        f"{_count(missing.trainings, 'training', 'trainings')} and {hours}."
    )


def _undecided_sentence(scale: Scale, verdicts: Verdicts) -> tuple[str, str] | None:
    """What it takes to decide the rest, and as a budget; of claims that rows without any run hold up, too."""
    undecided = {verdict.claim.id for verdict in verdicts.claims if verdict.outcome == "undecided"}
    if not undecided or (plan := _budget(scale)) is None:
        return None
    within = [name for name in plan.decided if name in undecided]
    if not within or not plan.spent:
        return None
    which = "the undecided claim" if len(undecided) == 1 else f"the {len(undecided)} undecided claims"
    if len(within) < len(undecided):
        which = f"{len(within)} of {which}"
    again = "; runs whose records are only committed are made again" if plan.recorded else ""
    budget = f"{math.ceil(plan.spent)}{plan.unit.lower()}h"
    return (
        f"Deciding {which} too takes {_count(plan.num_runs, 'run', 'runs')}, {_hours(plan.spent, plan.unit)}: every "
        f"claim that this scale can decide then is, with 80% power{again}.",
        budget,
    )


def _budget(scale: Scale) -> BudgetPlan | None:
    for unit in ("gpuh", "cpuh"):
        try:
            return plan_budget(scale.selection, f"{WITHOUT_LIMIT}{unit}")
        except UsageError:  # of the other device; or no claim is decidable
            continue
    return None


def _facts(scale: Scale, verdicts: Verdicts, missing: Missing) -> list[Fact]:
    counts = Counter(verdict.outcome for verdict in verdicts.claims)
    facts = [Fact(f"Claims {name}", str(counts[name]), TONES[name]) for name in CLAIM_OUTCOMES]
    if scale.check.compared:
        found = Counter(row.verdicts[metric].outcome for row in verdicts.cells for metric in row.verdicts)
        facts += [Fact(f"Numbers {name}", str(found[name]), TONES[name]) for name in CELL_OUTCOMES]
    rows = len(scale.selection.refs)
    facts.append(Fact("Rows with a run", f"{rows - len(missing.refs)} of {rows}"))
    facts.append(Fact("Finished trainings", str(len({record.train_id for record in scale.records}))))
    if begun := _in_flight(scale):
        facts.append(Fact("Trainings on their way", str(begun)))
    if missing.refs:
        cost = "unknown" if missing.hours is None else _hours(missing.hours, missing.unit)
        facts.append(Fact("One run of each missing row", cost))
    return facts


def _in_flight(scale: Scale) -> int:
    """Trainings without a record that go on; one that several rows share counts once."""
    rows = [row for view in scale.tables for row in view.rows]
    return len({(min(row.ref, *row.also, row.ref), run.seed) for row in rows for run in row.in_flight if run.lives})


def _hours(hours: float, unit: str) -> str:
    device = "GPU" if unit == "GPU" else "CPU process"
    if hours < 1:
        return f"{_count(max(1, round(60 * hours)), 'minute', 'minutes')} of one {device}"
    return f"{hours:,.0f} {device}-hours" if hours >= 10 else f"{hours:.1f} {device}-hours"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _none(number: int) -> str:
    return str(number) if number else "none"


def _are(number: int) -> str:
    return "is" if number <= 1 else "are"


def in_one_line(found: Summary) -> str:
    """For a terminal."""
    return f"{found.scale}: {found.answer}"
