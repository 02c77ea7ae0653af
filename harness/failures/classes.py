"""Why a run failed, in one of a dozen classes, each with a sentence and the next command to type. Text alone decides.

The patterns are fragments of what torch, NCCL, gloo, Slurm, Linux and this project print.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal

from detector.runs.assignment import WORKER_LOG

FailureName = Literal[
    "GPU memory",
    "host memory",
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
class Context:
    """What the next command is about. run: arguments of ``harness run`` (target, profile, ...); logs: of ``logs``."""

    run: str
    logs: str
    explain: str
    data: str  # the data's folder, or a placeholder
    runs: str  # the runs folder


@dataclass(frozen=True)
class Advice:
    """What a class means, and a command template over the fields of ``Context``."""

    sentence: str
    command: str


RETRY = "harness run {run} --retry-failed"

ADVICE: dict[FailureName, Advice] = {
    "GPU memory": Advice(
        "A GPU's memory did not suffice: see whether something else uses it, then run it again.",
        f"nvidia-smi; {RETRY}",
    ),
    "host memory": Advice(
        "The machine's main memory did not suffice, or the job's share of it: let fewer runs go side by side (the "
        "profile's execution.memory_gb), take fewer loader_workers, or ask for more.",
        f"free -g; {RETRY}",
    ),
    "disk full": Advice(
        "No space is left, or a quota is used up; the checkpoint before is whole.", f"df -h {{runs}}; {RETRY}"
    ),
    "not finite": Advice(
        "The loss became NaN or infinite, and will again: a learning rate or precision that does not fit the batch.",
        "harness explain {explain}",
    ),
    "first batch": Advice(
        "The first batch shows that boxes, anchors, inputs or the loss cannot be right; nothing was trained.",
        "harness explain {explain}",
    ),
    "data": Advice("The data are missing, damaged, or not those of the job.", "harness data verify {data}"),
    "weights": Advice("A weights file or a checkpoint is missing, damaged, or of another network.", "harness doctor"),
    "record": Advice(
        "A file of the run folder is damaged; the message names it. Move it away, then run it again.", RETRY
    ),
    "import": Advice("A library is missing, or of a version that does not fit.", "harness doctor"),
    "network": Advice(
        "The processes of the run lost each other: one of them died, or the network or a port did not hold. The "
        "checkpoint before is whole.",
        RETRY,
    ),
    "node": Advice(
        "The machine, its GPU, its driver or its file system failed: look at it, or run elsewhere.",
        f"harness doctor; {RETRY}",
    ),
    "time": Advice("The job's time was up, or it was preempted. It goes on from its checkpoint.", "harness run {run}"),
    "killed before start": Advice("The process was ended before the training began; nothing was lost.", RETRY),
    "killed": Advice(
        "The process was killed without a chance to save: by someone, or by the kernel for want of memory. It goes on "
        "from the checkpoint before.",
        RETRY,
    ),
    "unknown": Advice("An error of no known class; the log has it in full.", "harness logs {logs}"),
}

# Tried in this order: what names its cause exactly comes before what is often only a consequence of it.
_TEXTS: tuple[tuple[FailureName, str], ...] = (
    ("disk full", r"No space left on device|Disk quota exceeded|\bENOSPC\b|PytorchStreamWriter failed writing"),
    (
        "GPU memory",
        r"CUDA out of memory|CUDA error: out of memory|Cuda failure 2? ?'out of memory'|CUBLAS_STATUS_ALLOC_FAILED|"
        r"CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
    ),
    (
        "host memory",
        r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|\bMemoryError\b|Cannot allocate memory|"
        r"oom[-_ ]kill|Out Of Memory|OUT_OF_MEMORY|Out of memory: Killed process|exceeded (?:job |step )?memory limit|"
        r"out of shared memory|DataLoader worker \(pid\(?s?\)?[^)]*\) is killed by signal: Killed|"
        r"Unable to allocate .* for an array",
    ),
    ("not finite", r"The loss is not finite"),
    ("first batch", r"The mean score before the first step|anchors (an|per) image are |The first classification loss"),
    # Our own errors are told by what they say; in log.txt their class stands before it.
    ("data", r"\bDataError\b|harness data (?:verify|synth|download)"),
    ("weights", r"\bWeightsError\b|is not a readable checkpoint|is no weights file|No checkpoint at "),
    ("record", r"\bRecordError\b|Move it away and run again"),
    (
        "import",
        r"\bModuleNotFoundError\b|\bImportError\b|This run cannot begin: |"
        r"cannot open shared object file|GLIBC(?:XX)?_[\d.]+' not found",
    ),
    (
        "node",
        r"uncorrectable ECC|uncorrectable NVLink|fallen off the bus|GPU is lost|NODE[_ ]FAIL|"
        r"CUDA-capable device\(s\) is/are busy|no CUDA-capable device|CUDA driver version is insufficient|"
        r"Found no NVIDIA driver|driver on your system is too old|CUDA unknown error|CUDA driver initialization failed|"
        r"system not yet initialized|hardware stack error|Stale file handle|Input/output error|"
        r"Transport endpoint is not connected|unspecified launch failure",
    ),
    ("time", r"DUE TO TIME LIMIT|DUE TO PREEMPTION|\bTIMEOUT\b|job is timed-out|timed-out too many times|PREEMPTED"),
    (
        "network",
        r"NCCL [Ee]rror|NCCL timeout|nccl(?:System|Remote|Internal|UnhandledCuda)Error|Watchdog caught collective|"
        r"Gloo connectFullMesh|gloo/transport|\bDist(?:Network|Store|Backend)Error\b|"
        r"Connection (?:closed|reset) by peer|Connection refused|Socket Timeout|EADDRINUSE|"
        r"[Aa]ddress already in use|store->get|No route to host",
    ),
    ("killed before start", r"ended without a word while starting"),
    ("killed", r"ended without a word while|a process was killed \(signal \d+\)"),
)
_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _TEXTS)
# Those of the message alone that say how it ended, not why: anything that the log says comes before them.
_VAGUE = ("killed before start", "killed")


def classify(message: str, tail: str = "", *, exit_code: int | None = None, started: bool = True) -> FailureName:
    """The class of a failure.

    message: the heartbeat's (``Status.message``), or the launcher's. tail: the end of the log or of the process's
    output, of this start. exit_code: negative, or 128 + number, for a signal. started: whether there was a heartbeat.
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


def advise(name: FailureName, context: Context) -> tuple[str, str]:
    """The class's sentence, and the command to type next."""
    advice = ADVICE[name]
    return advice.sentence, advice.command.format(**vars(context))


def last_error(text: str) -> str:
    """From the last error that the log of a worker names to the end; all of it where there is none."""
    at = text.rfind(f" ERROR {WORKER_LOG}: ")
    return text if at < 0 else text[text.rfind("\n", 0, at) + 1 :]


def _first(text: str) -> FailureName | None:
    return next((name for name, pattern in _PATTERNS if pattern.search(text)), None)


def _signal(exit_code: int | None) -> signal.Signals | None:
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    return signal.Signals(number) if number in signal.valid_signals() and number > 0 else None
