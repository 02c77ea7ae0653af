"""``harness plan --budget``: the claims of a target as tests of priced rows, and the choice that a budget buys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.job import EvalJob
from harness.planning.costs import RunCost, run_cost
from harness.planning.gpus import GpuSet
from harness.planning.plan import Cell
from harness.planning.rates import Unit
from harness.planning.rows import families, pool_of
from harness.planning.seed_choice import MAX_SEEDS, Choice, Open, Price, choose
from harness.planning.selection import Selection
from harness.registry.claims import Claim, Contrast
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.verdicts.estimates import ALPHA
from harness.verdicts.measure import shared_variance
from harness.verdicts.power import Line, Test, Wanted
from harness.verdicts.runs import ProfileRuns


@dataclass(frozen=True)
class LinePlan:
    """Rows that are one run: seeds in all, those of them that are done, and device-hours to spend."""

    refs: tuple[str, ...]
    seeds: int
    done: int
    hours: float


@dataclass(frozen=True)
class BudgetPlan:
    """What a budget buys. Hours are device-hours of ``unit``.

    ``speed``: per backbone, where its times come from. ``decided``: claims with their power. ``provisional``: those of
    them that one seed per row decides by a ratio. ``open``: what each further claim would cost on top. ``impossible``:
    claims for which no number of seeds can be named, with the reason. ``elsewhere``: claims that this profile's runs
    cannot decide at all. ``recorded``: evaluations that the plan would repeat, since only the results folder has them.
    ``unknown_share``: whether for some test nobody has measured what rows of one seed have in common, so that the seeds
    are those of independent runs, the safe side.
    """

    profile: str
    unit: Unit
    budget: float
    spent: float
    num_runs: int
    speed: dict[str, str]
    lines: tuple[LinePlan, ...]
    decided: dict[str, float]
    provisional: tuple[str, ...]
    open: tuple[Open, ...]
    impossible: dict[str, str]
    elsewhere: tuple[str, ...]
    commands: tuple[str, ...]
    recorded: int
    unknown_share: bool


def plan_budget(selection: Selection, text: str, gpus: GpuSet | None = None) -> BudgetPlan:
    """Choose rows and seeds for ``text`` (such as 400gpuh), for the claims that name a row of the selection's target.

    Of the paper's claims; of the user's own where the target is a table or row of theirs. gpus: those that the hours
    are of; None for those that finished runs had.

    Raises UsageError for a budget that cannot be read or is of another device than the runs, and where no claim is
    decidable.
    """
    hours, unit = parse_budget(text)
    name = selection.profile.name
    own = set(selection.refs) <= selection.registry.own_rows
    everyone = selection.registry.own_claims if own else selection.registry.claims
    family = [claim for claim in everyone if name in claim.decidable_in]
    refs = set(selection.refs)
    asked = [claim for claim in everyone if "all" in selection.targets or not refs.isdisjoint(claim.refs())]
    claims = [claim for claim in asked if claim in family]
    if not claims:
        raise UsageError(
            f"The runs of profile {name} decide no claim about {selection.target}, whatever is spent. "
            f"Run 'harness check {selection.target} --profile {name}' for the reasons."
        )
    prices = PriceList(selection, claims, own=own, gpus=gpus)
    prices.require(unit)
    wanted, impossible = as_tests(claims, prices)
    price, done = prices.price(), prices.done()
    choice = choose(wanted, done=done, budget=hours, price=price, alpha=ALPHA / len(family))
    lines = _lines(choice, wanted, done, price)
    return BudgetPlan(
        profile=name,
        unit=unit,
        budget=hours,
        spent=choice.hours,
        num_runs=_num_runs(choice, price),
        speed={cost.backbone: cost.seconds_per_iteration.whole_text() for cost in prices.first.values()},
        lines=lines,
        decided=choice.decided,
        provisional=tuple(claim.id for claim in wanted if claim.by_ratio and claim.id in choice.decided),
        open=choice.open,
        impossible=impossible | dict.fromkeys(choice.beyond, f"it takes more than {MAX_SEEDS} seeds per row"),
        elsewhere=tuple(claim.id for claim in asked if claim not in family),
        commands=tuple(
            f"harness run {line.refs[0]} --profile {name} --seeds {line.seeds}" for line in lines if line.hours > 0
        ),
        recorded=prices.recorded(choice),
        unknown_share=any(test.share == 0.0 and test.distances for claim in wanted for test in claim.tests),
    )


def parse_budget(text: str) -> tuple[float, Unit]:
    """Device-hours and their device of ``400gpuh`` or ``8cpuh``. Raises UsageError for anything else, and for 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(gpu|cpu)h", text.lower())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"--budget takes device-hours such as 400gpuh, or 8cpuh for runs on the CPU; got {text!r}.")
    return float(match[1]), "GPU" if match[2] == "gpu" else "CPU"


class PriceList:
    """The lines that claims need, with what each costs here. ``own``: the claims are the user's, not the paper's."""

    def __init__(
        self, selection: Selection, claims: Sequence[Claim], *, own: bool = False, gpus: GpuSet | None = None
    ) -> None:
        self.selection = selection
        self.registry: Registry = selection.registry
        refs = list(dict.fromkeys(ref for claim in claims for ref in claim.refs()))
        plan, *_ = selection.reading_plans(refs)
        collapsing = {pair.a for claim in claims if claim.kind == "collapses" for pair in claim.contrasts}
        self.rates = selection.rates(gpus)
        every = ProfileRuns(selection.runs(), selection.profile.assumed_sd)
        self.runs = every if own else every.without(self.registry.own_rows)
        cells: dict[str, list[Cell]] = {}
        for cell in plan.cells:
            cells.setdefault(cell.job.id, []).append(cell)
        names = families({cell.ref: cell.job.train for cell in plan.cells if cell.seed == 0})
        self.jobs: dict[Line, EvalJob] = {}
        for same in cells.values():
            train = same[0].job.train
            own = not collapsing.isdisjoint(cell.ref for cell in same)
            line = Line(
                tuple(cell.ref for cell in same), train.id, None if own else f"{pool_of(train)}, {names[same[0].ref]}"
            )
            self.jobs[line] = same[0].job
        self.by_ref = {ref: line for line in self.jobs for ref in line.refs}
        self.first = {line: self.cost((line,), 0) for line in self.jobs}

    def cost(self, lines: tuple[Line, ...], seed: int) -> RunCost:
        """What is left of one seed of a training with the evaluations of ``lines``."""
        train = replace(self.jobs[lines[0]].train, seed=seed)
        evaluations = [replace(self.jobs[line], train=train) for line in lines]
        return run_cost(self.rates, train, evaluations, self.selection.store.run_dir(train.id))

    def require(self, unit: Unit) -> None:
        """Raise UsageError where the runs are on other devices than the budget is of."""
        others = {cost.unit for cost in self.first.values()} - {unit}
        if others:
            other = others.pop()
            raise UsageError(
                f"Runs of profile {self.selection.profile.name} are on the {other}: "
                f"give the budget in {other.lower()}h."
            )

    def deviation(self, line: Line, metric: str) -> float:
        """Between the seeds of a line, as measured in its pool, else as assumed; 0 where neither is known."""
        known = [ref for ref in line.refs if ref in self.runs.rows]
        spread = self.runs.spread(known[0] if known else None, metric)
        return spread.sd if spread else 0.0

    def common_share(self, a: Line, b: Line, metric: str) -> float:
        """The part of the variance that two lines have in common at the same seed; 0 where it was not measured."""
        run = [next((ref for ref in line.refs if ref in self.runs.rows), None) for line in (a, b)]
        if run[0] is None or run[1] is None:
            return 0.0
        return shared_variance(Contrast(run[0], run[1]), metric, self.runs)

    def price(self) -> Price:
        """Device-hours, each looked up once. Only for lines whose cost is known."""

        @cache
        def price(lines: tuple[Line, ...], seed: int) -> float:
            hours = self.cost(lines, seed).device_hours
            assert hours is not None, "a claim with an unknown cost was offered"
            return hours

        return price

    def is_priced(self, line: Line) -> bool:
        """Whether the cost of a run is known."""
        return self.first[line].device_hours is not None

    def done(self) -> dict[Line, int]:
        """Seeds 0, 1, ... of each line that are finished in the runs folder, which 'harness run' will not repeat."""
        found = {}
        for line in filter(self.is_priced, self.jobs):
            count = 0
            while self.cost((line,), count).device_hours == 0:
                count += 1
            found[line] = count
        return found

    def recorded(self, choice: Choice) -> int:
        """Evaluations of the choice that have a record, but none in the runs folder."""
        known = {record.eval_id for record in self.selection.store.records}
        planned = [
            replace(job, train=replace(job.train, seed=seed))
            for line, job in self.jobs.items()
            for seed in range(choice.seeds.get(line, 0))
        ]
        run_dir = self.selection.store.run_dir
        return sum(job.id in known and not run_dir(job.train.id).record(job.id).exists() for job in planned)


def as_tests(claims: Sequence[Claim], prices: PriceList) -> tuple[list[Wanted], dict[str, str]]:
    """The claims that seeds can decide and, for the others, why none can be named."""
    wanted, impossible = [], {}
    for claim in claims:
        found = _as_test(claim, prices)
        if isinstance(found, str):
            impossible[claim.id] = found
        else:
            wanted.append(found)
    return wanted, impossible


def _as_test(claim: Claim, prices: PriceList) -> Wanted | str:
    unknown = [ref for ref in claim.refs() if not prices.is_priced(prices.by_ref[ref])]
    if unknown:
        return f"the cost of {unknown[0]} is unknown: no run of its backbone was measured, and none is stated"
    tests = []
    for pair in claim.contrasts:
        a, b = prices.by_ref[pair.a], prices.by_ref[pair.b]
        if claim.kind == "collapses":
            tests.append(Test(a, b, (), 0.0))
            continue
        effect = _effect(claim, pair, prices.registry)
        sd = max(prices.deviation(a, claim.metric), prices.deviation(b, claim.metric))
        if effect is None or sd == 0:
            return "no deviation between seeds is known" if effect is not None else _SILENT
        distances = (effect,) if claim.margin is None else (claim.margin - abs(effect), claim.margin + abs(effect))
        if claim.low is not None and claim.high is not None:
            distances = (effect - claim.low, claim.high - effect)
        if min(distances) <= 0:
            return "the paper's own difference does not show it"
        tests.append(Test(a, b, distances, sd, prices.common_share(a, b, claim.metric)))
    return Wanted(claim.id, tuple(tests), claim.kind == "collapses") if tests else _SILENT


_SILENT = "the paper prints no size of the effect, so no power can be computed"


def _effect(claim: Claim, pair: Contrast, registry: Registry) -> float | None:
    """The paper's difference of the two rows, else the one that the claim quotes; None where the paper prints none."""
    (table_a, row_a), (table_b, row_b) = registry.row(pair.a), registry.row(pair.b)
    if claim.metric in METRICS and table_a.split == table_b.split and row_a.published and row_b.published:
        i = METRICS.index(claim.metric)
        return row_a.published[i] - row_b.published[i]
    return claim.published


def _lines(choice: Choice, wanted: Sequence[Wanted], done: dict[Line, int], price: Price) -> tuple[LinePlan, ...]:
    """The lines that the decided claims need. A training is paid by the first of its lines that needs it."""
    needed = {line for claim in wanted if claim.id in choice.decided for line in claim.lines}
    plans: list[LinePlan] = []
    before: list[Line] = []
    for line in (line for line in done if line in needed):
        hours = 0.0
        for seed in range(choice.seeds[line]):
            shared = tuple(other for other in before if other.training == line.training and choice.seeds[other] > seed)
            hours += price((*shared, line), seed) - (price(shared, seed) if shared else 0.0)
        plans.append(LinePlan(line.refs, choice.seeds[line], done[line], hours))
        before.append(line)
    return tuple(plans)


def _num_runs(choice: Choice, price: Price) -> int:
    """Trainings that the plan starts or goes on with."""
    lines: dict[str, list[Line]] = {}
    for line in choice.seeds:
        lines.setdefault(line.training, []).append(line)
    return sum(
        any(choice.seeds[line] > seed and price((line,), seed) > 0 for line in same)
        for same in lines.values()
        for seed in range(max(choice.seeds[line] for line in same))
    )
