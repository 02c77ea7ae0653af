"""One trial from its folder to its line: the surroundings, the fault, and the judgement."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random

from msgspec import Struct

from benchmarks.faults.bed import Bed
from benchmarks.faults.local_ways import LOCAL_WAYS, SURROUNDINGS, Way
from benchmarks.faults.scene import COMMAND_SECONDS, Hung, Scene, Watch, make_place
from benchmarks.faults.slurm_ways import MINUTES, SLURM_WAYS, cluster
from benchmarks.faults.verdict import Course, Reference, judge, reference_of

WAYS = LOCAL_WAYS | SLURM_WAYS
TWO_FAULTS = 0.3  # share of trials with two faults in a row, where a way can have two
AT_ONCE = ("twice", "slurm-twice")  # this way is itself about two commands


class Trial(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of trials.jsonl. lost, doubled, differing: why, or empty. by_hand: commands typed after a fault."""

    way: str
    number: int
    seed: int
    moments: tuple[float, ...]  # shares of an undisturbed course
    phases: tuple[str, ...]  # in which it was struck; fewer than moments: the run was done before
    by_hand: int
    requeues: int
    lost: str
    doubled: str
    differing: str
    iterations_again: int  # at most
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def harm(self) -> str:
        """What went wrong, in words; empty where the run ended as it would have undisturbed."""
        named = {"lost": self.lost, "doubled": self.doubled, "differing": self.differing}
        return "; ".join(f"{name}: {why}" for name, why in named.items() if why)

    def line(self) -> str:
        """One line for the terminal."""
        moments = ", ".join(f"{moment:.2f}" for moment in self.moments)
        struck = ", ".join(self.phases) or "nothing"
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return (
            f"{self.way} {self.number}: at {moments} of its course, struck {struck}; typed again "
            f"{self.by_hand}, queued again {self.requeues}, iterations again <= {self.iterations_again}, "
            f"{self.seconds:.0f} s: {self.harm or 'good'}{notes}"
        )


class References:
    """Undisturbed trainings, made once for each number of processes, number of iterations and way of starting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[tuple[int, int, bool], Reference] = {}
        self.command_seconds = 1.0  # what submitting takes
        self.making = threading.Lock()

    def of(self, name: str, bed: Bed | None) -> Reference:
        """The undisturbed training of a way. Its course begins with the job on Slurm, else with the command."""
        way = WAYS[name]
        key = (way.processes, way.iterations, bed is not None)
        with self.making:
            if key not in self.found:
                self.found[key] = self._make(way, bed, self.folder / f"reference-{'-'.join(map(str, key))}")
            return self.found[key]

    def _make(self, way: Way, bed: Bed | None, folder: Path) -> Reference:
        nothing = Reference({}, [0], {}, Course(0, 0, 0))
        for repeat in range(2):  # the first finds nothing in the machine's caches, and takes longer
            if repeat and way.iterations > 200:
                break
            with open_scene(folder, way, nothing, dice=Random(0), faults=0, bed=bed) as scene:
                found = reference_of(scene.runs, undisturbed(scene, bed))
            if bed is not None:
                self.command_seconds = bed.command_seconds
        shutil.rmtree(folder)
        return found


def undisturbed(scene: Scene, bed: Bed | None) -> Course:
    """Train without a fault. Raises Hung where that fails."""
    began = time.monotonic()
    process = scene.type(*(cluster(scene, MINUTES) if bed else ()))
    if bed is not None:
        scene.wait(process)
        bed.command_seconds = time.monotonic() - began
        scene.until(lambda: "RUNNING" in bed.jobs().values(), 60, f"a job that runs: {scene.said()}")
        began = time.monotonic()
    seen: dict[int, float] = {}

    def is_over() -> bool:
        seen.setdefault(scene.progress(), time.monotonic() - began)
        return process.poll() is not None if bed is None else not bed.jobs() and bed.is_empty()

    scene.until(is_over, COMMAND_SECONDS, "an undisturbed training")
    if not scene.is_recorded():
        raise Hung(f"an undisturbed training failed: {scene.said()}")
    logged = [after for iteration, after in seen.items() if iteration]
    return Course(logged[0], logged[-1], time.monotonic() - began)


@contextmanager
def open_scene(
    folder: Path, way: Way, reference: Reference, *, dice: Random, faults: int, bed: Bed | None, name: str = ""
) -> Iterator[Scene]:
    """A workplace of its own, on a disk as the way needs it; no process is left when it ends."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    place = make_place(
        folder / "place", iterations=way.iterations, variables=(bed.variables if bed else {}) | way.variables
    )
    if way.processes > 1 and bed is None:
        profile = place.root / "experiments" / "profiles" / "tiny.yaml"
        profile.write_text(profile.read_text().replace("gpus_per_run: 0", "gpus_per_run: all"))
    scene = Scene(
        place,
        folder,
        dice,
        reference,
        moments=tuple(dice.random() for _ in range(faults)),
        runs=folder / "backing" if name == "away" else place.root / "runs",
        program="harness.cli" if way.processes == 1 or bed is not None else "benchmarks.faults.two_processes",
        extra=bed,
    )
    surroundings = SURROUNDINGS.get(name)
    with surroundings(scene) if surroundings else nullcontext():
        try:
            yield scene
        finally:
            left = scene.end_everything()
            if left:
                scene.notes.append(f"{left} processes were left over")


def do_trial(
    references: References, folder: Path, name: str, number: int, *, seed: int, bed: Bed | None, keep: bool = False
) -> Trial:
    """Disturb, wait or type again, judge. The folder stays where something was wrong, or with ``keep``."""
    way = WAYS[name]
    reference = references.of(name, bed)
    dice = Random(f"{seed}/{name}/{number}")
    faults = 2 if way.faults > 1 and dice.random() < TWO_FAULTS else min(1, way.faults)
    if bed is not None:
        bed.command_seconds = references.command_seconds
        bed.clear()
    began = time.monotonic()
    with open_scene(folder, way, reference, dice=dice, faults=faults, bed=bed, name=name) as scene:
        watch = Watch(scene)
        watch.start()
        try:
            way.act(scene)
        except Hung as hung:
            scene.notes.append(str(hung))
        finally:
            watch.ended.set()
            watch.join()
        jobs = bed.trained() if bed else []
        verdict = judge(scene.runs, reference, bed.times() if bed else ())
        requeues = sum(int(job["Restarts"]) for job in jobs)
        if (keep or not verdict.is_good) and scene.runs.is_mount():
            shutil.copytree(scene.runs, folder / "kept", dirs_exist_ok=True)
    if not keep and verdict.is_good and not any("left over" in note or "within" in note for note in scene.notes):
        shutil.rmtree(folder)
    return Trial(
        way=name,
        number=number,
        seed=seed,
        moments=tuple(round(moment, 3) for moment in scene.moments),
        phases=tuple(scene.phases),
        by_hand=scene.commands - (2 if name in AT_ONCE else 1),
        requeues=requeues,
        lost=verdict.lost,
        doubled=verdict.doubled,
        differing=verdict.differing,
        iterations_again=watch.again,
        seconds=round(time.monotonic() - began, 1),
        notes=tuple(scene.notes),
    )
