"""When all processes stop."""

from __future__ import annotations

import pytest
import torch

from detector.device import agreement
from detector.device.agreement import LAG, Agreement
from detector.device.world import World
from support.micro import ALONE


def test_one_process_on_a_cpu_stops_at_once() -> None:
    agree = Agreement(ALONE)
    assert [agree(wish) for wish in (False, True, False)] == [False, True, False]


def test_processes_on_a_cpu_stop_as_soon_as_one_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement.dist, "all_reduce", lambda flag, op: flag.fill_(1.0))
    assert Agreement(World(0, 2, torch.device("cpu")))(False)


@pytest.mark.gpu
def test_a_gpu_answers_later_and_never_makes_the_host_wait_for_the_newest_step() -> None:
    agree = Agreement(World(0, 1, torch.device("cuda")))
    wishes = [False, True, False, False, False]
    assert [agree(wish) for wish in wishes] == [False] * LAG + wishes[:-LAG]
