"""The page and the numbers of a campaign: docs/reliability.md and benchmarks/results/faults.json."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median

import msgspec
from msgspec import Struct
from tabulate import tabulate

from benchmarks.faults.local_ways import LOCAL_WAYS
from benchmarks.faults.scene import CHECKPOINT_EVERY, PROJECT
from benchmarks.faults.slurm_ways import SLURM_WAYS
from benchmarks.faults.trial import WAYS, Trial
from support.slurm.cluster import missing_programs

PAGE = PROJECT / "docs" / "reliability.md"
NUMBERS = PROJECT / "benchmarks" / "results" / "faults.json"
TEXT = """\
# What a fault does to a training

{total} trials. Each trains for some seconds (the tests' micro scale: {iterations} iterations, a checkpoint every
{every}) and is struck at a moment drawn uniformly over the course of an undisturbed training: from the start of the
command or job through imports, training and evaluation to its end. Within the training a moment is counted in
iterations, otherwise in seconds. Some are struck a second time, so many seconds after the restart. Then nothing is
done, or the same command is typed again, as a user would. At the end a run counts as

- lost: it has no record;
- doubled: it has two, was evaluated to a record twice, or two jobs for it were in the queue at once;
- differing: its final weights are not those of an undisturbed run of as many processes to the last bit, or the
  iterations in its log of losses or the metrics of its record are not the same.

**Lost: {lost}. Doubled: {doubled}. Differing: {differing}.** In {struck} trials at least one fault came in time; in
the others the run had ended before. The faults came: {phases}. After {alone} of those {struck} nothing was typed;
after {typed} the same command was, {most} times at most. "Iterations again" counts what a start repeats of an earlier
one. It is an upper bound, since losses are logged only every {every} iterations, and leaves out the time of a start-up
that is cut short.
{harm}

{machine} Python {python}, PyTorch {torch}, submitit {submitit}. Trainings on the CPU, one thread per process.
Ways named "Slurm" went through a real one{slurm}: two nodes on this machine, one process of the run on each. Its jobs
restart seconds after they are queued again, and it notices a lost node after ten (both take minutes by default). There
the batch script alone watches the processes and queues the job again, outside of any container, whatever ended them.

A process that hangs holds Python's lock for ever, as in a call that never comes back: none of its threads runs, and no
signal is heard. It counts as hung after 20 s here (HARNESS_SILENCE_SECONDS; eleven minutes by default) and a Slurm job
that has not got as far as its first heartbeat after a minute (start_minutes). What watches it, the batch script or
`harness run`, puts the stacks of all processes into the log, ends them, and starts the run again.

{table}

A full disk is a small tmpfs that a file fills. The file system that is away is a FUSE one that passes everything on,
and then answers EIO to every operation. Both need root, the second also /dev/fuse and python3-fusepy; without them the
command says that it leaves these ways out.

To repeat it: `python -m benchmarks.faults --report` (all trials together: {minutes} minutes, several side by side).
An interrupted campaign goes on with the same command; another `--seed` gives other moments; `--only WAY` one way;
`--keep` keeps the folders of all trials. Numbers:
[benchmarks/results/faults.json](../benchmarks/results/faults.json).

## Not tried

- GPUs and NCCL: all processes met over TCP on a CPU. A process that hangs in the kernel, where no signal ends it.
- Nodes that are separate machines; a network that is cut between them while both live on.
- A real network file server that restarts, with its caches and its lock daemon; a folder that is away for longer than
  the five minutes that a training waits.
- Loss of power: what a disk had acknowledged was there after each fault.
- A lack of memory that Linux ends by killing; a clock that jumps.
- Loader processes (`loader_workers` was 0), and arrays of several runs of which one is struck.
- Damage to files other than the newest checkpoint: images, final weights, records.
"""
PHASES = {
    "start-up": "in start-up",
    "training": "in training",
    "evaluation": "in or after evaluation",
    "submission": "in submission",
    "time limit": "by a time limit",
}


class Row(Struct, frozen=True, kw_only=True):
    """The trials of one way. by_itself, by_command: how those that were struck came to their end."""

    way: str
    title: str
    trials: int
    struck: int
    requeued: int  # trials in which Slurm started the job again
    by_itself: int
    by_command: int
    lost: int
    doubled: int
    differing: int
    again_median: float
    again_max: int


def make_row(way: str, trials: Sequence[Trial]) -> Row:
    """One line of the table, from the trials of one way."""
    struck = [trial for trial in trials if trial.phases]
    ended = [trial for trial in struck if not trial.lost]
    again = [trial.iterations_again for trial in struck] or [0]
    prefix = "Slurm: " if way in SLURM_WAYS else ""
    return Row(
        way=way,
        title=f"{prefix}{WAYS[way].title}",
        trials=len(trials),
        struck=len(struck),
        requeued=sum(trial.requeues > 0 for trial in trials),
        by_itself=sum(trial.by_hand == 0 for trial in ended),
        by_command=sum(trial.by_hand > 0 for trial in ended),
        lost=sum(bool(trial.lost) for trial in trials),
        doubled=sum(bool(trial.doubled) for trial in trials),
        differing=sum(bool(trial.differing) for trial in trials),
        again_median=median(again),
        again_max=max(again),
    )


def make_table(rows: Sequence[Row]) -> str:
    """The page's table, as Markdown."""
    heads = ["way", "trials", "struck in time", "queued again by Slurm", "ended by itself", "by the same command"]
    heads += ["lost", "doubled", "differing", "iterations again, median", "max"]
    cells = [list(msgspec.structs.astuple(row))[1:] for row in rows]
    return tabulate(cells, heads, tablefmt="github")


def write_report(trials: Sequence[Trial]) -> None:
    """Write the page and the numbers."""
    rows = [make_row(way, found) for way in WAYS if (found := [trial for trial in trials if trial.way == way])]
    struck = [trial for trial in trials if trial.phases]
    phases = Counter(PHASES.get(phase, phase) for trial in trials for phase in trial.phases)
    total = {name: sum(bool(getattr(trial, name)) for trial in trials) for name in ("lost", "doubled", "differing")}
    harm = [f"- {trial.way}, seed {trial.seed}, trial {trial.number}: {trial.harm}" for trial in trials if trial.harm]
    page = TEXT.format(
        total=len(trials),
        iterations=LOCAL_WAYS["kill-worker"].iterations,
        every=CHECKPOINT_EVERY,
        **total,
        struck=len(struck),
        phases=", ".join(f"{count} {phase}" for phase, count in phases.most_common()),
        alone=sum(trial.by_hand == 0 for trial in struck),
        typed=sum(trial.by_hand > 0 for trial in struck),
        most=max((trial.by_hand for trial in struck), default=0),
        harm="".join(f"\n{line}" for line in [*harm, ""]) if harm else "",
        machine=f"{platform.system()}, {len(os.sched_getaffinity(0))} cores, no GPU used.",
        python=platform.python_version(),
        torch=version("torch"),
        submitit=version("submitit"),
        slurm=slurm_version(),
        table=make_table(rows),
        minutes=round(sum(trial.seconds for trial in trials) / 60),
    )
    # The section on bad input is the tests' (tests/hostile/counts.py).
    before = PAGE.read_text() if PAGE.exists() else ""
    PAGE.write_text(page + "".join(before.partition("\n## Bad input\n")[1:]))
    numbers = {"trials": len(trials), **total, "seeds": sorted({trial.seed for trial in trials}), "ways": rows}
    NUMBERS.write_bytes(msgspec.json.format(msgspec.json.encode(numbers), indent=2) + b"\n")
    print(f"wrote {PAGE.relative_to(PROJECT)} and {NUMBERS.relative_to(PROJECT)}")


def slurm_version() -> str:
    """The version of the Slurm installed here, in words; empty without one."""
    if missing_programs():
        return ""
    said = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=False).stdout
    return f" ({said.strip().replace('-wlm', '')})" if said else ""
