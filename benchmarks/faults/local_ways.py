"""The ways in which a training on this machine is disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.scene import COMMAND_SECONDS, Scene
from support.slurm.machine import LOCAL_WORKER, command_of, parent_of

TYPED_AGAIN = 4  # how often a user is willing to type the command again
SYSTEM_PYTHON = "/usr/bin/python3"
# How long a run may go without getting ahead, in place of eleven minutes.
SILENT = {"HARNESS_SILENCE_SECONDS": "20"}
TMPFS_BYTES = 24 * 2**20


@dataclass(frozen=True)
class Way:
    """title: for the report. act: strikes at the moments, then does what a user would. faults: the most in a row.

    variables: of the commands' environment.
    """

    title: str
    act: Callable[[Scene], None]
    processes: int = 1
    faults: int = 2
    iterations: int = 200
    variables: dict[str, str] = field(default_factory=dict)


def struck(strike: Callable[[Scene, subprocess.Popen[bytes]], None]) -> Callable[[Scene], None]:
    """Run commands and strike each at its moment; then type the command as often as needed."""

    def act(scene: Scene) -> None:
        for number in range(len(scene.moments)):
            process = scene.type()
            if scene.reach(number, lambda process=process: process.poll() is None):  # type: ignore[misc]
                strike(scene, process)
            scene.wait(process)
            if scene.is_recorded():
                return
        type_again(scene)

    return act


def type_again(scene: Scene) -> None:
    """What a user does who finds the run not done: type the command again."""
    for _ in range(TYPED_AGAIN):
        if scene.is_recorded():
            return
        scene.wait(scene.type())


def tasks(scene: Scene) -> list[int]:
    """The processes that train, by rank."""
    found = [pid for pid in scene.processes() if LOCAL_WORKER in command_of(pid)]
    return sorted(found)


def innermost(scene: Scene, process: subprocess.Popen[bytes]) -> int:
    """The process that trains; while there is none, the launcher's, else the command itself."""
    below = [pid for pid in scene.processes() if parent_of(pid) == process.pid]
    return next(iter([*tasks(scene), *below]), process.pid)


def kill_worker(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.kill(innermost(scene, process), signal.SIGKILL)


def ask_worker(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.kill(innermost(scene, process), signal.SIGUSR2)


def hang_worker(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    """The process that trains stops as under a lock that never opens; not before it has a heartbeat."""
    before = time.time()

    def beats() -> bool:
        run = scene.run_dir()
        with suppress(OSError):
            return process.poll() is not None or (run is not None and run.status.stat().st_mtime > before)
        return False

    scene.until(beats, COMMAND_SECONDS, "a heartbeat")
    word = scene.hang(0)
    scene.until(lambda: not word.exists() or process.poll() is not None, COMMAND_SECONDS, "a process that hangs")
    word.unlink(missing_ok=True)


def kill_one_rank(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    found = tasks(scene)
    with suppress(ProcessLookupError):
        os.kill(scene.random.choice(found) if found else process.pid, signal.SIGKILL)


def kill_group(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_command(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    process.kill()


def terminate(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def interrupt(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def hang_up(scene: Scene, process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGHUP)


def twice(scene: Scene) -> None:
    """Two commands at once; the first and all its processes are killed."""
    first, second = scene.type(), scene.type()
    if scene.reach(0, lambda: first.poll() is None):
        kill_group(scene, first)
    scene.wait(first)
    scene.wait(second)
    type_again(scene)


def damaged(scene: Scene) -> None:
    """Everything is killed, and the newest checkpoint is damaged."""
    for number in range(len(scene.moments)):
        process = scene.type()
        if scene.reach(number, lambda process=process: process.poll() is None):  # type: ignore[misc]
            kill_group(scene, process)
        scene.wait(process)
        if scene.is_recorded():
            return
        damage_newest(scene)
    type_again(scene)


def damage_newest(scene: Scene) -> None:
    """Cut it, zero it, or flip one bit in its head or anywhere, as the trial's random numbers say."""
    run = scene.run_dir()
    found = sorted(run.checkpoints.glob("[0-9]*.pt")) if run is not None else []
    if not found:
        scene.notes.append("no checkpoint to damage")
        return
    kind = scene.random.choice(("cut", "zeroed", "a bit of the head flipped", "a bit flipped"))
    data = bytearray(found[-1].read_bytes())
    if kind == "cut":
        del data[scene.random.randrange(len(data)) :]
    elif kind == "zeroed":
        data = bytearray(len(data))
    else:
        at = scene.random.randrange(64 if "head" in kind else len(data))
        data[at] ^= 1 << scene.random.randrange(8)
    found[-1].write_bytes(data)
    scene.notes.append(f"{found[-1].name}: {kind}")


def full_disk(scene: Scene) -> None:
    """The disk of the runs folder is full for some seconds."""
    process = scene.type()
    if scene.reach(0, lambda: process.poll() is None):
        ballast = scene.place.root / "runs" / "ballast"
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while file.write(bytes(2**12)):
                pass
        time.sleep(scene.random.uniform(1, 6))
        ballast.unlink()
    scene.wait(process)
    type_again(scene)


def away(scene: Scene) -> None:
    """The file server of the runs folder and of the data answers EIO for some seconds."""
    process = scene.type()
    if scene.reach(0, lambda: process.poll() is None):
        flag = scene.folder / "away"
        flag.touch()
        time.sleep(scene.random.uniform(1, 6))
        flag.unlink()
    scene.wait(process)
    type_again(scene)


@contextmanager
def small_disk(scene: Scene) -> Iterator[None]:
    """The runs folder on a disk of its own."""
    runs = scene.place.root / "runs"
    kept = runs.rename(runs.with_name("generated"))
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(runs)], check=True)
    try:
        shutil.copytree(kept, runs, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)


@contextmanager
def distant_disk(scene: Scene) -> Iterator[None]:
    """The runs folder, with the data in it, behind a file server that can be made to fail."""
    runs, backing = scene.place.root / "runs", scene.runs
    runs.rename(backing)
    runs.mkdir()
    command = [SYSTEM_PYTHON, str(Path(__file__).with_name("away_folder.py"))]
    server = subprocess.Popen([*command, str(backing), str(runs), str(scene.folder / "away")])
    try:
        scene.until(lambda: os.path.ismount(runs), 10, "mounting")
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(runs)], check=True)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def lacks(way: str) -> str:
    """What this machine lacks for a way; empty where it lacks nothing."""
    root = os.geteuid() == 0
    if way == "full-disk" and not root:
        return "mounting a small disk takes root"
    if way == "away":
        served = subprocess.run([SYSTEM_PYTHON, "-c", "import fusepy"], capture_output=True, check=False)
        if not root or not Path("/dev/fuse").exists() or served.returncode != 0:
            return "a file system that can be sent away takes root, /dev/fuse and python3-fusepy"
    return ""


LOCAL_WAYS: dict[str, Way] = {
    "kill-worker": Way("SIGKILL of the process that trains", struck(kill_worker)),
    "kill-group": Way("SIGKILL of all processes", struck(kill_group)),
    "kill-command": Way("SIGKILL of the command alone", struck(kill_command)),
    "term": Way("SIGTERM to the command", struck(terminate)),
    "interrupt": Way("SIGINT to all processes (Ctrl-C)", struck(interrupt)),
    "hang-up": Way("SIGHUP to all processes (the terminal closed)", struck(hang_up)),
    "usr2": Way("SIGUSR2 to the process that trains", struck(ask_worker)),
    "twice": Way("the same command twice at once, the first killed", twice, faults=1),
    "damaged": Way("SIGKILL of all processes, then the newest checkpoint cut, zeroed or a bit flipped", damaged),
    "full-disk": Way("the disk full for 1 to 6 s", full_disk, faults=1),
    "away": Way("runs and data on a file system that answers EIO for 1 to 6 s", away, faults=1),
    "hang": Way("the process that trains hangs with Python's lock held", struck(hang_worker), variables=SILENT),
    "rank": Way("two processes on one machine, SIGKILL of one of them", struck(kill_one_rank), processes=2),
}
SURROUNDINGS = {"full-disk": small_disk, "away": distant_disk}
