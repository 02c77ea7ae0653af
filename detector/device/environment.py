"""Versions and hardware of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detector.device.world import World

# An environment variable and its value: with it cuBLAS, which reads it when it is first used, repeats its bits.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def describe_environment(world: World) -> dict[str, str]:
    """Versions and hardware, without the names of hosts, users or folders."""
    import platform
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("torchvision", "pycocotools", "numpy", "pillow")},
        "device": f"{world.device.type} ({device})",
        "processes": str(world.size),
        "threads": str(torch.get_num_threads()),
    }
