"""``harness show`` for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report.evidence.notes import shown_path
from harness.report.evidence.show import UNKNOWN

WIDTH = 80
NAME_WIDTH = 13
SHORT = 12  # digits of a sum or a commit
Line = Mapping[str, Any]


def evidence_text(found: Line) -> str:
    """Each row with its mean, then each of its records."""
    metric, lines = found["metric"], list[str]()
    for row in found["rows"]:
        lines += [*_head(row, found), *(text for line in row["records"] for text in ["", *_record_lines(line, metric)])]
        if row.get("left_out"):
            lines += ["", "Left out of this row:"]
            lines += [text for line in row["left_out"] for text in ["", *_record_lines(line, metric)]]
        lines += ["", *_bullets(row["notes"])] if row["notes"] else []
        lines.append("")
    return "\n".join([*lines, *_bullets(found["notes"])]).rstrip()


def _head(row: Line, found: Line) -> list[str]:
    metric, values = found["metric"], [line for line in row["records"] if line["value"] is not None]
    options = f" with {found['departures']}" if found["departures"] else ""
    head = f"{row['ref']}, profile {found['profile']}{options}"
    if row["split"] != UNKNOWN:
        head += f", {row['split']}"
    if row["mean"] is not None:
        deviation = "" if row["sd"] is None else f" ±{_number(metric, row['sd'])}"
        head += f": {metric} {_number(metric, row['mean'])}{deviation}, n {len(values)}"
    elif not row["records"]:
        head += ": no finished run"
        command = f"harness run {row['ref']} --profile {found['profile']}{_options(found)}"
        return [*_wrapped(head), *_field("next", command)]
    return _wrapped(head)


def _options(found: Line) -> str:
    return f" {found['departures']}" if found["departures"] else ""


def _record_lines(line: Line, metric: str) -> Iterator[str]:
    where = "" if line["committed_value"] is None else f"; committed: {_number(metric, line['committed_value'])}"
    yield f"seed {line['seed']}  {metric} {_number(metric, line['value'])}  ({line['source']}{where})"
    if line.get("why"):
        yield from _field("left out", "; ".join(line["why"]))
    yield from _field("fills", ", ".join(line["rows"]) or "no row of any table")
    yield from _field("record", f"{shown_path(Path(line['record']))} (format {line['format']})")
    yield from _field("ids", f"evaluation {line['evaluation']}, training {line['training']}")
    yield from _field(
        "finished", f"{line['finished']}; trained {line['train_seconds']:.0f} s, evaluated {line['eval_seconds']:.0f} s"
    )
    if isinstance(line["starts"], str):
        yield from _field("starts", line["starts"])
        yield from _field("code", _code(line["code"]))
        yield from _field("environment", _pairs(line["environment"]))
    else:
        for number, start in enumerate(line["starts"], start=1):
            yield from _field(f"start {number}", _start(start))
    if isinstance(line["evaluated"], dict):
        yield from _field("evaluated", _start(line["evaluated"]))
    yield from _field("data", line["data"])
    yield from _split_lines(line, "train")
    yield from _split_lines(line, "test")
    weights = line["weights"]
    known = weights if isinstance(weights, str) else f"{weights['name']}, {_sum(weights['sha256'])}"
    yield from _field("weights", known)
    health = line["health"]
    yield from _field("health", health if isinstance(health, str) else _health(health))
    for note in line["notes"]:
        yield from _field("note", note)
    yield from _field("log", shown_path(Path(line["log"])) if line["log"] else "not on this machine")
    yield from _field("final weights", shown_path(Path(line["final"])) if line["final"] else "not on this machine")
    yield from _field("make again", line["again"])


def _split_lines(line: Line, part: str) -> Iterator[str]:
    split, images = line[f"{part}_split"], line[f"{part}_images"]
    text = f"{split['images']:,} images, {split['boxes']:,} boxes, annotations {_sum(split['sha256'])}"
    if isinstance(images, str):
        text += f"; content of the images {images}"
    else:
        names = f"names and sizes {_sum(images['names_and_sizes'])}"
        content = f", content {_sum(images['content'])}" if images.get("content") else ""
        text += f"; image files: {images['bytes']:,} bytes, {names}{content}"
    yield from _field(part, text)


def _start(start: Line) -> str:
    at = f", from iteration {start['iteration']} on" if start.get("iteration") else ""
    how = [f"{start['processes']} processes of {start['threads']} threads", start["precision"]]
    how += [name for name in ("compiled", "deterministic") if start.get(name)]
    if groups := start.get("groups_per_forward"):
        how.append(f"{groups} groups per forward pass")
    rest = {name: value for name, value in start["environment"].items() if name not in ("processes", "threads")}
    return f"{start['time']}{at}; {_code(start['code'])}; {', '.join(how)}; {_pairs(rest)}"


def _code(code: Line) -> str:
    if code["commit"] is None:
        return f"version {code['version']}, not from a checkout"
    diff = f", changes {code['diff_sha256'][:SHORT]}" if code.get("diff_sha256") else ""
    loss = f", source of the loss {code['loss_sha256'][:SHORT]}" if code.get("loss_sha256") else ""
    return f"commit {code['commit'][:SHORT]}{' (modified)' if code['modified'] else ''}{diff}{loss}"


def _health(found: Sequence[Line]) -> str:
    return "; ".join(f"{item['name']}: {item['message']}" for item in found) or "nothing wrong was found"


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _sum(sha256: str) -> str:
    return f"sha256 {sha256[:SHORT]}"


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if metric.endswith("score") else f"{value:.2f}"


def _field(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"  {name:{NAME_WIDTH}}  ",
        subsequent_indent=" " * (NAME_WIDTH + 4),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _bullets(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in _wrapped(f"- {note}")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
