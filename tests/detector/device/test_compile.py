"""A training whose network is compiled: the same up to rounding, said in its record; a compiler that is missing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.device.compile import compile_network
from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.worker.run import evaluate_and_record, train_to_final
from support.final_weights import final_weights
from support.micro import ALONE, micro_assignment
from tests.small_retinanet import SLIM, build


def train(job: EvalJob, data: Path, folder: Path, *, compiled: bool) -> RunDir:
    run = RunDir(folder)
    run.root.mkdir()
    assignment = micro_assignment(job, run.root, data, compile=compiled)
    train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
    evaluate_and_record(assignment, job, run, world=ALONE, heartbeat=None)
    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own doings
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_training_takes_the_same_steps_up_to_rounding_and_says_so(
    job: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "distutils"]:
        monkeypatch.delitem(sys.modules, name)  # another test's: torch's builder wants setuptools' own
    torch.set_num_threads(1)
    plain, compiled = (train(job, data, tmp_path / str(c), compiled=c) for c in (False, True))
    steps = [[json.loads(line) for line in run.metrics.read_text().splitlines()] for run in (plain, compiled)]
    for expected, found in zip(*steps, strict=True):
        assert found["iteration"] == expected["iteration"]
        # At this scale's learning rate a last digit of the second step is a third one of the eighth.
        rel = 1e-6 if found["iteration"] <= 2 else 1e-2
        for name in ("classification", "bbox_regression"):
            assert found[name] == pytest.approx(expected[name], rel=rel), (name, found["iteration"])
    assert final_weights(plain).keys() == final_weights(compiled).keys()
    records = [run.read_record(job.id) for run in (plain, compiled)]
    assert [record.notes for record in records if record] == [
        (),
        ("1 processes of 1 threads, compiled: equal to other runs up to float rounding only",),
    ]


def test_a_missing_compiler_is_one_clear_error(
    job: EvalJob, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler; no-such-compiler is not on the PATH"):
        train(job, data, tmp_path / "run", compiled=True)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own doings
@pytest.mark.slow
def test_another_size_of_image_is_not_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.testing import CompileCounter  # a second of imports

    counter, whole = CompileCounter(), nn.Module.compile
    monkeypatch.setenv("CXX", "true")  # nothing needs it here
    monkeypatch.setattr(nn.Module, "compile", lambda module, **asked: whole(module, backend=counter, **asked))
    torch._dynamo.reset()
    model = build(SLIM | {"fpn_levels": (3, 7)}).train()
    compile_network(model)
    for shape in ((2, 3, 320, 416), (2, 3, 416, 320), (4, 3, 352, 480), (2, 3, 448, 448)):
        with torch.no_grad():
            model._outputs_of(torch.rand(shape).to(memory_format=torch.channels_last))
    assert counter.frame_count == 2  # backbone and head, once each
    torch._dynamo.reset()
