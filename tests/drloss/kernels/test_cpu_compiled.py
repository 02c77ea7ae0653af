"""Compiled kernels give the same bits to the process that compiles them and to those that find them on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from drloss.labels import BACKGROUND
from tests.drloss.fused.test_two_passes import LOSSES, value_and_gradients

SIZES = range(1, 80)  # anchors of 3 classes: every length of the rest after a loop's last full vector


def print_bits() -> None:
    """One line per loss: a digest of its values and gradients of all sizes. The test below starts this."""
    torch.set_num_threads(1)
    for name, (kind, arguments) in LOSSES.items():
        loss, digest = kind(**arguments), sha256()
        generator = torch.Generator().manual_seed(0)
        for size in SIZES:
            logits = torch.randn(2, size, 3, generator=generator) * 2
            labels = torch.randint(3, (2, size), generator=generator)
            labels = torch.where(torch.rand(labels.shape, generator=generator) < 0.1, labels, BACKGROUND)
            value, (grad,) = value_and_gradients(loss, [logits], labels)
            digest.update(value.hex().encode() + grad.numpy().tobytes())
        print(name, digest.hexdigest()[:16])


@pytest.mark.slow
def test_the_process_that_compiles_gives_the_bits_of_one_that_reads_the_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tests.drloss.kernels import test_cpu_compiled as t; t.print_bits()"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, read = (
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc")), "nothing was kept"
    assert len(compiled) == len(LOSSES)
    assert compiled == read
