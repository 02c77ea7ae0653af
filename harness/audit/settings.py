"""Rows that train or test with other settings than their recipe, beyond what the ledger of deviations names."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.evidence import Evidence, Finding
from harness.registry.load import leaves
from harness.registry.resolution import Resolution
from harness.registry.resolve import recipe, resolve
from harness.registry.sources import ABLATIONS


def beyond_the_ledger(evidence: Evidence) -> Iterator[Finding]:
    """Rows of the paper's tables that change what neither the loss is nor the ledger names.

    At a scale that is not compared with the paper, the profile may set what it likes.
    """
    for ref in evidence.refs:
        table, row = evidence.registry.row(ref)
        if table.id == ABLATIONS or ref in evidence.registry.own_rows or row.recipe is None:
            continue
        used = resolve(evidence.registry, ref, evidence.profile)
        stated = recipe(evidence.registry, row.recipe)
        paths = [path for path in leaves(used.settings) if used.get(path) != stated.get(path)]
        if changed := [path for path in paths if not _allowed(evidence, path, used)]:
            shown = "; ".join(f"{path} is {used.get(path)}, not {stated.get(path)}" for path in changed)
            yield Finding(
                "settings beyond the ledger",
                (ref,),
                f"{shown} ({row.recipe}; set by {', '.join(sorted({used.origins[path] for path in changed}))}).",
                "The row differs from its recipe in more than what the table compares, and the ledger does not say "
                "why: its number is not the paper's row.",
                f"Take the setting out, or give it a line in ledger.yaml and a row of its own: harness explain {ref}",
            )


def unequal_contrasts(evidence: Evidence) -> Iterator[Finding]:
    """Contrasts whose rows differ in more than the loss and what the ledger names."""
    for claim in evidence.claims:
        if evidence.profile.name not in claim.decidable_in:
            continue
        for pair in claim.contrasts:
            a, b = (resolve(evidence.registry, ref, evidence.profile) for ref in (pair.a, pair.b))
            paths = dict.fromkeys([*leaves(a.settings), *leaves(b.settings)])
            differ = [path for path in paths if a.get(path) != b.get(path)]
            if changed := [path for path in differ if not (_allowed(evidence, path, a) or _allowed(evidence, path, b))]:
                shown = "; ".join(f"{path}: {a.get(path)} and {b.get(path)}" for path in changed)
                yield Finding(
                    "unequal contrast",
                    (claim.id, pair.a, pair.b),
                    f"The two rows differ in {shown}.",
                    "The difference between them is not that of the losses alone.",
                    f"Make the rows equal in it, or give it a line in ledger.yaml: harness explain {pair.a}",
                )


def _allowed(evidence: Evidence, path: str, used: Resolution) -> bool:
    """The loss, what the ledger names, a test that the row itself sets, and a scale that is not the paper's."""
    origin = used.origins.get(path, "")
    named = any(path == entry.path or path.startswith(f"{entry.path}.") for entry in evidence.registry.ledger.fields)
    own_test = path.startswith("test.") and origin.startswith("row ")
    scaled = origin.startswith("profile ") and not evidence.profile.compare_with_paper
    return path.startswith("loss.") or named or own_test or scaled
