"""What stands under verdicts on claims: how much of the scatter is the seed's, and what it means to look again."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from harness.verdicts.estimates import ALPHA
from harness.verdicts.judge import ClaimVerdict
from harness.verdicts.runs import ProfileRuns
from harness.verdicts.sequential import levels_of_looks

# False verdicts where there is no difference and a seed is added, from 2 to 5, until a test at 5% sees one: by the
# simulation of docs/statistics.md.
LOOKING_AGAIN = "12%"


def share_notes(refs: Collection[str], runs: ProfileRuns) -> list[str]:
    """One line per family of ``refs`` whose rows tell how much of the variance of AP is the seed's."""
    notes = {}
    for ref in refs:
        found = runs.blocks(ref, "AP") if ref in runs.rows and ref not in runs.collapsed else None
        if found is not None and found.share is not None:
            low, high = found.share_interval()
            name = ", ".join(filter(None, runs.family(ref)))
            notes[name] = (
                f"Seeds of {name}: deviation of AP {found.total**0.5:.2f} ({found.num_rows} rows); "
                f"{100 * found.share:.0f}% of the variance (95% interval {100 * low:.0f} to {100 * high:.0f}%) is the "
                f"seed's, common to rows at the same seed. Two rows differ at the same seed by a deviation of "
                f"{math.sqrt(2 * (found.residual or 0.0)):.2f}, at different seeds by {math.sqrt(2 * found.total):.2f}."
            )
    return list(notes.values())


def looks_notes(verdicts: Sequence[ClaimVerdict], family_size: int, looks: Sequence[int]) -> list[str]:
    """The levels of looks that were named; else, where a claim is undecided, what adding seeds until it is means."""
    if looks:
        alpha = ALPHA / max(1, family_size)
        levels = levels_of_looks(looks, alpha)
        parts = ", ".join(f"{n} seeds {level / alpha * ALPHA:.4f}" for n, level in zip(looks, levels, strict=True))
        return [f"Looks named beforehand; p-values were scaled from the level of each look to {ALPHA}: {parts}."]
    if any(verdict.outcome == "undecided" and verdict.p_value is not None for verdict in verdicts):
        return [
            "Decide on the number of seeds before you look. Whoever adds seeds until a verdict comes turns a false "
            f"verdict in 5% of cases into {LOOKING_AGAIN}. To look more than once, name all looks beforehand, such as "
            "--looks 2,3,5: together they keep the 5%."
        ]
    return []
