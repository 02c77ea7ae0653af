"""``harness show`` for a terminal of 80 columns, or of fewer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.console.layout import text_width
from harness.console.legend import legend
from harness.report.evidence.notes import shown_path
from harness.report.evidence.show import UNKNOWN

NAME_WIDTH = 13
SHORT = 12  # digits of a sum or a commit
Line = Mapping[str, Any]
Field = tuple[str, str]  # a name and its text; without a name, a line of its own


def evidence_text(found: Line, width: int | None = None) -> str:
    """Each row with its mean, then each of its records. width: of the terminal, if it is one."""
    metric, within, lines = found["metric"], text_width(width), list[str]()
    for row in found["rows"]:
        lines += _lines(_head(row, found), within)
        for line in row["records"]:
            lines += ["", *_lines(_record_fields(line, metric), within)]
        if row.get("left_out"):
            lines += ["", "Left out of this row:"]
            for line in row["left_out"]:
                lines += ["", *_lines(_record_fields(line, metric), within)]
        lines += ["", *_bullets(row["notes"], within)] if row["notes"] else []
        lines.append("")
    text = "\n".join([*lines, *_bullets(found["notes"], within)]).rstrip()
    words = legend(text, {"±": "standard deviation between seeds", "-": "not known"})
    return "\n".join([text, *(["", *_lines([("", words)], within)] if words else [])])


def _head(row: Line, found: Line) -> list[Field]:
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
        return [("", head), ("next", command)]
    return [("", head)]


def _options(found: Line) -> str:
    return f" {found['departures']}" if found["departures"] else ""


def _record_fields(line: Line, metric: str) -> Iterator[Field]:
    where = "" if line["committed_value"] is None else f"; committed: {_number(metric, line['committed_value'])}"
    yield "", f"seed {line['seed']}  {metric} {_number(metric, line['value'])}  ({line['source']}{where})"
    if line.get("why"):
        yield "left out", "; ".join(line["why"])
    yield "fills", ", ".join(line["rows"]) or "no row of any table"
    yield "record", f"{shown_path(Path(line['record']))} (format {line['format']})"
    yield "ids", f"evaluation {line['evaluation']}, training {line['training']}"
    seconds = f"trained {line['train_seconds']:.0f} s, evaluated {line['eval_seconds']:.0f} s"
    yield "finished", f"{line['finished']}; {seconds}"
    if isinstance(line["starts"], str):
        yield "starts", line["starts"]
        yield "code", _code(line["code"])
        yield "environment", _pairs(line["environment"])
    else:
        for number, start in enumerate(line["starts"], start=1):
            yield f"start {number}", _start(start)
    if isinstance(line["evaluated"], dict):
        yield "evaluated", _start(line["evaluated"])
    yield "data", line["data"]
    yield from _split_fields(line, "train")
    yield from _split_fields(line, "test")
    weights = line["weights"]
    known = weights if isinstance(weights, str) else f"{weights['name']}, {_sum(weights['sha256'])}"
    yield "weights", known
    health = line["health"]
    yield "health", health if isinstance(health, str) else _health(health)
    for note in line["notes"]:
        yield "note", note
    yield "log", shown_path(Path(line["log"])) if line["log"] else "not on this machine"
    yield "final weights", shown_path(Path(line["final"])) if line["final"] else "not on this machine"
    yield "make again", line["again"]


def _split_fields(line: Line, part: str) -> Iterator[Field]:
    split, images = line[f"{part}_split"], line[f"{part}_images"]
    text = f"{split['images']:,} images, {split['boxes']:,} boxes, annotations {_sum(split['sha256'])}"
    if isinstance(images, str):
        text += f"; content of the images {images}"
    else:
        names = f"names and sizes {_sum(images['names_and_sizes'])}"
        content = f", content {_sum(images['content'])}" if images.get("content") else ""
        text += f"; image files: {images['bytes']:,} bytes, {names}{content}"
    yield part, text


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


def _lines(fields: Iterable[Field], width: int) -> Iterator[str]:
    for name, text in fields:
        yield from _field(name, text, width) if name else _wrapped(text, width)


def _field(name: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"  {name:{NAME_WIDTH}}  ",
        subsequent_indent=" " * (NAME_WIDTH + 4),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _bullets(notes: Sequence[str], width: int) -> list[str]:
    return [line for note in notes for line in _wrapped(f"- {note}", width)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
