"""When passes are captured and replayed; a stand-in takes the place of CUDA's graphs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from detector.model.retinanet import RetinaNet, Target
from detector.training import graphs
from detector.training.graphs import Inputs, PassGraphs, Shape
from detector.training.passes import powers_of_two
from tests.small_retinanet import build

CPU = torch.device("cpu")


class Run:
    """A pass that notes what it was given, and whether it was being captured then."""

    def __init__(self) -> None:
        self.capturing = False
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.refuse: RuntimeError | None = None

    def __call__(self, inputs: Inputs, share: Tensor) -> dict[str, Tensor]:
        self.calls.append(("captured" if self.capturing else "run", tuple(inputs.batch.shape)))
        if self.capturing and self.refuse is not None:
            raise self.refuse
        return {"classification": inputs.batch.sum() * share}


class Graph:
    def replay(self) -> None:
        replays.append(self)


replays: list[Graph] = []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    found = Run()
    replays.clear()

    @contextmanager
    def capture(graph: Graph, *, pool: object, capture_error_mode: str) -> Iterator[None]:
        assert pool == "the pool"
        found.capturing = True
        try:
            yield
        finally:
            found.capturing = False

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "the pool")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return found


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    return build().train()


def images_of(*shapes: tuple[int, int]) -> tuple[list[Tensor], list[Target]]:
    images = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8) for shape in shapes]
    target = {"boxes": torch.tensor([[1.0, 2.0, 20.0, 30.0]]), "labels": torch.tensor([1])}
    return images, [target for _ in shapes]


def test_a_shape_is_run_then_captured_then_replayed(run: Run, model: RetinaNet) -> None:
    passes = PassGraphs(run, CPU)
    wide, tall = images_of((60, 100), (64, 90)), images_of((120, 60))
    for batch in (wide, tall, wide, wide, tall, wide):
        passes(model, *batch, 0.5)
    assert run.calls == [
        ("run", (2, 3, 64, 128)),
        ("run", (1, 3, 128, 64)),
        ("captured", (2, 3, 64, 128)),
        ("captured", (1, 3, 128, 64)),
    ]
    first, second = replays[0], replays[2]
    assert replays == [first, first, second, first]  # a capture does not run anything


def test_a_graph_reads_what_the_pass_would_have_read(run: Run, model: RetinaNet) -> None:
    passes = PassGraphs(run, CPU)
    for _ in range(3):  # the last one is copied to where the graph reads
        images, targets = images_of((60, 100), (64, 90))
        passes(model, images, targets, 0.5)
    (captured,) = passes._graphs.values()
    expected = Inputs.of(model, images, targets)
    assert torch.equal(captured.inputs.batch, expected.batch)
    assert captured.inputs.batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(captured.inputs.boxes[:, :1], expected.boxes)
    assert captured.inputs.labels[:, 1:].eq(-1).all()
    assert float(passes._share) == 0.5


def test_a_graph_keeps_its_anchors(run: Run, model: RetinaNet) -> None:
    passes = PassGraphs(run, CPU)
    for _ in range(2):
        passes(model, *images_of((60, 100)), 1.0)
    (captured,) = passes._graphs.values()
    assert captured.anchors is model.anchors(64, 128)


def test_many_boxes_are_another_shape() -> None:
    images, (target,) = images_of((60, 100))
    many = {name: value.repeat(65, *[1] * (value.ndim - 1)) for name, value in target.items()}
    assert Shape.of(images, [target]) == (1, 64, 128, 64)
    assert Shape.of(images, [many]) == (1, 64, 128, 128)


def test_the_graph_used_longest_ago_makes_room(run: Run, model: RetinaNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    passes = PassGraphs(run, CPU)
    a, b, c = (images_of((32, width)) for width in (32, 64, 96))
    for batch in (a, b, c, a, b, a, c):
        passes(model, *batch, 1.0)
    assert [shape.width for shape in passes._graphs] == [32, 96]


def test_what_cannot_be_captured_is_run_and_the_log_says_so_once(
    run: Run, model: RetinaNet, caplog: pytest.LogCaptureFixture
) -> None:
    run.refuse = RuntimeError("operation not permitted when stream is capturing")
    passes = PassGraphs(run, CPU)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            passes(model, *images_of((60, 100)), 1.0)
    assert [way for way, _ in run.calls] == ["run", "captured", "run", "run", "run"]
    assert [record.getMessage() for record in caplog.records] == [
        "passes are not captured as CUDA graphs from here on, which is slower: "
        "operation not permitted when stream is capturing"
    ]


def test_want_of_memory_is_no_reason_to_go_on_without_graphs(run: Run, model: RetinaNet) -> None:
    run.refuse = torch.OutOfMemoryError("CUDA out of memory")
    passes = PassGraphs(run, CPU)
    passes(model, *images_of((60, 100)), 1.0)
    with pytest.raises(torch.OutOfMemoryError):
        passes(model, *images_of((60, 100)), 1.0)


@pytest.mark.parametrize(("number", "powers"), [(1, [1]), (2, [2]), (7, [4, 2, 1]), (8, [8])])
def test_powers_of_two_sum_up(number: int, powers: list[int]) -> None:
    assert powers_of_two(number) == powers
