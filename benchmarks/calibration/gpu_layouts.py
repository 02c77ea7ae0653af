"""The time of both passes of a loss on a GPU, for other ways to cut the logits than ``drloss.kernels.gpu_layouts`` has.

    python -m benchmarks.calibration.gpu_layouts [--images 16] [--loss dr | focal] [--dtype float32 bfloat16]

Prints one line per layout: milliseconds of the first pass with the small kernels after it, and of the second, and the
share of the time that a copy of the same size takes. The table in ``gpu_layouts`` is then changed by hand, because the
last bits of a sum depend on it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median

import torch
from torch import Tensor

from benchmarks.speed.losses import COCO_MAPS, NUM_CLASSES, make_input
from drloss.kernels import gpu, gpu_layouts
from drloss.kernels.dispatch import PointwiseLoss, Ranking
from drloss.kernels.gpu_layouts import Layout

RANKING = Ranking(12.5, 1.0, 0.5, "logistic", 6.0, False, 1, 2)


def candidates(dtype: torch.dtype) -> list[Layout]:
    """Entries that a thread has at a time, steps, warps; in half precision two divisions by one, or each its own."""
    entries = (8, 16, 32) if dtype == torch.float32 else (16, 32, 64)
    paired = (False,) if dtype == torch.float32 else (False, True)
    return [Layout(*numbers) for numbers in product(entries, (2, 4, 8, 16), (4, 8), paired)]


def measure(loss: str, levels: list[Tensor], labels: Tensor) -> tuple[float, float]:
    """Milliseconds of the forward kernels and of the backward one."""
    one = torch.ones((), device=labels.device)
    if loss == "dr":
        forward: Callable[[], tuple[Tensor, Tensor]] = partial(gpu.ranking_loss, levels, labels, RANKING)
        backward = partial(gpu.ranking_gradient, levels, labels, RANKING, forward()[1], one)
    else:
        focal = PointwiseLoss("focal", 0.25, 2.0, True, 2)
        forward = partial(gpu.pointwise_loss, levels, labels, focal)
        backward = partial(gpu.pointwise_gradient, levels, labels, focal, forward()[1], one)
    return milliseconds(forward), milliseconds(backward)


def milliseconds(work: Callable[[], object], rounds: int = 15) -> float:
    """Median time on the device, without the host's: the launches of a round are captured in a CUDA graph."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--loss", choices=("dr", "focal"), default="dr")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), nargs="+", default=["float32", "bfloat16"]
    )
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("No GPU is found. This measures one; run it where torch.cuda.is_available() is true.")
    for dtype in (getattr(torch, name) for name in chosen.dtype):
        given = make_input(COCO_MAPS, chosen.images, device="cuda")
        maps = [part.detach().to(dtype).permute(0, 2, 3, 1) for part in given.maps]
        levels = [part.reshape(len(part), -1, NUM_CLASSES) for part in maps]
        copies = [torch.empty_like(level) for level in levels]
        copy = milliseconds(lambda pairs=tuple(zip(copies, levels, strict=True)): [to.copy_(of) for to, of in pairs])
        print(f"{torch.cuda.get_device_name()}, {chosen.loss}, {chosen.images} images, {dtype}: a copy {copy:.3f} ms")
        present = gpu_layouts.LAYOUTS[dtype]
        for layout in (None, *candidates(dtype)):
            gpu_layouts.layout_of.cache_clear()
            gpu_layouts.LAYOUTS[dtype] = present if layout is None else {"sum": layout, "write": layout}
            first, second = measure(chosen.loss, levels, given.labels)
            # The first pass reads half of what a copy moves; the second as much as a copy.
            shares = f"{copy / 2 / first:6.1%} {copy / second:6.1%} {1.5 * copy / (first + second):6.1%}"
            print(f"{first:7.3f} {second:7.3f} ms {shares}  {layout or 'as it is'}", flush=True)
        gpu_layouts.LAYOUTS[dtype] = present
        gpu_layouts.layout_of.cache_clear()


if __name__ == "__main__":
    main()
