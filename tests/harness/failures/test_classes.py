"""Classes of failures, by the texts that torch, NCCL, gloo, Slurm, Linux and this project really print."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from typer.main import get_command

from detector.data.coco.index import load_index
from detector.data.workers.room import death_of_worker, lack_of_files, lack_of_memory
from detector.errors import HarnessError, TrainingError
from detector.runs.assignment import WORKER_LOG, AnchorRanges
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.sanity.first_batch import FirstLook, check_anchors, check_first_loss, check_scores
from detector.storage.reading import read_json
from detector.training.window import Window
from detector.weights import checkpoint
from detector.weights.find import ensure_weights
from detector.weights.read import read_weights
from detector.worker.reports import Heartbeat, _describe, log_to, report_failure
from drloss.config import GroupCounts
from harness.cli import app
from harness.failures.advice import ADVICE, CommandArguments, advise
from harness.failures.classes import (
    FailureName,
    classify,
    killed_by,
    last_error,
    silent_end,
)
from harness.failures.log_tail import last_word
from support.micro import ALONE

MESSAGES: list[tuple[FailureName, str]] = [
    (
        "GPU memory",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 15.77 GiB of "
        "which 1.12 GiB is free. Including non-PyTorch memory, this process has 14.64 GiB memory in use.",
    ),
    ("GPU memory", "RuntimeError: CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ("GPU memory", "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    (
        "GPU memory",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled cuda error, NCCL "
        "version 2.21.5\nLast error:\nCuda failure 2 'out of memory'",
    ),
    ("GPU memory", "RuntimeError: Triton Error [CUDA]: out of memory"),
    ("GPU memory", "RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ("GPU library", "RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ("GPU library", "RuntimeError: cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    ("GPU library", "RuntimeError: GET was unable to find an engine to execute this computation"),
    ("GPU library", "RuntimeError: cuDNN error: CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH"),
    (
        "GPU build",
        "AcceleratorError: CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors "
        "might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.",
    ),
    (
        "GPU build",
        "UserWarning: NVIDIA B200 with CUDA capability sm_100 is not compatible with the current PyTorch installation.",
    ),
    ("GPU build", "AssertionError: Torch not compiled with CUDA enabled"),
    ("GPU build", "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"),
    ("GPU build", "NCCL WARN Cuda failure 209 'no kernel image is available for execution on the device'"),
    (
        "driver",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update",
    ),
    ("driver", "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
    ("driver", "RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    ("GPU assignment", "AcceleratorError: CUDA error: invalid device ordinal\nGPU device may be out of range"),
    (
        "GPU assignment",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:94, invalid usage (run with "
        "NCCL_DEBUG=WARN for details), NCCL version 2.27.5\nncclInvalidUsage: This usually reflects invalid usage of "
        "NCCL library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 3b000",
    ),
    ("GPU fault", "AcceleratorError: CUDA error: an illegal memory access was encountered"),
    ("GPU fault", "RuntimeError: CUDA error: misaligned address"),
    ("GPU fault", "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, ...)`"),
    (
        "GPU fault",
        "[rank0]:[E1128 ProcessGroupNCCL.cpp:2068] [PG ID 0 PG GUID 0 Rank 0] Process group watchdog thread terminated "
        "with exception: CUDA error: an illegal memory access was encountered",
    ),
    ("GPU fault", "RuntimeError: CUDA error: device-side assert triggered"),
    (
        "shared memory",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:94, unhandled system error, "
        "NCCL version 2.27.5\nLast error:\nError while creating shared memory segment /dev/shm/nccl-Lq0xVh "
        "(size 9637888), error: No space left on device (28)",
    ),
    (
        "host memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
    ),
    ("host memory", "OSError: [Errno 12] Cannot allocate memory"),
    ("host memory", "_ArrayMemoryError: Unable to allocate 1.2 TiB for an array with shape (400000, 400000)"),
    ("host memory", "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. "),
    (
        "shared memory",
        "RuntimeError: DataLoader worker (pid 17) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit.",
    ),
    (
        "shared memory",
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_6029_1881_20>: No space left on device",
    ),
    ("shared memory", lack_of_memory(4, 2**29, 2**26, batch_bytes=2**25)),
    ("shared memory", lack_of_memory(4, None, None)),
    ("open files", "OSError: [Errno 24] Too many open files: '/data/train2017/000000000009.jpg'"),
    ("open files", lack_of_files(4, needed=54, limit=35)),
    ("host memory", str(death_of_worker(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 4))),
    ("host memory", str(death_of_worker(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), 4))),
    (
        "shared memory",
        str(death_of_worker(RuntimeError("DataLoader worker (pid 17) is killed by signal: Bus error. It is"), 4)),
    ),
    ("disk full", "OSError: [Errno 28] No space left on device"),
    ("disk full", "OSError: [Errno 122] Disk quota exceeded: '/runs/0123456789abcdef/.status.json.7.tmp'"),
    ("import", "ModuleNotFoundError: No module named 'pycocotools'"),
    ("import", "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    ("import", "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found"),
    (
        "network",
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3001",
    ),
    ("network", "RuntimeError: Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144]"),
    (
        "network",
        "DistBackendError: [1] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value "
        "store by key '0', but store->get('0') got error: Connection reset by peer",
    ),
    (
        "network",
        "[rank3]:[E ProcessGroupNCCL.cpp:616] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7",
    ),
    (
        "network",
        "DistNetworkError: The server socket has failed to listen on any local network address. port: 29500, useIpv6: "
        "false, code: -98, name: EADDRINUSE, message: address already in use",
    ),
    ("network", "DistStoreError: Timed out after 1801 seconds waiting for clients. 1/2 clients joined."),
    (
        "network",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:94, unhandled system error (run "
        "with NCCL_DEBUG=INFO for details), NCCL version 2.27.5\nncclSystemError: System call (e.g. socket, malloc) or "
        "external library call failed or device error.\nLast error:\nsocketPollConnect: connect to 10.0.0.2<41523> "
        "returned Connection refused",
    ),
    (
        "network",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1025, remote process "
        "exited or there was a network error, NCCL version 2.27.5\nncclRemoteError: A call failed possibly due to it",
    ),
    ("node", "RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    (
        "node",
        "DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:94, unhandled cuda error, NCCL "
        "version 2.27.5\nLast error:\nCuda failure 214 'uncorrectable ECC error encountered'",
    ),
    ("node", "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution"),
    ("node", "[73151.4] NVRM: Xid (PCI:0000:3b:00): 79, pid=4242, name=python, GPU has fallen off the bus."),
    ("node", "[73151.4] NVRM: Xid (PCI:0000:3b:00): 119, pid=4242, name=python, Timeout waiting for RPC from GSP!"),
    (
        "node",
        "Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system",
    ),
    ("node", "Failed to initialize NVML: Driver/library version mismatch"),
    ("node", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
    ("node", "RuntimeError: CUDA error: unspecified launch failure"),
    ("node", "RuntimeError: No CUDA GPUs are available: no CUDA-capable device is detected"),
    ("node", "AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    ("node", "OSError: [Errno 116] Stale file handle: '/data/train2017/000000000009.jpg'"),
    ("no progress", "no progress for 12 min; its processes were ended"),
    (
        "network",
        "network: NCCL error; given up: no progress in 3 retries (max_retries in the cluster file)",
    ),
    ("killed before start", silent_end("starting")),
    ("killed", silent_end("training, iteration 20 of 60 (killed, or out of memory?)")),
    ("killed", killed_by(9)),
    ("unknown", "KeyError: 'bbox'"),
    # A program's own fault, which another node would show too.
    (
        "unknown",
        "[73151.4] NVRM: Xid (PCI:0000:3b:00): 13, pid=4242, name=python, Graphics Exception: ESR 0x504730=0x9",
    ),
    ("unknown", ""),
]


@pytest.mark.parametrize(("expected", "message"), MESSAGES)
def test_classify_knows_the_message(expected: FailureName, message: str) -> None:
    assert classify(message) == expected


@pytest.mark.parametrize(("expected", "text"), [(name, text) for name, text in MESSAGES if name != "unknown"])
def test_classify_knows_it_in_the_output_of_a_process_without_last_words(expected: FailureName, text: str) -> None:
    output = f"submitit INFO - Starting\n[Gloo] Rank 0 is connected to 1 peer ranks\nNCCL version 2.21.5\n{text}\n"
    assert classify("", output) == expected


def test_classify_harmless_output_is_no_cause() -> None:
    output = "[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1\n"
    assert classify("", f"{output}NCCL version 2.21.5+cuda12.4\nNCCL_TIMEOUT=1800\n") == "unknown"


@pytest.mark.parametrize(
    ("expected", "tail"),
    [
        ("time", "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-05-01T10:00:00 DUE TO TIME LIMIT ***"),
        ("preempted", "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-05-01T10:00:00 DUE TO PREEMPTION ***"),
        (
            "node",
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2024-05-01T10:00:00 DUE TO NODE FAILURE, SEE LOG ***",
        ),
        (
            "host memory",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been ",
        ),
        ("host memory", "Out of memory: Killed process 4242 (python) total-vm:9000kB"),
        ("import", "Traceback (most recent call last):\nModuleNotFoundError: No module named 'detector'"),
    ],
)
def test_classify_prefers_the_cause_in_the_output_to_the_launchers_vague_words(
    expected: FailureName, tail: str
) -> None:
    assert classify(silent_end("training, iteration 5 of 60"), tail) == expected
    assert classify("", tail) == expected


@pytest.mark.parametrize(
    ("exit_code", "started", "expected"),
    [
        (-9, True, "killed"),
        (137, True, "killed"),
        (140, False, "killed before start"),  # USR2 during the imports
        (-12, False, "killed before start"),
        (1, True, "unknown"),
        (None, True, "unknown"),
        (128, True, "unknown"),
        (255, True, "unknown"),
    ],
)
def test_classify_reads_the_exit_code_where_nothing_else_speaks(
    exit_code: int | None, started: bool, expected: FailureName
) -> None:
    assert classify("", exit_code=exit_code, started=started) == expected


def test_classify_a_message_comes_before_the_exit_code() -> None:
    assert classify("OSError: [Errno 28] No space left on device", exit_code=-9) == "disk full"


def not_finite() -> None:
    window = Window()
    window.add({"loss": torch.tensor(float("nan"))}, images=2)
    window.close(ALONE, 3)


LOOK = FirstLook(0.5, GroupCounts((900,), 900, 1000), (0,))


@pytest.mark.parametrize(
    ("expected", "fail"),
    [
        ("not finite", not_finite),
        ("first batch", lambda: check_scores([LOOK], 0.01)),
        ("first batch", lambda: check_first_loss(9.0, 1.0)),
        ("first batch", lambda: check_anchors([LOOK], AnchorRanges(positives=(5, 10), borderline=(5, 10)), ALONE)),
    ],
)
def test_classify_knows_our_own_errors_as_they_are_worded_now(expected: FailureName, fail) -> None:
    with pytest.raises(TrainingError) as caught:
        fail()
    assert classify(_describe(caught.value)) == expected


FILE_ERRORS: list[tuple[FailureName, str]] = [
    *(("data", "no annotations"), ("record", "half a file"), ("disk full", "full"), ("import", "no library")),
    *(("weights", "damaged checkpoint"), ("weights", "no checkpoint"), ("weights", "no weights file")),
    *(("weights", "no file to start from"), ("unknown", "another error")),
]


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Puts back what ``log_to`` changes for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(("kind", "error"), FILE_ERRORS)
def test_classify_knows_an_error_in_what_the_worker_wrote(kind: FailureName, error: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")

    def full() -> None:
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    fail = {
        "no annotations": lambda: load_index(tmp_path, "val2017"),
        "damaged checkpoint": lambda: checkpoint.load(tmp_path / "bad.json"),
        "no checkpoint": lambda: checkpoint.load(tmp_path / "gone.pt"),
        "no weights file": lambda: read_weights(tmp_path / "gone.pth"),
        "no file to start from": lambda: ensure_weights("caffe2", "resnet50", file=tmp_path / "gone.pkl"),
        "half a file": lambda: read_json(tmp_path / "bad.json", Status),
        "full": full,
        "no library": lambda: importlib.import_module("no_such_library"),
        "another error": lambda: {}["bbox"],
    }[error]
    with pytest.raises((HarnessError, OSError, ImportError, KeyError)) as caught:
        fail()
    run = RunDir(tmp_path)
    log_to(run.log)
    logging.getLogger(WORKER_LOG).error("CUDA out of memory")  # of an earlier start
    report_failure(run, 0, Heartbeat(run.status, 8), caught.value)
    status, log = run.read_status(), run.log.read_text()
    assert status is not None
    assert classify(status.message, log) == kind
    newest = last_error(log)
    assert type(caught.value).__name__ in newest
    assert "CUDA" in log.removesuffix(newest)
    assert "CUDA" not in newest
    if kind not in ("data", "unknown"):
        assert classify(status.message) == kind  # the heartbeat alone, where the log cannot be read


def test_classify_reads_the_class_of_a_reworded_error_in_the_log() -> None:
    log = "2024-05-01 10:00:00,000 ERROR detector.worker: DataError: something about pictures\n"
    assert classify("something about pictures", log) == "data"
    assert classify("something else", log.replace("DataError", "TrainingError")) == "unknown"


def test_last_error_leaves_out_what_an_earlier_start_logged() -> None:
    earlier = "2024-05-01 10:00:00,000 ERROR detector.worker: CUDA out of memory\nTraceback\n"
    newest = "2024-05-02 10:00:00,000 ERROR detector.worker: Traceback\n  KeyError: 'x'\n"
    assert last_error(earlier + newest) == newest
    assert classify("KeyError: 'x'", earlier + newest) == "unknown"
    assert last_error("no such line") == "no such line"


ARGUMENTS = CommandArguments(
    run="table2/L6 --profile tiny", logs="0123456789abcdef", explain="table2/L6", data="/data", runs="/runs"
)


@pytest.mark.parametrize("cluster", ["", "mine"])
@pytest.mark.parametrize("name", get_args(FailureName))
def test_advice_is_a_sentence_and_a_command_that_exists(name: FailureName, cluster: str) -> None:
    sentence, command = advise(name, replace(ARGUMENTS, cluster=cluster))
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert "{" not in command
    for part in (words.split() for words in command.split("; ")):
        if part[0] != "harness":
            assert part[0] in ("nvidia-smi", "free", "df", "ulimit")
            continue
        found = get_command(app).commands[part[1]]  # type: ignore[attr-defined]
        options = [option for parameter in found.params for option in parameter.opts]
        assert all(word in options for word in part[2:] if word.startswith("--"))
    assert set(ADVICE) == set(get_args(FailureName))


@pytest.mark.parametrize(
    ("name", "here", "on_slurm"),
    [
        ("host memory", "execution.memory_gb", "memory_gb_per_gpu in the cluster file"),
        ("GPU memory", "execution.groups_per_forward", "GPUs with more memory in the cluster file"),
        ("died before start", "its last line tells why", "harness doctor --cluster mine"),
    ],
)
def test_advice_names_the_key_that_matters_where_the_run_was_begun(name: FailureName, here: str, on_slurm: str) -> None:
    assert here in " ".join(advise(name, ARGUMENTS))
    assert "memory_gb_per_gpu" not in " ".join(advise(name, ARGUMENTS))
    assert on_slurm in " ".join(advise(name, replace(ARGUMENTS, cluster="mine")))
    assert "execution.memory_gb" not in " ".join(advise(name, replace(ARGUMENTS, cluster="mine")))


def test_last_word_is_the_runs_own_where_it_has_one() -> None:
    around = "harness: start 0\n{}srun: error: n1: task 0: Exited with exit code 127\n"
    for where in ("", "/var/spool/slurmd/job00009/slurm_script: line 57: "):
        assert last_word(around.format(f"{where}apptainer: command not found\n")) == "apptainer: command not found"
    assert last_word(around.format("")) == "srun: error: n1: task 0: Exited with exit code 127"
    assert last_word(" \n") == ""
