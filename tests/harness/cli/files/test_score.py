"""``harness score``: a file of detections, by any backend, and whether two of them agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detector.evaluation import scoring
from detector.evaluation.detections import write_detections
from harness.cli import app
from tests.command import invoke
from tests.scored import detections, truth


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str, ...]:
    """Two boxes, one of them found."""
    rows = [(1, 5, 1, [10, 10, 20, 20], 400, 0), (2, 5, 2, [40, 40, 50, 50], 2500, 0)]
    truth(tmp_path, [5], [1, 2], rows)
    write_detections(tmp_path / "found.json.gz", detections((5, 1, [10.0, 10, 20, 20], 0.9)))
    return "score", str(tmp_path / "found.json.gz"), "--data", str(tmp_path), "--split", "val"


@pytest.mark.parametrize("backend", ["pycocotools", "fast", "ultrafast", "hotcoco"])
def test_score_prints_the_numbers_of_any_backend(arguments: tuple[str, ...], backend: str) -> None:
    result = invoke(*arguments, "--backend", backend)
    assert result.stdout.splitlines()[0].split() == ["AP", "50.000"]
    assert result.stdout == invoke(*arguments).stdout


@pytest.mark.parametrize(("backend", "second"), [("pycocotools", "ultrafast"), ("hotcoco", "pycocotools")])
def test_score_verify_says_that_two_backends_agree(arguments: tuple[str, ...], backend: str, second: str) -> None:
    result = invoke(*arguments, "--backend", backend, "--verify", "--json")
    assert result.stderr == f"{backend} and {second} agree on all 12 numbers to the last bit.\n"
    assert json.loads(result.stdout)["AP"] == pytest.approx(50)


def test_score_verify_exits_with_1_and_names_the_number_that_differs(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = scoring.coco_stats

    def one_bit_off(*given: object) -> object:
        stats = exact(*given)  # type: ignore[arg-type]
        if given[-1] == "ultrafast":
            stats[2] = np.nextafter(stats[2], 1)
        return stats

    monkeypatch.setattr(scoring, "coco_stats", one_bit_off)
    result = CliRunner().invoke(app, [*arguments, "--backend", "fast", "--verify"])
    assert result.exit_code == 1
    assert result.stderr == "ultrafast and pycocotools differ (fractions): AP75: 0.5, 0.49999999999999994.\n"
