"""Verdicts on runs whose truth is known: how often they are wrong, and how often they see what is there.

The verdicts are those of the package, on rows drawn as the model of ``harness.verdicts.blocks`` has them.
``python -m tests.harness.verdicts.simulation`` writes the tables of docs/statistics.md.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from harness.registry.claims import Claim, Contrast
from harness.verdicts.judge import DELTA, judge_cell, judge_claims
from harness.verdicts.runs import ProfileRuns, RowRuns

PAGE = Path(__file__).parents[3] / "docs" / "statistics.md"
SD = 0.2  # between seeds, in AP points
EFFECT = 0.5  # what power is given for
MARGIN = 0.5  # of a claim that two rows are similar
CENTRE = 37.0
SHARES = (0.0, 0.4, 0.8)
LOOKS = (2, 3, 5)
# By row: its family, and its true AP. Eight rows of one loss and two of another.
TRUTH = {
    "t/same": ("dr", CENTRE),
    "t/also": ("dr", CENTRE),
    "t/better": ("dr", CENTRE + EFFECT),
    "t/edge": ("dr", CENTRE + MARGIN),
    **{f"t/dr{i}": ("dr", CENTRE) for i in range(4)},
    "t/focal": ("focal", CENTRE),
    "t/worse": ("focal", CENTRE - EFFECT),
}
HALF, FAILED = "t/half", "t/failed"  # AP of exactly half, where "collapses" is just not true, and of a third


@dataclass(frozen=True)
class World:
    """``share``: of the variance, the seed's; half of it is common to both losses. ``wide``: how many times as far the
    rows of the second loss scatter, and the collapsed ones five times as far as that."""

    share: float
    seeds: int
    wide: float = 1.0


def claim(kind: str, a: str, b: str, name: str = "c") -> Claim:
    return Claim(
        id=name,
        text="",
        where="",
        metric="AP",
        kind=kind,  # type: ignore[arg-type]
        contrasts=(Contrast(a, b),),
        margin=MARGIN if kind == "similar" else None,
        decidable_in=("paper",),
    )


# What is asked of each draw: a claim, and whether it is true.
ASKED = {
    "same loss": claim("greater", "t/also", "t/same"),
    "two losses": claim("greater", "t/same", "t/focal"),
    "same loss, true": claim("greater", "t/better", "t/same"),
    "two losses, true": claim("greater", "t/same", "t/worse"),
    "similar": claim("similar", "t/edge", "t/same"),
    "similar, true": claim("similar", "t/also", "t/same"),
    "collapse": claim("collapses", HALF, "t/same"),
    "collapse, true": claim("collapses", FAILED, "t/same"),
}
FAMILY = [claim("greater", f"t/dr{i}", "t/focal", f"c{i}") for i in range(3)] + [
    claim("greater", f"t/dr{i}", "t/same", f"d{i}") for i in range(3)
]


def draw(world: World, rng: np.random.Generator) -> ProfileRuns:
    """One set of runs."""
    seeds = world.seeds
    common = rng.normal(size=seeds)
    of_seed = {
        family: np.sqrt(world.share / 2) * (common + rng.normal(size=seeds)) for family in ("dr", "focal", "collapsed")
    }
    truth = {**TRUTH, HALF: ("collapsed", CENTRE / 2), FAILED: ("collapsed", CENTRE / 3)}
    rows = {}
    for ref, (family, mean) in truth.items():
        scale = SD * {"dr": 1.0, "focal": world.wide, "collapsed": 5.0}[family]
        values = mean + scale * (of_seed[family] + np.sqrt(1 - world.share) * rng.normal(size=seeds))
        metrics = tuple({"AP": float(value)} for value in values)
        ids = tuple(f"{ref}-{seed}" for seed in range(seeds))
        rows[ref] = RowRuns(ref, "r50", tuple(range(seeds)), metrics, ids, family=family)
    return ProfileRuns(rows, {"AP": SD})


def counted(world: World, draws: int) -> Counter[str]:
    """How often each thing happened."""
    rng = np.random.default_rng([world.seeds, int(10 * world.share), int(world.wide)])
    seen: Counter[str] = Counter()
    for _ in range(draws):
        runs = draw(world, rng)
        for name, away in (("cell", 0.0), ("cell far", DELTA["AP"])):
            published = round(CENTRE + away + SD * rng.normal(), 1)
            cell = judge_cell("t/same", "AP", published, runs)
            assert cell.difference is not None
            assert cell.half_width is not None
            seen[f"{name} {cell.outcome}"] += 1
            seen[f"{name} covered"] += abs(cell.difference + away) <= cell.half_width
        for name, asked in ASKED.items():
            (verdict,) = judge_claims([asked], runs, "paper")
            seen[f"{name} {verdict.outcome}"] += 1
            estimate = verdict.measured[0].estimate
            if name in ("same loss", "two losses") and estimate is not None:
                seen[f"{name} covered"] += abs(estimate.value) <= estimate.half_width()
        seen["family supported"] += any(v.outcome == "supported" for v in judge_claims(FAMILY, runs, "paper"))
    return seen


def worlds() -> Iterator[World]:
    """One seed is tested by nothing, so that the scatter of the second loss makes no difference there."""
    for wide, shares, numbers in ((1.0, SHARES, (1, 2, 3, 5)), (3.0, (0.0, 0.8), (2, 3, 5))):
        for seeds in numbers:
            for share in shares:
                yield World(share, seeds, wide)


def looked(draws: int) -> tuple[float, float, float]:
    """False "supported" of two rows without any other, where a seed is added until it is, from 2 to 5 or to 10.

    The third rate: at LOOKS, by their rule. The share of the seed changes nothing: it cancels in the difference.
    """
    rng = np.random.default_rng(7)
    hits = np.zeros(3)
    for _ in range(draws):
        two = {ref: row for ref, row in draw(World(0.0, 10), rng).rows.items() if ref in ("t/same", "t/also")}
        runs = {n: ProfileRuns({ref: cut(row, n) for ref, row in two.items()}, {}) for n in range(2, 11)}
        seen = [n for n, found in runs.items() if _supported(found)]
        hits += bool(seen) and min(seen) <= 5, bool(seen), any(_supported(runs[n], LOOKS) for n in LOOKS)
    five, ten, ruled = hits / draws
    return float(five), float(ten), float(ruled)


def _supported(runs: ProfileRuns, looks: Sequence[int] = ()) -> bool:
    return judge_claims([ASKED["same loss"]], runs, "paper", looks)[0].outcome == "supported"


def cut(row: RowRuns, n: int) -> RowRuns:
    return RowRuns(row.ref, row.pool, row.seeds[:n], row.runs[:n], row.train_ids[:n], row.split, row.family)


def tables(draws: int = 500) -> dict[str, str]:
    """The tables of the page, by the name of their place."""
    seen = {world: counted(world, draws) for world in worlds()}
    alike = {world: count for world, count in seen.items() if world.wide == 1.0}
    head = ["a seed added from 2 to 5", "from 2 to 10", "looks at 2, 3 and 5 by --looks"]
    rates = [f"{100 * rate:.1f}" for rate in looked(6 * draws)]
    return {
        "cells": _table(CELL_COLUMNS, alike, draws),
        "errors": _table(ERROR_COLUMNS, seen, draws),
        "power": _table(POWER_COLUMNS, seen, draws),
        "looks": tabulate([rates], head, "github", disable_numparse=True),
    }


# By heading, what is counted.
CELL_COLUMNS = {
    "95% interval covers": "cell covered",
    "reproduced, false": "cell far reproduced",
    "not reproduced, false": "cell not reproduced",
    "reproduced, true": "cell reproduced",
    "consistent, true": "cell consistent",
}
ERROR_COLUMNS = {
    "covers, same loss": "same loss covered",
    "covers, two losses": "two losses covered",
    "supported, same loss": "same loss supported",
    "contradicted, same loss": "same loss contradicted",
    "supported, two losses": "two losses supported",
    "contradicted, two losses": "two losses contradicted",
    "similar": "similar supported",
    "any of six": "family supported",
    "collapse": "collapse supported",
}
POWER_COLUMNS = {
    "same loss": "same loss, true supported",
    "two losses": "two losses, true supported",
    "similar": "similar, true supported",
    "collapse": "collapse, true supported",
}


def _table(columns: dict[str, str], seen: dict[World, Counter[str]], draws: int) -> str:
    """Percent of the draws."""
    lines = [
        [str(world.seeds), f"{world.share:g}", f"{world.wide:g}"] + [f"{100 * count[key] / draws:.1f}" for key in keys]
        for keys in [columns.values()]
        for world, count in seen.items()
    ]
    return tabulate(
        lines, ["seeds", "share of the seed", "second loss scatters", *columns], "github", disable_numparse=True
    )


def places(text: str) -> dict[str, str]:
    """What stands on the page, by the name of its place."""
    found = re.findall(r"<!-- simulated: (\w+) -->\n*(.*?)\n*<!-- end -->", text, re.DOTALL)
    return dict(found)


def filled(text: str, made: dict[str, str]) -> str:
    """The page with its places filled."""
    for name, content in made.items():
        pattern = rf"(<!-- simulated: {name} -->).*?(<!-- end -->)"
        text = re.sub(
            pattern, lambda match, content=content: f"{match[1]}\n\n{content}\n\n{match[2]}", text, flags=re.S
        )
    return text


def main(arguments: Sequence[str]) -> None:
    """Write the tables into the page, or into the file that is named."""
    page = Path(arguments[0]) if arguments else PAGE
    page.write_text(filled(page.read_text(encoding="utf-8"), tables()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
