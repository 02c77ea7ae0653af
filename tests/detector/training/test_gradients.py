"""Gradients as views of one tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.device.world import World
from detector.training import gradients
from detector.training.gradients import Gradients
from support.micro import ALONE

TWO = World(0, 2, torch.device("cpu"))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 7, 1)).to(memory_format=torch.channels_last)
    layers[0].bias.requires_grad_(False)
    return layers


def test_flat_gradients_are_torchs_own_to_the_last_bit() -> None:
    model, peer = network(), network()
    flat = Gradients(model, TWO)
    for _ in range(2):  # the second step begins with zeros again
        flat.zero()
        Gradients(peer, ALONE).zero()
        for _ in range(3):  # passes add up
            images = torch.randn(2, 3, 8, 8)
            model(images).square().mean().backward()
            peer(images).square().mean().backward()
    for ours, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
            continue
        assert torch.equal(ours.grad, theirs.grad)
        assert ours.grad.stride() == ours.stride()  # else optimisers leave their fast paths
        assert ours.grad.data_ptr() % 128 == flat.flat[0].data_ptr() % 128


def test_the_mean_over_processes_is_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, summed = network(), []
    flat = Gradients(model, TWO)
    monkeypatch.setattr(gradients.dist, "all_reduce", summed.append)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    before = flat.flat[0].clone()
    flat.average()
    assert summed == flat.flat
    assert torch.equal(summed[0], before / 2)


def test_one_process_on_a_cpu_keeps_new_gradients_in_each_step() -> None:
    model = network()
    alone = Gradients(model, ALONE)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    alone.zero()
    assert all(parameter.grad is None for parameter in model.parameters())
