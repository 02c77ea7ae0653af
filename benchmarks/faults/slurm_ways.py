"""The ways in which a training in a Slurm job is disturbed: two nodes, one process on each."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from benchmarks.faults.bed import Bed
from benchmarks.faults.local_ways import SILENT, Way, damage_newest
from benchmarks.faults.scene import Hung, Scene
from detector.storage.reading import read_json
from harness.slurm.submissions import read_submissions
from support.slurm.machine import kill
from support.slurm.plan import CHEAP

MINUTES = 30
QUEUE_SECONDS = 600.0
AGAIN_SECONDS = 300.0  # how long a user tries again; the reservation of a command that died holds for three minutes
NODES = ("n1", "n2")
Strike = Callable[[Scene, str], None]


def bed_of(scene: Scene) -> Bed:
    """The cluster of the trial."""
    bed = scene.extra
    assert isinstance(bed, Bed)
    return bed


def cluster(scene: Scene, minutes: int = MINUTES, partition: str = "main", start: int = 30) -> tuple[str, str]:
    """The options of ``harness run`` that name it."""
    return "--cluster", str(bed_of(scene).cluster_file(minutes, partition, start))


def struck(strike: Strike, partition: str = "main", start: int = 30) -> Callable[[Scene], None]:
    """Submit a job and strike it at its moments; nothing is typed again. start: minutes that a start may take."""

    def act(scene: Scene) -> None:
        scene.wait(scene.type(*cluster(scene, partition=partition, start=start)))
        strike_job(scene, strike)
        wait_until_empty(scene)

    return act


def struck_and_typed(strike: Strike) -> Callable[[Scene], None]:
    """The same, and the command again at once."""

    def act(scene: Scene) -> None:
        scene.wait(scene.type(*cluster(scene)))
        strike_job(scene, strike)
        type_again(scene)

    return act


def strike_job(scene: Scene, strike: Strike) -> None:
    """Strike at each moment after the job's start, if it still runs then; the second counts from its restart."""
    bed = bed_of(scene)
    job = job_id(scene)
    for number in range(len(scene.moments)):
        if number:
            scene.until(lambda: bed.restarts(job) >= number or job not in bed.jobs(), QUEUE_SECONDS, "a restart")  # noqa: B023
        scene.until(lambda: bed.jobs().get(job) in ("RUNNING", None), QUEUE_SECONDS, "the job's start")
        if not scene.reach(number, lambda: bed.jobs().get(job) == "RUNNING"):
            return
        strike(scene, job)


def job_id(scene: Scene) -> str:
    """The id of the newest submission's job."""
    job = read_submissions(scene.runs)[-1].job_id
    if job is None:
        raise Hung(f"nothing was submitted: {scene.said()}")
    return job


def wait_until_empty(scene: Scene) -> None:
    """Wait until Slurm has nothing left to do."""
    scene.until(bed_of(scene).is_empty, QUEUE_SECONDS, "the end of the job")


def type_again(scene: Scene) -> None:
    """Type the command again, and later once more while it has no effect."""
    end, pause = time.monotonic() + AGAIN_SECONDS, 2.0
    while time.monotonic() < end:
        wait = scene.commands > 1
        scene.wait(scene.type(*cluster(scene)))
        wait_until_empty(scene)
        if scene.is_recorded():
            return
        time.sleep(pause if wait else 1.0)
        pause *= 2


def say_time_is_up(scene: Scene, job: str) -> None:
    bed_of(scene).call("scancel", "--signal=USR2", job)


def requeue(scene: Scene, job: str) -> None:
    bed_of(scene).call("scontrol", "requeue", job)


def cancel(scene: Scene, job: str) -> None:
    bed_of(scene).call("scancel", job)


def make_room(scene: Scene, job: str) -> None:
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"]
    bed_of(scene).call(*urgent)


def cancel_step(scene: Scene, job: str) -> None:
    """Somebody ends the processes, and not the job; as soon as there are any."""
    bed = bed_of(scene)
    step = f"{job}.0"
    running = lambda: bed.jobs().get(job) == "RUNNING"  # noqa: E731
    scene.until(lambda: step in bed.call("squeue", "-h", "-s", "-o", "%i") or not running(), QUEUE_SECONDS, step)
    bed.call("scancel", step)


def hang_rank(rank: int) -> Strike:
    """That rank's process stops as under a lock that never opens."""

    def strike(scene: Scene, job: str) -> None:
        bed, word = bed_of(scene), scene.hang(rank)
        scene.until(lambda: not word.exists() or bed.jobs().get(job) != "RUNNING", QUEUE_SECONDS, f"rank {rank}")
        word.unlink(missing_ok=True)

    return strike


def away_while_queued_again(scene: Scene, job: str) -> None:
    """The processes are told that their time is up while no controller is there to queue the job again."""
    bed = bed_of(scene)
    scene.until(lambda: bool(bed.tasks(0)) or bed.jobs().get(job) != "RUNNING", QUEUE_SECONDS, "rank 0")
    for pid in bed.daemon("slurmctld"):
        os.kill(pid, signal.SIGTERM)
    for rank in (0, 1):
        for pid in bed.tasks(rank):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR2)
    restart_daemon(scene, "slurmctld", [], longest=30.0)


def kill_slurmd(scene: Scene, job: str) -> None:
    """Kill the slurmd of one node; the processes that it started live on."""
    restart_daemon(scene, scene.random.choice(NODES), [])


def kill_controller(scene: Scene, job: str) -> None:
    restart_daemon(scene, "slurmctld", [])


def lose_node(scene: Scene, job: str) -> None:
    """Kill a node and all that runs on it; it comes back before or after Slurm has noticed."""
    node = scene.random.choice(NODES)
    restart_daemon(scene, node, bed_of(scene).node_processes(node), longest=40.0)


def restart_daemon(scene: Scene, name: str, besides: list[int], longest: float = 5.0) -> None:
    bed = bed_of(scene)
    kill([*bed.daemon(name), *besides])
    away = scene.random.uniform(0.5, longest)
    scene.notes.append(f"{name} away for {away:.1f} s")
    time.sleep(away)
    bed.start_daemon(name)


def kill_rank(rank: int) -> Strike:
    """Kill that rank's process as soon as there is one."""

    def strike(scene: Scene, job: str) -> None:
        bed = bed_of(scene)
        scene.until(lambda: bool(bed.tasks(rank)) or bed.jobs().get(job) != "RUNNING", QUEUE_SECONDS, f"rank {rank}")
        kill(bed.tasks(rank))

    return strike


def damage(scene: Scene, job: str) -> None:
    """Queue it again and, while it waits, damage its newest checkpoint."""
    bed = bed_of(scene)
    bed.call("scontrol", "requeue", job)
    scene.until(lambda: bed.jobs().get(job) in ("PENDING", None) and not bed.tasks(0), QUEUE_SECONDS, "a pending job")
    damage_newest(scene)


def take_ports(scene: Scene) -> None:
    """Before each start another program takes the port that was used last."""
    bed = bed_of(scene)
    scene.wait(scene.type(*cluster(scene)))
    with ExitStack() as taken:

        def strike(scene: Scene, job: str) -> None:
            found = list(scene.runs.glob("*/.meeting-*.json"))
            ports = [read_json(path, dict).get("port") for path in found]
            bed.call("scontrol", "requeue", job)
            scene.until(lambda: bed.jobs().get(job) != "RUNNING" and not bed.tasks(0), QUEUE_SECONDS, "the job's end")
            for port in ports:
                occupy(int(port), taken)

        strike_job(scene, strike)
        wait_until_empty(scene)


def occupy(port: int, taken: ExitStack) -> None:
    """Listen on the port, if nobody does."""
    listener = taken.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError):
        listener.bind(("0.0.0.0", port))
        listener.listen()


def time_limit(minutes: int) -> Callable[[Scene], None]:
    """Jobs of so many minutes, for a training that takes longer. Slurm may warn a whole minute too early."""

    def act(scene: Scene) -> None:
        scene.wait(scene.type(*cluster(scene, minutes=minutes)))
        scene.until(bed_of(scene).is_empty, 4 * QUEUE_SECONDS, "the end of the job")
        scene.phases += ["time limit"] * sum(int(job["Restarts"]) for job in bed_of(scene).trained())

    return act


def kill_submitter(scene: Scene) -> None:
    """The command is killed while it submits, alone or with its children; then the same is typed at once."""
    process = scene.type(*cluster(scene))
    seconds = scene.moments[0] * bed_of(scene).command_seconds
    if scene.lives_until(seconds, lambda: process.poll() is None, "submission"):
        whole = scene.random.random() < 0.5
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if whole else process.kill()
    process.wait()
    type_again(scene)


def submit_twice(scene: Scene) -> None:
    """A second command while the first submits."""
    first = scene.type(*cluster(scene))
    scene.lives_until(scene.moments[0] * bed_of(scene).command_seconds, lambda: first.poll() is None, "submission")
    second = scene.type(*cluster(scene))
    for process in (first, second):
        scene.wait(process)
    wait_until_empty(scene)


SLURM_WAYS: dict[str, Way] = {
    "slurm-usr2": Way("SIGUSR2 to the job", struck(say_time_is_up), 2),
    "slurm-limit": Way("a time limit of one minute", time_limit(1), 2, faults=0, iterations=600),
    "slurm-limits": Way("a time limit of two minutes, several times", time_limit(2), 2, faults=0, iterations=1600),
    "slurm-preempt": Way("an urgent job needs the nodes", struck(make_room), 2),
    "slurm-cheap": Way(
        "an urgent job takes the nodes of a cheap partition, without grace", struck(make_room, CHEAP), 2
    ),
    "slurm-hang0": Way("rank 0 hangs with Python's lock held", struck(hang_rank(0), start=1), 2, variables=SILENT),
    "slurm-hang1": Way("rank 1 hangs with Python's lock held", struck(hang_rank(1), start=1), 2, variables=SILENT),
    "slurm-step": Way("scancel of the job's step", struck(cancel_step), 2),
    "slurm-away": Way(
        "slurmctld stopped, back within 30 s, while the job asks to be queued again",
        struck(away_while_queued_again),
        2,
        1,
    ),
    "slurm-requeue": Way("scontrol requeue", struck(requeue), 2),
    "slurm-slurmd": Way("slurmd of a node killed, back within 5 s", struck(kill_slurmd), 2, 1),
    "slurm-slurmctld": Way("slurmctld killed, back within 5 s", struck(kill_controller), 2, 1),
    "slurm-node": Way("a node lost with all its processes, back within 40 s", struck(lose_node), 2, 1),
    "slurm-rank1": Way("SIGKILL of rank 1", struck(kill_rank(1)), 2),
    "slurm-rank0": Way("SIGKILL of rank 0", struck(kill_rank(0)), 2),
    "slurm-damaged": Way("scontrol requeue, and the newest checkpoint damaged", struck(damage), 2),
    "slurm-cancel": Way("scancel, then the same command", struck_and_typed(cancel), 2, faults=1),
    "slurm-submitter": Way("the submitting command killed, then the same command", kill_submitter, 2, faults=1),
    "slurm-twice": Way("the same command twice at once", submit_twice, 2, faults=1),
    "slurm-port": Way("scontrol requeue, the meeting's ports taken meanwhile", take_ports, 2, 1),
}
