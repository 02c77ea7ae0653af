"""Fig. 4: densities, means and bands of the scores in records, and what is said of those that have none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from detector.runs.findings import Scores
from detector.runs.record import Record
from harness.figures import fig4, output, style
from harness.figures.figure import Width
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.records import record_of
from tests.harness.figures.drawing import draw


@dataclass
class Chosen:
    """What a figure asks of a selection."""

    registry: Registry
    records: dict[str, list[Record]]

    @property
    def profile(self) -> Profile:
        return self.registry.profile("tiny")

    def row_records(self) -> dict[str, list[Record]]:
        return self.records


def record(registry: Registry, ref: str, seed: int, scores: Scores | None) -> Record:
    job = eval_job(resolve(registry, ref, registry.profile("tiny")), seed)
    made = record_of(job)
    # Other numbers for each seed: a record that is another's copy counts once.
    return replace(made, scores=scores, metrics=made.metrics | {"AP": 20.0 + seed})


@pytest.fixture(scope="module")
def chosen() -> Chosen:
    """Three rows with four bins: DR with two seeds, focal with one, cross entropy with a record of format 1."""
    registry = Registry()
    first = Scores(positives=(0, 0, 1, 3), negatives=(8, 0, 0, 0), positive_sums=(3.0, 2.5), negative_sums=(0.8, 0.1))
    second = Scores(positives=(0, 2, 1, 1), negatives=(6, 2, 0, 0), positive_sums=(2.0, 1.5), negative_sums=(1.6, 0.5))
    spiked = Scores(positives=(2, 0, 0, 0), negatives=(5, 0, 0, 0), positive_sums=(0.2, 0.1), negative_sums=(0.1, 0.1))
    return Chosen(
        registry,
        {
            "table3/dr": [record(registry, "table3/dr", seed, scores) for seed, scores in ((1, second), (0, first))],
            "table2/focal": [record(registry, "table2/focal", 0, spiked)],
            "ablations/cross-entropy": [record(registry, "ablations/cross-entropy", 0, None)],
            "table2/L4": [record(registry, "table2/L4", 0, first)],
        },
    )


def test_densities_and_expectations_are_those_of_the_counts(chosen: Chosen) -> None:
    spreads = fig4.spreads_of(chosen.records)
    assert [(spread.set, spread.ref) for spread in spreads] == [
        *(("negatives", "table2/focal"), ("negatives", "table3/dr")),
        *(("positives", "table2/focal"), ("positives", "table3/dr")),
    ]
    dr = spreads[3]
    assert dr.densities == ((0.0, 0.0, 1.0, 3.0), (0.0, 2.0, 1.0, 1.0))  # of seeds 0 and 1
    assert dr.means == (0.75, 0.5)
    assert dr.mean == 0.625
    assert dr.over_seeds() == ([0.0, 1.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0], [0.0, 2.0, 1.0, 3.0])
    for spread in spreads:
        for density in spread.densities:
            assert sum(density) / len(density) == pytest.approx(1.0)


def test_the_figure_shows_what_there_is_and_says_what_lacks(chosen: Chosen) -> None:
    figure = fig4.figure(chosen)  # type: ignore[arg-type]
    assert not figure.missing
    assert "focal loss 1, DR loss 2. Bands:" in figure.caption
    assert "cross entropy (records of format 1 have no spread of scores)" in figure.caption
    assert "Next: harness run ablations/cross-entropy --profile tiny --fresh" in figure.caption
    assert {"dr-positives-above-half", "dr-negatives-more-balanced"} <= set(figure.claims)
    assert "dr-beats-neg-only" not in figure.claims
    assert len(figure.numbers.rows) == 4 * 4
    assert ("table3/dr", "positives", 2, 0.625, 0.75, 1.0, 2.0, 1.0, 3.0) in figure.numbers.rows
    text = output.svg(figure, "column")
    assert "DR loss, 0.625" in text


@pytest.mark.parametrize(("highest", "scale"), [(4.0, "linear"), (100.0, "log")])
def test_the_axis_is_logarithmic_where_a_peak_hides_the_rest(highest: float, scale: str) -> None:
    spread = fig4.Spread("table3/dr", "negatives", ((highest, 0.0), (highest, 0.5)), (0.1, 0.2))
    with style.applied():
        from matplotlib.figure import Figure

        axes = Figure().subplots()
        fig4._panel(axes, [spread], 0.4)
        assert axes.get_yscale() == scale


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize(("peak", "lowest"), [(5, 0.0), (80, 0.5 * 100 / 129), (80_000, 0.5 * 100 / 80_049)])
def test_the_legend_lies_above_all_that_is_drawn(chosen: Chosen, width: Width, peak: int, lowest: float) -> None:
    sums = {"positive_sums": (0.7 * peak, 0.5 * peak), "negative_sums": (0.7 * peak, 0.5 * peak)}
    scores = Scores(positives=(*[0] * 50, peak, *[1] * 49), negatives=(*[0] * 50, peak, *[1] * 49), **sums)
    records = {ref: [record(chosen.registry, ref, seed, scores) for seed in (0, 1)] for ref in fig4.ROWS}
    canvas = draw(fig4.figure(Chosen(chosen.registry, records)), width)  # type: ignore[arg-type]
    for axes in canvas.axes:
        highest = max(float(max(line.get_ydata())) for line in axes.lines)
        legend = axes.get_legend()
        assert legend is not None
        assert axes.transData.transform((0.5, highest))[1] < legend.get_window_extent().y0
        assert axes.get_ylim()[0] == pytest.approx(lowest)  # half of the smallest density that is not 0


def test_without_scores_nothing_is_drawn_and_the_command_that_gives_them_is_named(chosen: Chosen) -> None:
    old = {ref: [replace(each, scores=None) for each in records] for ref, records in chosen.records.items()}
    missing = fig4.figure(Chosen(chosen.registry, old)).missing  # type: ignore[arg-type]
    assert "records of format 1" in missing
    rows = "ablations/cross-entropy table2/focal table3/dr"
    assert missing.endswith(f"Next: harness run {rows} --profile tiny --fresh")
    nothing = fig4.figure(Chosen(chosen.registry, {})).missing  # type: ignore[arg-type]
    assert nothing.endswith(f"(no run). Next: harness run {rows} --profile tiny")
