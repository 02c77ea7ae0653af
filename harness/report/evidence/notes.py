"""What a reader must know of the records behind a table: which are not in it, and what is wrong with those that are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from detector.runs.record import Record
from harness.planning.selection import Selection
from harness.planning.unequal import Chosen, LeftOut, apart, choose
from harness.store.copies import copies
from harness.store.records import SetAside, Store

MOST_NAMED = 3  # files or records in one note
Records = Mapping[str, Sequence[Record]]  # of each row, also those that are not averaged


def record_notes(selection: Selection, refs: Sequence[str], split: str | None = None) -> tuple[str, ...]:
    """The footnotes of a table whose rows are ``refs``. split: as for ``Selection.row_records``."""
    found = selection.row_records(split)
    return tuple(dict.fromkeys([*row_notes(found, refs, selection.store), *store_notes(found, refs, selection)]))


def row_notes(found: Records, refs: Iterable[str], store: Store) -> Iterator[str]:
    """By row: records that were left out, other values of the same runs, what is unknown, what is wrong."""
    for ref in refs:
        records = found.get(ref, ())
        chosen = choose(records)
        if chosen.left_out:
            yield f"{ref}: {left_out_text(chosen)}"
        if others := [text for record in chosen.kept if (text := overruled_text(record, store))]:
            yield f"{ref}: {'; '.join(others)}. The local result is shown; --source committed shows the other."
        yield from mixed_formats(ref, chosen)
        for record in chosen.kept:
            yield from (f"{ref}, seed {seed_of(record)}: {item.name}: {item.message}" for item in record.health or ())


def store_notes(found: Records, refs: Sequence[str], selection: Selection) -> Iterator[str]:
    """Files that are no usable records, copies of one record in several rows, rows that are not like most others."""
    if aside := of_profile(selection.store.set_aside, selection.profile.name):
        named = "; ".join(f"{shown_path(item.path)}: {item.why}" for item in aside[:MOST_NAMED])
        more = f"; and {len(aside) - MOST_NAMED} more" if len(aside) > MOST_NAMED else ""
        yield f"Set aside, in no number ({len(aside)} {'files' if len(aside) > 1 else 'file'}): {named}{more}."
    kept = {ref: choose(records).kept for ref, records in found.items()}
    yield from copied_notes(kept, refs)
    for ref, why in apart(kept).items():
        if ref in refs:
            yield f"{ref}: not comparable with most other rows, whose runs had other inputs ({'; '.join(why)})."


def copied_notes(kept: Records, refs: Collection[str]) -> Iterator[str]:
    """Trainings of several rows that have the same metrics to the last digit, where one of ``refs`` is among them."""
    rows: dict[str, list[str]] = {}
    for ref, records in kept.items():
        for record in records:
            rows.setdefault(record.train_id, []).append(ref)
    once = {record.train_id: record for records in kept.values() for record in records}
    for group in copies(once.values()):
        if any(ref in refs for record in group for ref in rows[record.train_id]):
            named = ", ".join(f"{rows[record.train_id][0]} seed {seed_of(record)}" for record in group)
            yield (
                f"The same metrics to the last digit: {named}. One record is a copy of the other, or they differ in a "
                "setting without effect; each is still shown in its row."
            )


def left_out_text(chosen: Chosen) -> str:
    """``1 of 3 records left out: seed 2 (weights: ...)``, and which are shown instead."""
    total = len(chosen.kept) + len(chosen.left_out)
    many = len(chosen.left_out) > MOST_NAMED
    named = "; ".join(left_out_one(item) for item in chosen.left_out[:MOST_NAMED])
    return (
        f"{len(chosen.left_out)} of {total} records left out, never averaged with the others: {named}"
        f"{'; ...' if many else ''}. Shown is the largest group with equal inputs, the newest of equally large ones "
        "(of a loss package, the group of the installed source)."
    )


def left_out_one(item: LeftOut) -> str:
    """The seed of a record that was left out, and why."""
    return f"seed {seed_of(item.record)} ({'; '.join(item.why)})"


def overruled_text(record: Record, store: Store) -> str:
    """The committed value beside a local one of the same evaluation; empty where there is no other."""
    other = store.overruled(record)
    if other is None:
        return ""
    mine, theirs = record.metrics.get("AP"), other.metrics.get("AP")
    same = "" if mine != theirs else " (other metrics differ)"
    return f"seed {seed_of(record)} has AP {ap_text(mine)} here, {ap_text(theirs)} in the committed record{same}"


def mixed_formats(ref: str, chosen: Chosen) -> Iterator[str]:
    """A note where some records of a row know their weights and images, and others do not."""
    old = [record for record in chosen.kept if record.format == 1]
    if old and len(old) < len(chosen.kept):
        yield (
            f"{ref}: {len(old)} of {len(chosen.kept)} records are of format 1: whether their weights and images were "
            "those of the others is unknown."
        )


def format_one_note(records: Iterable[Record]) -> str:
    """What records of format 1 lack; empty where there is none."""
    count = sum(record.format == 1 for record in records)
    if not count:
        return ""
    return (
        f"{count} record{'s' if count > 1 else ''} of format 1: content of weights and images, the training's starts "
        "and its health unknown."
    )


def of_profile(aside: Iterable[SetAside], profile: str) -> list[SetAside]:
    """Those of one profile, and those that do not say theirs."""
    return [item for item in aside if item.profile in (None, profile)]


def seed_of(record: Record) -> int:
    """The seed of the record's training."""
    return record.job.train.seed


def ap_text(value: float | None) -> str:
    """A percentage as it tells two results apart."""
    return "none" if value is None else f"{value:.2f}"


def shown_path(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
