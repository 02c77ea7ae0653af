"""How many jobs run at once, and where: one limit over all arrays of a user, and runs spread over clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

Run = TypeVar("Run")


def throttles(parallel: int, arrays: Mapping[str, int]) -> dict[str, int]:
    """How many elements of each array may run at once, so that no more than ``parallel`` run in all.

    arrays: by job id, the elements that are not done. An array without any is left out of the answer. Each other array
    gets at least one, so with more arrays than ``parallel`` more run than that. What is left is shared in proportion to
    the elements that are not served yet, by the largest remainder; no array gets more than it has. Where all fit, each
    gets all of its own. Raises ValueError for a ``parallel`` below 1.
    """
    if parallel < 1:
        raise ValueError(f"parallel is {parallel}; at least one run must be allowed")
    wanted = {job: left for job, left in arrays.items() if left > 0}
    given = dict.fromkeys(wanted, 1)
    rest = {job: left - 1 for job, left in wanted.items()}
    free, open_ = max(0, parallel - len(wanted)), sum(rest.values())
    if free >= open_:
        return wanted
    quotas = {job: Fraction(free * left, open_) for job, left in rest.items()}
    for job, quota in quotas.items():
        given[job] += int(quota)
    over = free - sum(int(quota) for quota in quotas.values())
    # The older job first where the remainders are equal: ``sorted`` keeps the order of the arrays.
    for job in sorted(quotas, key=lambda name: int(quotas[name]) - quotas[name])[:over]:
        given[job] += 1
    return given


@dataclass(frozen=True)
class Place:
    """A cluster that takes runs. queued: jobs of the user's there; room: how many more it takes, None: no limit."""

    name: str
    parallel: int
    queued: int = 0
    room: int | None = None


def spread(runs: Sequence[Run], places: Sequence[Place]) -> dict[str, list[Run]]:
    """The runs by the cluster that gets them, in their order; those that no cluster has room for are in no list.

    Each run goes where jobs wait the least: to the lowest (queued + given) / parallel, the first named of equal ones.
    """
    given: dict[str, list[Run]] = {place.name: [] for place in places}
    for run in runs:
        open_ = [place for place in places if place.room is None or len(given[place.name]) < place.room]
        if not open_:
            break
        best = min(open_, key=lambda place: Fraction(place.queued + len(given[place.name]), place.parallel))
        given[best.name].append(run)
    return given
