"""What every figure's files must be: the same bytes everywhere, of the width asked for, with texts that do nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from PIL import Image

from detector.errors import UsageError
from detector.runs.findings import Scores
from harness.figures import fig2, output, style
from harness.figures.catalogue import FIGURES, build
from harness.figures.figure import INCHES, Figure, Numbers, Width
from harness.planning.selection import Selection
from tests.drawings import EMPTY, HOSTILE, SAMPLE
from tests.harness.figures.made import curves_of, lost, made_records, write

PROJECT = Path(__file__).resolve().parents[3]
WIDTHS: tuple[Width, ...] = ("column", "page")
NAMES = FIGURES
SCORES = Scores(
    positives=(1, 2, 9, 4), negatives=(9000, 70, 6, 1), positive_sums=(9.5, 6.5), negative_sums=(800.0, 100.0)
)
VALUES = {
    **{f"table1/hp-{hp}_hn-{hn}": {0: 37.1, 1: 36.8, 2: 36.2} for hp, hn in (("e", "e"), ("20", "3.5"))},
    **{f"table2/{row}": {0: 37.4, 1: 36.0 + i / 9, 2: 35.5} for i, row in enumerate(("focal", "L6", "L10", "hinge"))},
    "ablations/cross-entropy": {0: 35.1},
    "table3/all": {0: 12.9, 1: 11.0},
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """Every figure of made records, several seeds and a row that collapsed among them, and the sample."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_RUNS", str(tmp_path_factory.mktemp("no-runs")))
        patch.setenv("HARNESS_RESULTS", str(results))
        patch.setattr(fig2, "POINTS", 20_000)
        for profile in ("tiny", "paper"):
            kept = {"curves": curves_of(0), "lost_ap": lost(1), "scores": SCORES}
            write(results, made_records(profile, VALUES, **kept))
        of = {profile: Selection("all", profile, [], None) for profile in ("tiny", "paper")}
        return {"sample": SAMPLE} | {name: build(name, of["paper" if name == "cells" else "tiny"]) for name in NAMES}


def written(canvas: Canvas) -> list[Text]:
    """The texts on the canvas and on its axes, without the numbers at ticks."""
    legends = [*canvas.legends, *(legend for axes in canvas.axes if (legend := axes.get_legend()))]
    found = [*canvas.texts, *(text for legend in legends for text in legend.get_texts())]
    for axes in canvas.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
    return [text for text in found if text.get_text() and text.get_visible()]


def in_svg(text: str, attribute: str) -> list[str]:
    return [element.attrib[attribute] for element in ElementTree.fromstring(text).iter() if attribute in element.attrib]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["sample", *NAMES])
def test_every_figure_fits_its_width_in_text_that_can_be_read(
    name: str, width: Width, figures: dict[str, Figure]
) -> None:
    figure = figures[name]
    assert not figure.missing
    with style.applied():
        canvas = output.drawn(figure, width)
        canvas.draw_without_rendering()
        box = canvas.get_tightbbox()
        places = [(text.get_text(), text.get_window_extent()) for text in written(canvas)]
    assert canvas.get_figwidth() == INCHES[width]
    assert -0.01 <= box.x0 < box.x1 <= INCHES[width] + 0.01, "something lies outside of the width"
    assert -0.01 <= box.y0 < box.y1 <= figure.height[width] + 0.01, "something lies outside of the height"
    paper = canvas.bbox.padded(1.0)
    for said, place in places:
        assert paper.containsx(place.x0), f"cut on the left: {said}"
        assert paper.containsx(place.x1), f"cut on the right: {said}"
    for (said, place), (other, there) in combinations(places, 2):
        assert not place.padded(-1.0).overlaps(there.padded(-1.0)), f"{said!r} lies on {other!r}"
    text = output.svg(figure, width)
    sizes = [float(size) for size in re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", text)]
    assert sizes
    assert min(sizes) >= style.POINTS


@pytest.mark.parametrize("name", ["sample", *NAMES])
def test_every_figure_on_a_page_is_inert_and_has_the_pages_colours(name: str, figures: dict[str, Figure]) -> None:
    figure = figures[name]
    text = output.svg(figure, "page")
    root = ElementTree.fromstring(text)
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert tags <= {"svg", "title", "g", "defs", "path", "use", "clipPath", "rect", "text", "tspan", "pattern"}, tags
    ids = in_svg(text, "id")
    assert len(ids) == len(set(ids))
    assert all(each.startswith(f"{figure.name}-") for each in ids)
    references = [*in_svg(text, "href"), *re.findall(r"url\(([^)]*)\)", text)]
    assert {reference.lstrip("#") for reference in references} <= set(ids)
    assert not any(key.lower().startswith("on") for element in root.iter() for key in element.attrib)
    assert "currentColor" in text
    plain = set(re.findall(r"(?<!, )#[0-9a-f]{6}", " ".join(in_svg(text, "style"))))
    assert not plain, f"colours that are not of harness/figures/style.py: {plain}"
    assert len(figure.caption) > 5


@pytest.mark.parametrize("name", NAMES)
def test_every_figures_numbers_are_a_whole_table(name: str, figures: dict[str, Figure]) -> None:
    figure = figures[name]
    rows = list(csv.reader(io.StringIO(output.numbers(figure).decode())))
    assert {len(row) for row in rows} == {len(figure.numbers.columns)}
    assert len(rows) == 1 + len(figure.numbers.rows)
    assert len(rows) > 1


def test_texts_stay_texts_and_do_nothing() -> None:
    text = output.svg(SAMPLE, "column")
    found = [element.text for element in ElementTree.fromstring(text).iter() if element.tag.endswith("text")]
    assert any(each and each.startswith('<script>alert(1)</script> & $\\frac{1}$ id="x"') for each in found)
    assert "<script" not in text
    assert "\x1b" not in text
    assert f'id="{SAMPLE.name}-title"' in text
    ids = [*in_svg(output.svg(SAMPLE, "column", prefix="a"), "id"), *in_svg(output.svg(SAMPLE, "column"), "id")]
    assert len(ids) == len(set(ids)), "the same figure twice on a page"


def test_numbers_are_not_rounded_and_are_no_formulas() -> None:
    header, first, second, third = csv.reader(io.StringIO(output.numbers(SAMPLE).decode()))
    assert header == ["name", "value", "unknown"]
    assert first == ["'=1+2", "0.30000000000000004", ""]
    assert second == ['line\\nbreak, "quoted"', "1e-30", ""]
    assert third == ["plain", "7", ""]
    behind = replace(SAMPLE, numbers=Numbers(("text",), [(" =1+2",), ("-1.5",), ("\t@x",)]))
    assert output.numbers(behind).decode().splitlines()[1:] == ["' =1+2", "-1.5", "'\\t@x"]


@pytest.mark.parametrize("width", WIDTHS)
def test_files_are_as_wide_as_asked_for(width: Width, tmp_path: Path) -> None:
    for kind in output.FORMATS:
        picture, numbers = output.save(SAMPLE, tmp_path / f"x.{kind}", width)
        assert numbers == tmp_path / "x.csv"
        if kind == "svg":
            root = ElementTree.fromstring(picture.read_text())
            assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(72 * INCHES[width])
            assert "currentColor" not in picture.read_text()
        elif kind == "pdf":
            box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", picture.read_bytes())
            assert box is not None
            assert float(box[1]) == pytest.approx(72 * INCHES[width])
            assert b"/Type3" not in picture.read_bytes()
        else:
            with Image.open(picture) as image:
                assert image.width == pytest.approx(style.DPI * INCHES[width], abs=1)


# Another process with other hashes, no display, a matplotlibrc of the user's own, and every warning an error.
ELSEWHERE = """
import hashlib, sys
from pathlib import Path
from harness.figures import output
from tests.drawings import SAMPLE
for kind in output.FORMATS:
    for path, content in output.files(SAMPLE, Path(f"x.{kind}"), "column").items():
        print(path, hashlib.sha256(content).hexdigest())
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
"""
OWN_STYLE = """
font.family: No Such Font
font.size: 30
svg.fonttype: path
savefig.bbox: tight
axes.facecolor: red
lines.linewidth: 9
axes.prop_cycle: cycler('color', ['r'])
"""


def test_bytes_are_those_of_the_figure_alone(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text(OWN_STYLE)
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"PYTHONHASHSEED": "7", "PYTHONPATH": str(PROJECT), "SOURCE_DATE_EPOCH": "0", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE],
        cwd=tmp_path,
        env=environment | {"MATPLOTLIBRC": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "font" not in done.stderr
    here = [
        f"{path} {hashlib.sha256(content).hexdigest()}"
        for kind in output.FORMATS
        for path, content in output.files(SAMPLE, Path(f"x.{kind}"), "column").items()
    ]
    assert done.stdout.splitlines() == here


def test_a_figure_without_data_and_another_ending_write_nothing(tmp_path: Path) -> None:
    for figure, name, message in (
        (EMPTY, "x.svg", "no record; next: harness run all"),
        (SAMPLE, "x.jpg", "does not end in a format of figures"),
        (SAMPLE, "x", "Known: .svg, .pdf, .png"),
    ):
        with pytest.raises(UsageError, match=message):
            output.save(figure, tmp_path / name, "column")
    with pytest.raises(UsageError, match="no record"):
        output.svg(EMPTY, "column")
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_none_is_one_message(tmp_path: Path) -> None:
    code = "from tests.drawings import SAMPLE; from harness.figures.output import svg; svg(SAMPLE, 'column')"
    environment = os.environ | {"MPLBACKEND": "no such backend", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "UsageError: matplotlib refuses this machine's settings (MPLBACKEND, matplotlibrc)" in done.stderr


@pytest.mark.parametrize(
    ("function", "error"),
    [("findfont", ValueError("Failed to find font DejaVu Sans")), ("get_font", FileNotFoundError(2, "none", "x.ttf"))],
)
def test_missing_fonts_are_one_message(monkeypatch: pytest.MonkeyPatch, function: str, error: Exception) -> None:
    from matplotlib import font_manager

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(font_manager, function, fails)
    with pytest.raises(UsageError, match=r"matplotlib's own fonts are missing .*: pip install --force-reinstall"):
        output.svg(SAMPLE, "column")


def test_powers_of_ten_are_plain_text() -> None:
    assert [style.power_of_ten(10.0**i) for i in (-5, -2, -1, 0, 3, 4)] == ["10⁻⁵", "0.01", "0.1", "1", "1000", "10⁴"]
    assert [style.power_of_ten(value) for value in (0.0, -1.0, 3.0, float("inf"))] == [""] * 4


def test_series_are_told_apart_without_colour() -> None:
    looks = [(str(style.series(i)["linestyle"]), style.marker(i)) for i in range(len(style.COLOURS))]
    assert len({line for line, _ in looks}) == len({mark for _, mark in looks}) == len(looks)
    assert HOSTILE in SAMPLE.title
