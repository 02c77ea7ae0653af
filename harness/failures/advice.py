"""What to do about each class of failures: a sentence, and the next command to type."""

from __future__ import annotations

from dataclasses import dataclass

from harness.failures.classes import FailureName


@dataclass(frozen=True)
class CommandArguments:
    """What is typed after ``harness run``, ``harness logs`` and ``harness explain``, and the folders.

    cluster: the cluster file of a run that was submitted, which decides on its memory and time; "" for a local run.
    """

    run: str  # target, profile, cluster, ...
    logs: str
    explain: str
    data: str  # the data's folder, or a placeholder
    runs: str  # the runs folder
    cluster: str = ""


@dataclass(frozen=True)
class Advice:
    """What a class means, and a command template over the fields of ``CommandArguments``.

    slurm_sentence, slurm_command: of a run that was submitted to Slurm, where they differ.
    """

    sentence: str
    command: str
    slurm_sentence: str = ""
    slurm_command: str = ""


RETRY = "harness run {run} --retry-failed"

ADVICE: dict[FailureName, Advice] = {
    "GPU memory": Advice(
        "A GPU's memory did not suffice. See whether something else uses it; else lower the profile's "
        "execution.groups_per_forward (the results stay the same), or take precision bf16 or smaller images, which is "
        "another training.",
        f"nvidia-smi; {RETRY}",
        "A GPU's memory did not suffice: lower the profile's execution.groups_per_forward (the results stay the same), "
        "choose GPUs with more memory in the cluster file (constraint, partition), or take precision bf16 or smaller "
        "images, which is another training.",
        RETRY,
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
        "the profile's execution.memory_gb), or use fewer of its execution.loader_workers.",
        f"free -g; {RETRY}",
        "The job's share of main memory did not suffice: raise memory_gb_per_gpu in the cluster file, or use fewer of "
        "the profile's execution.loader_workers.",
        RETRY,
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
    "time": Advice(
        "The job's time was up. It resumes from its newest checkpoint; where it wins too little in each start, raise "
        "time_minutes in the cluster file, or lower the profile's execution.checkpoint_every.",
        "harness run {run}",
    ),
    "preempted": Advice(
        "The job made room for another one and was not queued again. It resumes from its newest checkpoint.",
        "harness run {run}",
    ),
    "no progress": Advice(
        "The run got no further for much longer than its own pace allows, and was ended; its log has what each process "
        "did then. Often a file server, the network between GPUs or a full /dev/shm is the cause. The last checkpoint "
        "is intact.",
        f"harness logs {{logs}} --lines 200; {RETRY}",
    ),
    "died before start": Advice(
        "It ended before Python began: its last line tells why. On a cluster, setup, python and container of the "
        "cluster file decide what begins.",
        f"harness logs {{logs}} --rank 0; {RETRY}",
        "It ended before Python began: its last line tells why. The cluster file's setup, python and container decide "
        "what begins; one short job tries them.",
        "harness doctor --cluster {cluster}",
    ),
    "killed before start": Advice("The process was ended before the training began; nothing was lost.", RETRY),
    "killed": Advice(
        "The process was killed and could not save: by someone, or by the kernel when memory ran out. The run resumes "
        "from its last checkpoint.",
        RETRY,
    ),
    "unknown": Advice("An error of no known class; the log shows it in full.", "harness logs {logs}"),
}


def advise(name: FailureName, arguments: CommandArguments) -> tuple[str, str]:
    """The class's sentence, and the command to type next."""
    advice = ADVICE[name]
    sentence, command = advice.sentence, advice.command
    if arguments.cluster:
        sentence, command = advice.slurm_sentence or sentence, advice.slurm_command or command
    return sentence, command.format(**vars(arguments))
