"""How a strip of the Triton kernels is cut, by pass and dtype: one table, to be tuned on a GPU.

``benchmarks/calibration/gpu_layouts.py`` prints the time of each pass for other layouts. Nothing is chosen when the
losses run: the order of a sum, and so its last bits, would depend on a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import torch

Pass: TypeAlias = Literal["sum", "write"]
BYTES_A_CHUNK = 16  # what a thread reads at once
MOST_ROWS = 2048  # anchors of a strip: with few classes, fewer entries are read by a program


@dataclass(frozen=True)
class Layout:
    """Entries that a thread has at a time, how often it has them, warps per program, two divisions by one or not."""

    entries: int
    steps: int
    warps: int = 4
    paired: bool = False


# A thread has 64 bytes under way, in reads of 16, and keeps so few numbers (32 to 71 registers, as compiled for sm_90)
# that 28 to 64 warps share a multiprocessor: 57 to 82 KB under way, where the latency of the memory asks for some 25.
# 8 steps: the program's own work, about 400 instructions of a thread, is an eighth of all, and programs are still small
# enough to fill a GPU evenly. In half precision, exponentials and divisions are the limit of the first pass: three for
# each 2 bytes.
_FLOAT: Final[dict[Pass, Layout]] = {"sum": Layout(16, 8), "write": Layout(16, 8)}
_HALF: Final[dict[Pass, Layout]] = {"sum": Layout(32, 8, paired=True), "write": Layout(32, 8, paired=True)}
LAYOUTS: Final = {torch.float32: _FLOAT, torch.bfloat16: _HALF, torch.float16: _HALF}


@cache
def layout_of(kind: Pass, dtype: torch.dtype, num_classes: int) -> tuple[dict[str, Any], int]:
    """The options of a launch, and the entries of a strip."""
    return cut(LAYOUTS[dtype][kind], dtype, num_classes)


def cut(layout: Layout, dtype: torch.dtype, num_classes: int) -> tuple[dict[str, Any], int]:
    """As ``layout_of``. A chunk has as many classes as 16 bytes hold, or the largest power of two that divides K.

    For 80 classes: 512 chunks, 8 times, of 4 float32 or 8 bfloat16: 16,384 or 32,768 entries, of 206 or 411 anchors.
    """
    vector = min(BYTES_A_CHUNK // dtype.itemsize, num_classes & -num_classes)
    threads, steps = 32 * layout.warps, layout.steps
    chunks = max(threads, threads * layout.entries // vector)
    per_anchor = num_classes // vector
    while _rows(chunks * steps, per_anchor) > MOST_ROWS and (steps > 1 or chunks > threads):
        steps, chunks = (steps // 2, chunks) if steps > 1 else (steps, chunks // 2)
    rows = _rows(chunks * steps, per_anchor)
    options = {"K": num_classes, "VECTOR": vector, "CHUNKS": chunks, "STEPS": steps}
    options |= {"ROWS": 1 << (rows - 1).bit_length(), "PAIRED": layout.paired and vector > 1}
    # Fused multiply-add is named, because triton warns of a default that is going to change.
    return options | {"num_warps": layout.warps, "enable_fp_fusion": True}, chunks * steps * vector


def _rows(chunks: int, per_anchor: int) -> int:
    """The most anchors that so many chunks in a row can touch."""
    return chunks // per_anchor + (2 if chunks % per_anchor else 0)
