"""Runs that are compared although they were made in different ways; runs that ended although something is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from detector.runs.record import Record
from harness.audit.evidence import Evidence, Finding

EXECUTION = ("device", "processes", "threads")  # what of an environment is not a library


def _code(record: Record) -> str:
    code = record.code
    changes = f" with changes {(code.diff_sha256 or '')[:8]}".rstrip() if code.modified else ""
    return f"{f'commit {code.commit[:8]}' if code.commit else f'version {code.version}'}{changes}"


def _libraries(record: Record) -> str:
    return ", ".join(f"{name} {v}" for name, v in sorted(record.environment.items()) if name not in EXECUTION)


def _execution(record: Record) -> str:
    return ", ".join(f"{name} {record.environment[name]}" for name in EXECUTION if name in record.environment)


def _labels(record: Record) -> str:
    return f"annotations {record.train_split.sha256[:8]} and {record.test_split.sha256[:8]}"


def _weights(record: Record) -> str:
    weights = record.inputs.weights if record.inputs else None
    return f"weights {weights.sha256[:8]}" if weights else ""


def _images(record: Record) -> str:
    inputs = record.inputs
    splits = (inputs.train_images, inputs.test_images) if inputs else ()
    return ", ".join(f"images {(split.content or split.names_and_sizes)[:8]}" for split in splits if split)


# By what is mixed: how a record shows it (nothing: unknown), what that means.
MIXED: dict[str, tuple[Callable[[Record], str], str]] = {
    "code": (
        _code,
        "A change of the code between them may be part of the difference. The ids vouch only that no change of results "
        "was declared in between.",
    ),
    "libraries": (_libraries, "Other versions round sums otherwise and may have other defaults."),
    "hardware or execution": (
        _execution,
        "Sums are rounded in another order: results agree statistically, not to the last bit.",
    ),
    "annotations": (_labels, "The rows were not trained or tested on the same labels: their difference says nothing."),
    "initial weights": (_weights, "The rows did not begin with the same weights: their difference says nothing."),
    "images": (_images, "The rows did not see the same pixels: their difference says nothing."),
}


def mixed(evidence: Evidence) -> Iterator[Finding]:
    """For each thing that runs of one row or of one contrast should share and do not."""
    groups = {ref: list(records) for ref, records in evidence.trainings.items()}
    for claim in evidence.claims:
        for pair in claim.contrasts:
            if pair.a in evidence.rows and pair.b in evidence.rows:
                groups[f"{pair.a} against {pair.b}"] = [*evidence.rows[pair.a], *evidence.rows[pair.b]]
    for name, (shown_by, means) in MIXED.items():
        found = {group: {shown_by(record) for record in records} - {""} for group, records in groups.items()}
        if unequal := [group for group, values in found.items() if len(values) > 1]:
            each = {record.eval_id: record for group in unequal for record in groups[group]}
            counts = Counter(shown_by(record) for record in each.values())
            yield Finding(
                f"mixed {name}",
                tuple(unequal),
                f"{len(unequal)} rows or contrasts mix {_differing(counts)}.",
                means,
                "Train the rows of a contrast in one way: the same commit, machine and files "
                "(with HARNESS_RUNS and HARNESS_RESULTS in new folders), then compare.",
            )


def _differing(counts: Counter[str]) -> str:
    """``torch 2.1 (3 records) and torch 2.2 (1 record)``: of each value the parts that not all have."""
    parts = {value: value.split(", ") for value in counts if value}
    common = set.intersection(*map(set, parts.values()))
    return " and ".join(
        f"{', '.join(part for part in parts[value] if part not in common) or 'none of these'} "
        f"({count} {'record' if count == 1 else 'records'})"
        for value, count in counts.most_common()
        if value
    )


def ill_runs(evidence: Evidence) -> Iterator[Finding]:
    """What the trainings themselves found wrong."""
    for ref, records in evidence.trainings.items():
        found = [(record.job.train.seed, item) for record in records for item in record.health or ()]
        if found:
            said = "; ".join(f"seed {seed}: {item.name} ({item.message})" for seed, item in found)
            yield Finding(
                "ill run",
                (ref,),
                f"{said}.",
                "The training ended, but its number is that of a network that did not learn as it should.",
                f"Look at the curves and the log: harness logs {ref} --profile {evidence.profile.name}",
            )


def collapsed(evidence: Evidence) -> Iterator[Finding]:
    """Rows far below the others that no claim expects there."""
    expected = {
        train_id
        for claim in evidence.registry.claims
        if claim.kind == "collapses"
        for pair in claim.contrasts
        if pair.a in evidence.runs.rows
        for train_id in evidence.runs.rows[pair.a].train_ids
    }
    for ref, records in evidence.trainings.items():
        if ref in evidence.runs.collapsed and not expected.issuperset(record.train_id for record in records):
            values = ", ".join(f"{record.metrics.get('AP') or 0.0:.1f}" for record in records)
            yield Finding(
                "collapsed row",
                (ref,),
                f"AP by seed {values}: below half of the median of the rows like it, and no claim expects that.",
                "The settings do not train at this scale, or the run is broken. Its deviation is kept out of the "
                "others'; a claim about it compares a failure.",
                f"Look at the curves and the log: harness logs {ref} --profile {evidence.profile.name}",
            )
