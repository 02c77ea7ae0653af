"""Why a run failed: one class per cause, each with a sentence and the next command to type.

The class is found from text alone. The patterns are parts of what torch, NCCL, gloo, Slurm, Linux and this project
print; this project's are held by tests that raise the real errors.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
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
    "killed before start",
    "killed",
    "unknown",
]


@dataclass(frozen=True)
class CommandArguments:
    """What is typed after ``harness run``, ``harness logs`` and ``harness explain``, and the folders."""

    run: str  # target, profile, ...
    logs: str
    explain: str
    data: str  # the data's folder, or a placeholder
    runs: str  # the runs folder


@dataclass(frozen=True)
class Advice:
    """What a class means, and a command template over the fields of ``CommandArguments``."""

    sentence: str
    command: str


RETRY = "harness run {run} --retry-failed"

ADVICE: dict[FailureName, Advice] = {
    "GPU memory": Advice(
        "A GPU's memory did not suffice. See whether something else uses it; else lower the profile's "
        "execution.groups_per_forward (the results stay the same), or take precision bf16 or smaller images, which is "
        "another training.",
        f"nvidia-smi; {RETRY}",
    ),
    "GPU library": Advice(
        "The libraries cuBLAS or cuDNN could not start, or found no way to compute: most often because the GPU's "
        "memory is full, else because another version of the library is found than the one that torch was built with.",
        "nvidia-smi; harness doctor",
    ),
    "GPU build": Advice(
        "This build of torch has no code for this GPU: torch.cuda.get_arch_list() must name an architecture that fits "
        "torch.cuda.get_device_capability(). Install a build of torch that does.",
        "harness doctor",
    ),
    "GPU assignment": Advice(
        "Two processes of the run took one GPU, or one asked for a GPU that it cannot see: each process must see all "
        "GPUs of its node, and there must be one for each.",
        "nvidia-smi; harness doctor",
    ),
    "GPU fault": Advice(
        "A kernel did what it may not (an address out of bounds, a failed assertion), and the process cannot use the "
        "GPU any more. The line that failed is often a later one: CUDA_LAUNCH_BLOCKING=1 shows the right one.",
        "harness logs {logs}",
    ),
    "driver": Advice(
        "The NVIDIA driver is too old for this build of torch: update it, or install a torch for an older CUDA.",
        "nvidia-smi; harness doctor",
    ),
    "host memory": Advice(
        "The machine's main memory did not suffice, or the job's share of it: let fewer runs share the machine (raise "
        "the profile's execution.memory_gb), use fewer loader_workers, or ask for more memory.",
        f"free -g; {RETRY}",
    ),
    "shared memory": Advice(
        "Through /dev/shm loader workers hand images over, and it is too small or full: start the container with more "
        "of it (docker: --shm-size=8g, or --ipc=host), or lower the profile's execution.loader_workers (0 needs none).",
        f"df -h /dev/shm; {RETRY}",
    ),
    "open files": Advice(
        "The processes may open too few files: raise the limit (ulimit -n 4096; docker: --ulimit nofile=4096), or "
        "lower the profile's execution.loader_workers.",
        f"ulimit -n 4096; {RETRY}",
    ),
    "disk full": Advice(
        "No space is left, or a quota is used up; the last checkpoint is intact.", f"df -h {{runs}}; {RETRY}"
    ),
    "not finite": Advice(
        "The loss became NaN or infinite, and would again: the learning rate or the precision does not fit the batch.",
        "harness explain {explain}",
    ),
    "first batch": Advice(
        "The first batch shows that boxes, anchors, inputs or the loss cannot be right; nothing was trained.",
        "harness explain {explain}",
    ),
    "data": Advice("The data are missing, damaged, or not those that the job names.", "harness data verify {data}"),
    "weights": Advice("A weights file or a checkpoint is missing, damaged, or of another network.", "harness doctor"),
    "record": Advice(
        "A file in the run's folder is damaged; the message names it. Move it away, then run again.", RETRY
    ),
    "import": Advice("A library is missing, or of a version that does not fit.", "harness doctor"),
    "network": Advice(
        "The processes of the run lost contact: one of them died, or the network or a port failed. The last checkpoint "
        "is intact.",
        RETRY,
    ),
    "node": Advice(
        "The machine, its GPU, its driver or its file system failed: check it, or run elsewhere.",
        f"harness doctor; {RETRY}",
    ),
    "time": Advice("The job's time was up, or it was preempted. It resumes from its checkpoint.", "harness run {run}"),
    "killed before start": Advice("The process was ended before the training began; nothing was lost.", RETRY),
    "killed": Advice(
        "The process was killed and could not save: by someone, or by the kernel when memory ran out. The run resumes "
        "from its last checkpoint.",
        RETRY,
    ),
    "unknown": Advice("An error of no known class; the log shows it in full.", "harness logs {logs}"),
}

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
    (
        "time",
        r"DUE TO TIME LIMIT|DUE TO PREEMPTION|\bTIMEOUT\b|job is timed-out|timed-out too many times|PREEMPTED|"
        r"before their time was up",
    ),
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


def advise(name: FailureName, arguments: CommandArguments) -> tuple[str, str]:
    """The class's sentence, and the command to type next."""
    advice = ADVICE[name]
    return advice.sentence, advice.command.format(**vars(arguments))


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
