"""``harness trace``: real steps of a row, no run, a table of 80 columns and Chrome's trace."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from support.micro import micro_data, micro_job, write_experiments
from tests.command import error, invoke

pytestmark = pytest.mark.usefixtures("empty_folders")


@pytest.fixture
def micro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words of the command at the micro scale, in a folder of its own."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    monkeypatch.chdir(tmp_path)
    data = micro_data(tmp_path / "shapes", micro_job(tmp_path / "experiments"))
    return ("trace", "table2/L6", "--profile", "tiny", "--data", str(data), "--device", "cpu")


@pytest.mark.slow
def test_trace_prints_a_table_and_writes_chromes_trace_and_nothing_else(micro: tuple[str, ...], tmp_path: Path) -> None:
    lines = invoke(*micro, "--steps", "2").stdout.splitlines()
    assert lines[0] == "table2/L6, profile tiny: 2 steps of 4 images on the CPU, after 2 others"
    assert lines[1].startswith("Without the profiler: ")
    assert " s per iteration, data " in lines[1]
    assert max(map(len, lines)) <= 80
    shares = [float(line.split("%")[0]) for line in lines if "%  " in line]
    assert shares[:-2] == sorted(shares[:-2], reverse=True)
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=1.5)
    assert any("aten::convolution_backward" in line for line in lines)
    assert lines[-1] == "Trace: trace-table2-L6-tiny.json.gz"
    with gzip.open(tmp_path / "trace-table2-L6-tiny.json.gz") as file:
        events = json.load(file)["traceEvents"]
    steps = {event["name"] for event in events if event.get("name", "").startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#3", "ProfilerStep#4"}  # after two steps, and one in which the profiler starts
    assert not list((tmp_path / "runs").glob("*"))
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_trace_as_data_goes_on_beyond_the_schedule(micro: tuple[str, ...], tmp_path: Path) -> None:
    found = json.loads(invoke(*micro, "--warmup", "8", "--steps", "1", "--output", "mine.json", "--json").stdout)
    assert (found["row"], found["profile"], found["images"], found["path"]) == ("table2/L6", "tiny", 4, "mine.json")
    trace = found["trace"]
    assert (trace["device"], trace["steps"], trace["warmup"], trace["timing"]["iterations"]) == ("cpu", 1, 8, 7)
    assert sum(kernel["share"] for kernel in trace["kernels"]) == pytest.approx(1)
    assert sum(kernel["milliseconds"] for kernel in trace["kernels"]) == pytest.approx(trace["milliseconds"])
    assert json.loads((tmp_path / "mine.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace", "table2"), "table2 is 8 rows that are trained; a trace is of one, such as table2/L6"),
        (("trace", "table2/L6", "--output", "t.txt"), "--output t.txt: a trace is written as .json or .json.gz"),
        (("trace", "table2/L6", "--output", "no/t.json"), "--output no/t.json: there is no folder no"),
    ],
)
def test_trace_refuses(words: tuple[str, ...], said: str) -> None:
    assert said in error(*words, "--profile", "tiny")
