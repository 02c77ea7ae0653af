"""Why a run failed: one class per cause.

The class is found from text alone. The patterns are parts of what torch, NCCL, gloo, Slurm, Linux and this project
print; this project's are held by tests that raise the real errors.
"""

from __future__ import annotations

import re
import signal
from typing import Literal

from detector.runs.log_lines import of_worker

FailureName = Literal[
    "GPU memory",
    "GPU library",
    "GPU build",
    "GPU assignment",
    "GPU fault",
    "driver",
    "host memory",
    "shared memory",
    "open files",
    "disk full",
    "not finite",
    "first batch",
    "data",
    "weights",
    "record",
    "import",
    "network",
    "node",
    "time",
    "preempted",
    "no progress",
    "died before start",
    "killed before start",
    "killed",
    "unknown",
]


# Of the numbers that NVIDIA's driver writes to the kernel's log, those of broken hardware: memory errors (48, 63, 64,
# 92, 94, 95), NVLink (74), a GPU off the bus (79), its own processors (61, 62, 119, 120). Others are the program's.
_XIDS = "48|61|62|63|64|74|79|92|94|95|119|120"

_SILENT_END = "ended without a word while "


def silent_end(where: str) -> str:
    """The message for a process that ended without one. where: "starting", or the phase and the iteration."""
    return f"the process {_SILENT_END}{where}"


def killed_by(number: int) -> str:
    """The message for a run of which a signal killed a process."""
    return f"a process was killed (signal {number})"


# Tried in this order: texts that name a cause come before texts that are often only its consequence.
_TEXTS: tuple[tuple[FailureName, str], ...] = (
    (
        "shared memory",  # it can be full although no disk is. The first text is NCCL's
        r"Error while creating shared memory segment|allocate shared memory|out of shared memory|"
        r"/dev/shm, through which loader workers|is killed by signal: Bus error",
    ),
    ("open files", r"Too many open files|\bE[MN]FILE\b"),
    ("disk full", r"No space left on device|Disk quota exceeded|\bENOSPC\b|PytorchStreamWriter failed writing"),
    (
        "GPU memory",
        r"CUDA out of memory|CUDA error: out of memory|Cuda failure 2? ?'out of memory'|CUBLAS_STATUS_ALLOC_FAILED|"
        r"CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|cudaErrorMemoryAllocation|"
        r"CUDA driver error: out of memory|Triton Error \[CUDA\]: out of memory",
    ),
    (
        "host memory",
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|\bMemoryError\b|Cannot allocate memory|"
        r"oom[-_ ]kill|Out Of Memory|OUT_OF_MEMORY|Out of memory: Killed process|exceeded (?:job |step )?memory limit|"
        r"DataLoader worker \(pid\(?s?\)?[^)]*\) is killed by signal: Killed|"
        r"Loader worker [\d, ]+ (?:was killed by signal: Killed|ended without a word)|"
        r"Unable to allocate .* for an array",
    ),
    ("not finite", r"The loss is not finite"),
    ("first batch", r"The mean score before the first step|anchors (an|per) image are |The first classification loss"),
    # Our own errors: by their class, which the log names before the message, or by the message.
    ("data", r"\bDataError\b|harness data (?:verify|synth|download)"),
    ("weights", r"\bWeightsError\b|is not a readable checkpoint|There is no weights file|No checkpoint at "),
    ("record", r"\bRecordError\b|Move it away|\bcannot be read as (?:Status|TrainJob|Record|Inputs)\b"),
    (
        "GPU build",
        r"no kernel image is available|device kernel image is invalid|cudaErrorNoKernelImageForDevice|"
        r"not compatible with the current PyTorch installation|Torch not compiled with CUDA enabled|"
        r"is not defined for option 'gpu-name'|Value 'sm_\w+' is not defined",
    ),
    (
        "driver",
        r"CUDA driver version is insufficient|driver on your system is too old|"
        r"PTX was compiled with an unsupported toolchain|Unsupported \.version|"
        r"forward compatibility was attempted on non supported HW|"
        r"unsupported display driver / cuda driver combination",
    ),
    (
        "import",
        r"\bModuleNotFoundError\b|\bImportError\b|This run cannot begin: |"
        r"cannot open shared object file|GLIBC(?:XX)?_[\d.]+' not found",
    ),
    (
        "node",
        r"uncorrectable ECC|uncorrectable NVLink|over nvlink or a hardware error|fallen off the bus|GPU is lost|"
        rf"NVRM: Xid [^\n]*?\): (?:{_XIDS}),|[Dd]river/library version mismatch|NVIDIA-SMI has failed|"
        r"NODE[_ ]FAIL|CUDA-capable device\(s\) is/are busy|no CUDA-capable device|Found no NVIDIA driver|"
        r"CUDA unknown error|CUDA error: unknown error|CUDA driver initialization failed|"
        r"couldn't communicate with the NVIDIA driver|system not yet initialized|hardware stack error|"
        r"Stale file handle|Input/output error|Transport endpoint is not connected|unspecified launch failure",
    ),
    ("GPU assignment", r"Duplicate GPU detected|invalid device ordinal"),
    (
        "GPU fault",
        r"illegal memory access|misaligned address|illegal instruction was encountered|invalid program counter|"
        r"device-side assert|operation not supported on global/shared address space|"
        r"launch timed out and was terminated|CU(?:BLAS|DNN)_STATUS_EXECUTION_FAILED",
    ),
    (
        "GPU library",
        r"CU(?:BLAS|DNN|SOLVER)_STATUS_NOT_INITIALIZED|CUDNN_STATUS_(?:SUB)?(?:LIBRARY_)?VERSION_MISMATCH|"
        r"unable to find an engine to execute this computation|Unable to load any of .*libcudnn|"
        r"Could not load library libcudnn",
    ),
    ("preempted", r"DUE TO PREEMPTION|PREEMPTED"),
    ("time", r"DUE TO TIME LIMIT|\bTIMEOUT\b|before their time was up|ended by their time limit"),
    ("no progress", r"no progress for \d"),
    (
        "network",
        r"NCCL [Ee]rror|NCCL timeout|nccl(?:System|Remote|Internal|UnhandledCuda)Error|Watchdog caught collective|"
        r"Gloo connectFullMesh|gloo/transport|\bDist(?:Network|Store|Backend)Error\b|"
        r"Connection (?:closed|reset) by peer|Connection refused|Socket Timeout|EADDRINUSE|"
        r"[Aa]ddress already in use|store->get|No route to host",
    ),
    ("killed before start", rf"{_SILENT_END}starting"),
    ("killed", rf"{_SILENT_END}|a process was killed \(signal \d+\)"),
)
_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _TEXTS)
# These say how a run ended, not why: any cause that the log names comes before them.
_VAGUE = ("killed before start", "killed")


def classify(message: str, tail: str = "", *, exit_code: int | None = None, started: bool = True) -> FailureName:
    """The class of a failure.

    message: of the heartbeat (``Status.message``), or of the launcher. tail: the end of the log, or of what the process
    printed, since its newest start. exit_code: negative, or 128 + number, for a signal. started: whether there was a
    heartbeat.
    """
    exact = _first(message)
    if exact is not None and exact not in _VAGUE:
        return exact
    found = _first(last_error(tail))
    if found is not None and found not in _VAGUE:
        return found
    number = _signal(exit_code)
    if number is not None:
        return "killed" if started else "killed before start"
    return exact or found or "unknown"


def last_error(text: str) -> str:
    """The end of a worker's log, from the last error on; all of ``text`` where there is none."""
    at = text.rfind(of_worker("ERROR"))
    return text if at < 0 else text[text.rfind("\n", 0, at) + 1 :]


def _first(text: str) -> FailureName | None:
    return next((name for name, pattern in _PATTERNS if pattern.search(text)), None)


def _signal(exit_code: int | None) -> signal.Signals | None:
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    return signal.Signals(number) if number in signal.valid_signals() and number > 0 else None
