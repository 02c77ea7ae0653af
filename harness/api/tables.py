"""``harness.table`` and ``harness.claims``: what the records say of the paper, as frames."""

from __future__ import annotations

import pandas as pd

from harness.api.targets import Folder, Overrides, override_texts, path_of, select
from harness.planning.selection import Selection, Targets, target_names
from harness.registry.declarations import METRICS
from harness.report.export.verdicts import cell_lines, claim_lines
from harness.report.views import judge, table_views
from harness.store.records import Source

CLAIM_COLUMNS = {
    "id": "str",
    "text": "str",
    "where": "str",
    "own": "bool",
    "metric": "str",
    "kind": "str",
    "a": "str",
    "b": "str",
    "n_a": "float64",
    "n_b": "float64",
    "mean_a": "float64",
    "mean_b": "float64",
    "quantity": "str",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "p": "float64",
    "outcome": "str",
    "provisional": "bool",
    "reason": "str",
    "published": "float64",
    "seeds_needed": "float64",
}


def table(
    target: Targets,
    profile: str = "paper",
    data: Folder | None = None,
    *,
    overrides: Overrides | None = None,
    batch_size: int | None = None,
    source: Source | None = None,
) -> pd.DataFrame:
    """The rows of one or several tables: our numbers beside the paper's, unrounded.

    The index is the row (``table2/L6``). Columns: ``label`` (as the paper prints it), ``status`` (measured, pending,
    cited, ...), ``n`` (seeds), ``split`` (of the paper's numbers), AP .. APL (means over the seeds, percent), AP_sd ..
    (deviation between seeds, percent; NaN for a single one), paper_AP .. (percent), ``cited`` (from where). At the
    paper's scale also AP_difference (ours less the paper's), AP_half_width (of its 95% interval), AP_verdict and
    AP_provisional, and the same for the other five. NaN where there is no number. ``attrs`` says profile, scale,
    titles, footnotes, and whether the scale's numbers can be compared with the paper's.

    target: "all" (the four tables), a table, a row, or several. profile: the scale. data: the COCO root, where records
    of several data sets would be mixed. overrides, batch_size: those of the runs to show, in place of the paper's.
    source: "local" for the records of the runs folder only, "committed" for those of the results folder. Raises
    UsageError for an unknown name.

    >>> import harness
    >>> frame = harness.table("table2", profile="tiny")
    >>> frame.loc[["table2/focal", "table2/L6"], ["n", "AP", "AP_sd", "paper_AP"]].round(1)
                  n    AP  AP_sd  paper_AP
    row
    table2/focal  3  21.5    0.8      36.1
    table2/L6     3  24.0    0.9      37.4
    """
    options = list(override_texts(overrides))
    views = [
        view
        for name in target_names(target)
        for view in table_views(Selection(name, profile, options, path_of(data), batch_size, source=source))
    ]
    frame = pd.DataFrame(cell_lines(views)).set_index("row")
    numbers = [*METRICS, *(f"{metric}_sd" for metric in METRICS), *(f"paper_{metric}" for metric in METRICS)]
    frame = frame.astype(dict.fromkeys(numbers, "float64"))
    frame.attrs = {
        "profile": profile,
        "scale": views[0].scale,
        "compared_with_paper": views[0].compared,
        "titles": {view.id: view.title for view in views},
        "footnotes": {view.id: list(view.footnotes) for view in views},
    }
    return frame


def claims(
    target: Targets = "all", profile: str = "paper", data: Folder | None = None, *, source: Source | None = None
) -> pd.DataFrame:
    """The claims about one or several targets, judged by the records: one line per contrast of a claim.

    Of the contrast: ``a`` and ``b`` (rows; ``b`` is missing where ``a`` is held against a threshold), ``n_a`` and
    ``n_b`` (seeds), ``mean_a`` and ``mean_b``, ``quantity`` (what is tested, such as "a - b"), ``difference`` (its
    value), ``low`` and ``high`` (its 95% interval). Of the claim: ``id``, ``text``, ``where`` (in the paper),
    ``own`` (a claim of yours, judged apart from the paper's), ``metric``, ``kind``, ``p`` (one-sided, by Holm over all
    claims of its kind that the profile can decide), ``outcome``, ``provisional`` (one
    seed decided it), ``reason``, ``published`` (the difference that the paper prints), ``seeds_needed`` (per row, to
    show it). AP is in percent, scores in 0..1. NaN where nothing was measured.

    target: "all" (the four tables), a table, a row, or several. profile: the scale. data: the COCO root, where records
    of several data sets would be mixed. source: as for ``table``. Raises UsageError for an unknown name.

    >>> import harness
    >>> frame = harness.claims("table2", profile="tiny").set_index("id")
    >>> frame.loc["dr-beats-focal", ["a", "b", "outcome"]].tolist()
    ['table1/hp-e_hn-e', 'table2/focal', 'supported']
    >>> frame.loc["dr-beats-focal", ["difference", "low", "high", "published"]].astype(float).round(1).tolist()
    [2.5, 0.7, 4.4, 1.0]
    """
    view = judge(select(target, profile, data=data, source=source))
    frame = pd.DataFrame(claim_lines(view), columns=list(CLAIM_COLUMNS)).astype(CLAIM_COLUMNS)
    parts = [(part, own) for part, own in ((view.paper, False), (view.own, True)) if part is not None]
    families = {"own" if own else "paper": part.family_size for part, own in parts}
    frame.attrs = {"profile": profile, "scale": view.scale, "claims_in_family": families, "notes": list(view.notes)}
    return frame
