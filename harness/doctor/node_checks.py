"""Checks that one process makes alone on a cluster's node. torch is imported only when they are called."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import resource
import shutil
import socket
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from detector.storage.files import write_json, write_once
from detector.storage.reading import read_json

State = Literal["ok", "note", "fail"]
Answer = tuple[State, str]

# The most that a shipped profile takes: 'paper' on 8 GPUs, each with 10 batches of 2 images of 800 x 1333, 0.5 GiB.
SHARED_MEMORY_GIB = 1.0
OPEN_FILES = 1024  # a process with GPUs and eight loader workers has some hundred open
WHY_LOCKS = "Two commands on two machines could train one run at the same time; queued runs are safe by reservations"


def node_name() -> str:
    """Slurm's name of this node, else the machine's own."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions by name, Python's first; "none" for a package that is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def error_text(error: BaseException) -> str:
    """The first two lines of an error, with its class where the message alone may not say enough."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2])[:500]
    return said if isinstance(error, OSError) and said else f"{type(error).__name__}: {said}"


def links_and_renames(folder: Path, who: str) -> Answer:
    """Whether a rename replaces a file, and a hard link never does. who: for file names that no other process uses."""
    file, link = folder / f"rename-{who}.json", folder / f"link-{who}.json"
    try:
        for number in (1, 2):
            write_json(file, number)
        if (there := read_json(file, int)) != 2:
            return "fail", f"a renamed file read {there} and not 2 in {folder}"
        try:
            first, second = write_once(link, 1), write_once(link, 2)
        except OSError as error:
            return "fail", f"no hard links in {folder} ({error.strerror}); submissions and reservations need them"
        if first and not second:
            return "ok", "atomic renames and hard links work"
        return "fail", (
            f"a hard link replaced a file that was there in {folder}; reservations would not keep people apart"
        )
    finally:
        for path in (file, link):
            path.unlink(missing_ok=True)


def take_lock(path: Path, stack: ExitStack) -> Answer:
    """Lock a file of this process, as runs lock their folder, and hold the lock until ``stack`` is closed."""
    file = stack.enter_context(path.open("a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "fail", f"flock does not work in {path.parent} ({error.strerror}); every run locks its folder with it"
    return "ok", "flock works"


def locks_of_others(paths: Iterable[Path]) -> Answer:
    """Whether this process sees that other processes have locked these files."""
    paths = list(paths)
    for path in paths:
        with open(path, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        return "note", f"{path.name}, locked on another machine, could be locked here again. {WHY_LOCKS}"
    return "ok", "locks of the command's machine" + (" and of another process" if len(paths) > 1 else "") + " hold here"


def imported_from(code: Path) -> Answer:
    """Whether our packages are imported from the copy that was made for the job."""
    import detector
    import drloss

    for package in (detector, drloss):
        found = Path(str(package.__file__)).resolve()
        if not found.is_relative_to(code.resolve()):
            return "fail", (
                f"runs would import {found.parent} and not the copy of the code, {code}; "
                "look for what changes PYTHONPATH in the cluster file's setup, python or container"
            )
    return "ok", "the copy that was made for the job"


def torch_imports() -> Answer:
    """torch with the CUDA that it was built for."""
    import torch

    return "ok", f"{torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}"


def operators_work(device: str = "cpu") -> Answer:
    """torchvision's compiled operators load only with the build of torch that they were made for."""
    import torch
    import torchvision

    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device)
    kept = torchvision.ops.nms(box, torch.ones(1, device=device), 0.5)
    return ("ok" if len(kept) == 1 else "fail"), f"torchvision's NMS keeps {len(kept)} of 1"


def coco_tools_import() -> Answer:
    """The compiled part of pycocotools."""
    from pycocotools import mask

    area = float(mask.area(mask.frPyObjects([[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]], 4, 4))[0])
    return ("ok" if area == 4.0 else "fail"), f"the area of a square of side 2 is {area:g}"


def gpus_work(local_rank: int) -> Answer:
    """What Slurm gave to the node's processes, what torch sees of it, and whether this process's GPU computes."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gave = f"Slurm gave GPUs {given}" if given else "Slurm gave no GPUs (CUDA_VISIBLE_DEVICES)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer says what torch warns of
        available, count = torch.cuda.is_available(), torch.cuda.device_count()
    if not available:
        return "fail", f"{gave}, and torch sees none: {why_no_cuda()}"
    if local_rank >= count:
        return "fail", (
            f"{gave}, torch sees {count}, and process {local_rank} of the node takes GPU {local_rank}: each process "
            "must see all GPUs of its node (nothing of 'extra' may bind them)"
        )
    state, operators = operators_work(f"cuda:{local_rank}")
    names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
    return state, f"{gave}, torch sees {count} ({', '.join(names)}); there {operators}"


def why_no_cuda() -> str:
    """What torch says where it sees no GPU."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build for CPUs"
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        return error_text(error)
    return "its driver does not answer"


def data_is_readable(root: Path) -> Answer:
    """Whether the annotations and the first image of each split can be read; not whether they are right."""
    from detector.data.coco.files import annotation_file, known_splits
    from detector.data.coco.releases import IMAGE_FOLDERS

    if not root.is_dir():
        return "fail", f"{root} does not exist here; data must lie where every node sees it"
    splits = known_splits(root)
    if not splits:
        return "fail", f"{root} has no annotations/instances_*.json"
    for split in splits:
        images = root / IMAGE_FOLDERS.get(split, split)
        first = next(images.iterdir(), None) if images.is_dir() else None
        for path in (annotation_file(root, split), first):
            if path is not None and path.is_file():
                with path.open("rb") as file:
                    file.read(1)
    return "ok", f"{root}: {', '.join(splits)}"


def scontrol_answered(said: str, *, needed: bool) -> Answer:
    """Whether scontrol answers the batch script, which queues runs again by it. said: what it printed.

    needed: whether the cluster file allows that.
    """
    if re.search(r"\bJobId=\d", said):
        return "ok", "answers the batch script"
    told = " ".join(said.split())[:300] or "nothing was printed"
    if not needed:
        return "note", f"does not answer the batch script ({told}); with max_requeues: 0 it is not needed"
    return "fail", (
        f"does not answer the batch script ({told}): runs could not be queued again when their time is up. "
        "Make it available on the nodes (a container need not have it), or set max_requeues: 0"
    )


def shared_memory() -> Answer:
    """The size of /dev/shm, where loader processes put batches."""
    try:
        size = shutil.disk_usage("/dev/shm").total / 2**30
    except OSError as error:
        return "note", f"not there ({error.strerror}); profiles with loader_workers need it"
    if size < SHARED_MEMORY_GIB:
        return "note", (
            f"{size:.2f} GiB is little for loader workers, which the profiles 'paper' and 'one-gpu' use: start the "
            "container with more (docker: --shm-size=8g, or --ipc=host), or lower execution.loader_workers"
        )
    return "ok", f"{size:.0f} GiB"


def open_files_limit() -> Answer:
    """How many files a process may open; runs raise their own limit as far as the system lets them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return "note", (
            f"a process may open {hard} files, which is little for loader workers: raise the limit "
            "(ulimit -n 4096; docker: --ulimit nofile=4096), or lower execution.loader_workers"
        )
    return "ok", "without limit" if hard == resource.RLIM_INFINITY else f"{hard} per process"
