"""The benchmarks that ``python -m benchmarks`` runs, in the order in which they are shown."""

from __future__ import annotations

ON_CPU = ("losses", "pairs", "data", "evaluation", "step", "processes", "commands")
ON_GPU = ("gpu_losses", "gpu_step", "gpu_shapes")
MODULES = {name: f"benchmarks.speed.{name}" for name in ON_CPU} | {
    name: f"benchmarks.gpu.{name.removeprefix('gpu_')}" for name in ON_GPU
}
