"""``harness list --runs``: every finished evaluation, also those that fill no table's cell."""

from __future__ import annotations

from typing import Any

from harness.console.layout import table
from harness.console.legend import legend
from harness.folders import results_folder, runs_folder
from harness.registry.load import Registry
from harness.report.evidence.notes import ap_text, of_profile, seed_of, shown_path
from harness.report.evidence.rows import rows_by_record
from harness.store.records import Store
from harness.store.replaced import replaced_folders


def finished_runs(profile: str | None) -> dict[str, Any]:
    """``runs``, by profile, row and seed; ``set_aside``: files that are no usable records; ``replaced``: folders.

    profile: only its records; None for all. Raises UsageError for an unknown one.
    """
    registry, store = Registry(), Store(runs_folder(), results_folder())
    if profile is not None:
        registry.profile(profile)
    chosen = [record for record in store.records if profile in (None, record.profile)]
    known = [name for name in registry.profiles if any(record.profile == name for record in chosen)]
    rows = rows_by_record(registry, store, known)
    position = {ref: i for i, ref in enumerate(ref for table in registry.tables.values() for ref in table.refs())}

    def place(line: dict[str, Any]) -> tuple[Any, ...]:
        first = min((position[ref] for ref in line["rows"]), default=len(position))
        return line["profile"], first, line["notes"], line["seed"], line["eval_id"]

    lines = [
        {
            "profile": record.profile,
            "rows": list(rows.get(record.eval_id, ())),
            "seed": seed_of(record),
            "AP": record.metrics.get("AP"),
            "notes": list(record.notes),
            "health": [item.name for item in record.health or ()],
            "train_id": record.train_id,
            "eval_id": record.eval_id,
            "record": str(store.path_of(record)),
            "source": "local" if store.path_of(record).is_relative_to(store.runs) else "committed",
        }
        for record in chosen
    ]
    aside = of_profile(store.set_aside, profile) if profile is not None else store.set_aside
    return {
        "runs": sorted(lines, key=place),
        "set_aside": [{"file": str(item.path), "why": item.why} for item in aside],
        "replaced": [str(path) for path in replaced_folders(store.runs)],
    }


def finished_runs_as_text(found: dict[str, Any], width: int | None = None) -> str:
    """One line per evaluation; what departs from the paper stands in the place of the rows. width: the terminal's."""
    heads = ["profile", "row", "seed", "AP", "where", "evaluation"]
    lines = [
        [
            line["profile"],
            _what(line),
            line["seed"],
            ap_text(line["AP"]),
            line["source"],
            line["eval_id"],
        ]
        for line in found["runs"]
    ]
    short = [[*line[:1], line[1].replace("(and ", "(+").replace(" more)", ")"), *line[2:]] for line in lines]
    listed = table(lines, heads, width, narrow=(short, heads), disable_numparse=True)
    parts = [listed] if lines else ["No finished run."]
    if lines:
        parts.append("All of one run, and how to make it again: harness show EVALUATION")
    if found["set_aside"]:
        parts.append("\n".join(["Set aside, in no number:", *(_file_line(item) for item in found["set_aside"])]))
    if found["replaced"]:
        parts.append(
            "\n".join(["Replaced by 'harness run --fresh', never counted:", *map(_indented, found["replaced"])])
        )
    if lines:
        parts.append(
            legend(listed, {"-": "not measured", "local": "in the runs folder", "committed": "in the results folder"})
        )
    return "\n\n".join(parts)


def _what(line: dict[str, Any]) -> str:
    if line["rows"]:
        more = f" (and {len(line['rows']) - 1} more)" if len(line["rows"]) > 1 else ""
        return f"{line['rows'][0]}{more}"
    changed = [note.rsplit(": ", 1)[1] for note in line["notes"] if note.startswith("overridden by --set")]
    others = [note.split(":", 1)[0] for note in line["notes"] if note.startswith("--batch-size")]
    return "; ".join([*(f"--set {text}" for text in changed), *others]) or "no row of any table"


def _file_line(item: dict[str, str]) -> str:
    from pathlib import Path

    return f"  {shown_path(Path(item['file']))}: {item['why']}"


def _indented(text: str) -> str:
    return f"  {text}"
