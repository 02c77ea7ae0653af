"""Measured steps as lines of experiments/speeds.yaml, from which ``harness plan --gpus`` computes costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from harness.registry.speeds import MeasuredSpeed

BEGINNING = "  - {gpu: "  # of a line with a measured speed


def write_speeds(path: Path, speeds: Sequence[MeasuredSpeed]) -> None:
    """Each in the place of the line of the same kind, or at the end of the file; all else stays as it is."""
    lines = path.read_text(encoding="utf-8").splitlines()
    places = {_read(line).key: number for number, line in enumerate(lines) if line.startswith(BEGINNING)}
    for speed in speeds:
        if speed.key in places:
            lines[places[speed.key]] = as_line(speed)
        else:
            lines.append(as_line(speed))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_line(speed: MeasuredSpeed) -> str:
    """One line of YAML."""
    fields: dict[str, Any] = {key: value for key, value in msgspec.to_builtins(speed).items() if value is not None}
    text = yaml.safe_dump(fields, default_flow_style=True, sort_keys=False, width=10**6)
    return f"  - {text.strip()}"


def _read(line: str) -> MeasuredSpeed:
    (value,) = yaml.safe_load(line.strip())
    return msgspec.convert(value, MeasuredSpeed)
