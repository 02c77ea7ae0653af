"""Versions and hardware of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detector.runs.provenance import Start

if TYPE_CHECKING:
    from detector.device.world import World
    from detector.runs.code import Code

# An environment variable and its value: with it cuBLAS, which reads it when it is first used, repeats its bits.
CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def describe_environment(world: World) -> dict[str, str]:
    """Versions and hardware, without the names of hosts, users or folders."""
    import platform
    from importlib.metadata import version

    import torch

    on_gpu = world.device.type == "cuda"
    device = torch.cuda.get_device_name(world.device) if on_gpu else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("torchvision", "pycocotools", "numpy", "pillow", "numba")},
        **(_gpu_versions() if on_gpu else {}),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": torch.get_float32_matmul_precision(),  # of float32 products: torch's flag
        "device": f"{world.device.type} ({device})",
        "processes": str(world.size),
        "threads": str(torch.get_num_threads()),
    }


def start_here(
    world: World,
    code: Code,
    precision: str,
    *,
    groups_per_forward: int = 1,
    compiled: bool = False,
    deterministic: bool = False,
) -> Start:
    """This process's training or evaluation, begun now, after no step."""
    from datetime import UTC, datetime

    import torch

    return Start(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        code=code,
        environment=describe_environment(world),
        processes=world.size,
        threads=torch.get_num_threads(),
        precision=precision,
        groups_per_forward=groups_per_forward,
        compiled=compiled,
        deterministic=deterministic and world.device.type == "cuda",
    )


def _gpu_versions() -> dict[str, str]:
    """Of what computes on a GPU: cuDNN, Triton, and the driver, as the highest CUDA version that it knows."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    try:
        found["triton"] = version("triton")
    except PackageNotFoundError:
        found["triton"] = "none"
    return found | {"driver": _driver()}


def _driver() -> str:
    """Version of the GPU's driver and the highest CUDA version that it knows, as "580.95.05 (CUDA 13.0)"."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:  # a container without the library, say
        return f"unknown ({error})"
    return f"{version} (CUDA {cuda // 1000}.{cuda % 1000 // 10})"
