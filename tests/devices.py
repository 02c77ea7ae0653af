"""Tests that run on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

# For ``pytest.mark.parametrize("device", DEVICES)``; tests marked gpu are left out where there is none (conftest.py).
DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


@contextmanager
def host_never_waits() -> Iterator[None]:
    """On a GPU: what makes the host wait for the device is an error."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once per process torch says that the mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
