"""Record files that are edited, copied, at odds with each other, or of no row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detector.runs.record import Record
from harness.audit.evidence import Evidence, Finding, opened

CHANGED = ("overridden by --set", "--batch-size")  # how the notes of a run with other settings begin


def unreadable(evidence: Evidence) -> Iterator[Finding]:
    """Files that are damaged, were edited, or are not of the job that they name."""
    for path, message in evidence.unreadable.items():
        yield Finding(
            "unreadable record",
            (_name(path),),
            message,
            "The file is cut off, was edited, or was written by code whose results have changed since. Tables are made "
            "without it.",
            f"Move it away, then repeat: harness audit {evidence.target} --profile {evidence.profile.name}",
        )


def duplicates(evidence: Evidence) -> Iterator[Finding]:
    """Equal metrics of two trainings: two seeds never give the same twelve numbers to the last digit."""
    by_metrics: dict[tuple[Any, ...], dict[str, Path]] = {}
    for path, record in evidence.files.items():
        if record.metrics.get("AP"):  # a row that collapsed to an AP of 0 has the same zeros with every seed
            key = tuple(sorted(record.metrics.items(), key=lambda item: item[0]))
            by_metrics.setdefault(key, {}).setdefault(record.train_id, path)
    for same in by_metrics.values():
        if len(same) > 1:
            seeds = sorted({evidence.files[path].job.train.seed for path in same.values()})
            yield Finding(
                "duplicate record",
                tuple(map(_name, same.values())),
                f"{len(same)} trainings (seeds {', '.join(map(str, seeds))}) have the same metrics to the last digit.",
                "One is a copy of the other under another id, or a setting that should differ has no effect. As two "
                "results they make the spread between seeds look smaller than it is.",
                "Compare the two files; move the copy away and train that seed.",
            )


def two_results(evidence: Evidence) -> Iterator[Finding]:
    """One id with two results, in the runs and in the results folder."""
    by_id: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in evidence.files.items():
        by_id.setdefault(record.eval_id, []).append((path, record))
    for found in by_id.values():
        if any(record.metrics != found[0][1].metrics for _, record in found):
            shown = ", ".join(f"{record.metrics.get('AP') or 0.0:.2f}" for _, record in found)
            yield Finding(
                "two results of one id",
                tuple(_name(path) for path, _ in found),
                f"The same job gave an AP of {shown}.",
                "The two runs differ in something that an id does not hold: code, libraries, hardware, or the files "
                "that were read. A table can show one of them only.",
                "Compare code, environment and inputs of the two files.",
            )


def orphans(evidence: Evidence) -> Iterator[Finding]:
    """Records of no row, neither as it is nor with settings that the run itself says were changed."""
    found = [
        (path, record)
        for path, record in evidence.files.items()
        if not any(note.startswith(CHANGED) for note in record.notes) and opened(record.job) not in evidence.jobs
    ]
    if found and evidence.whole:
        yield Finding(
            "record of no row",
            tuple(_name(path) for path, _ in found),
            f"{len(found)} of {len(evidence.files)} records belong to no row at profile {evidence.profile.name}.",
            "A row, its recipe or the profile was changed after these runs; the tables no longer show them. If their "
            "numbers were a reason for the change, the choice was made after the fact.",
            "Undo the change (git log -- experiments), or move the files away.",
        )


def _name(path: Path) -> str:
    """The part of a path by which a person finds the file: ``tiny/ID.json``, or ``RUN/evals/ID/record.json``."""
    return "/".join(path.parts[-4:] if path.name == "record.json" else path.parts[-2:])
