"""Strike trainings at random moments, in every way we know, and see whether each ends as it would have undisturbed.

    python -m benchmarks.faults [--local 8] [--slurm 3] [--only WAY ...] [--seed 0] [--folder FOLDER] [--report]

Each trial trains the micro scale of the tests for some seconds, strikes at moments drawn uniformly over what an
undisturbed training takes, start-up and evaluation included, and then does what a user would: nothing, or the same
command again. Trials are appended to trials.jsonl in the folder, and those already there are not repeated, so that an
interrupted campaign goes on. The folder of a trial in which something was wrong is kept. --report writes
docs/reliability.md and benchmarks/results/faults.json of all trials in the folder.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import msgspec

from benchmarks.faults.bed import Bed, slurm_bed
from benchmarks.faults.local_ways import LOCAL_WAYS, lacks
from benchmarks.faults.report import write_report
from benchmarks.faults.scene import PROJECT
from benchmarks.faults.slurm_ways import SLURM_WAYS
from benchmarks.faults.trial import References, Trial, do_trial
from support.slurm.cluster import missing_programs

LONG_FIRST = ("slurm-limits", "slurm-limit", "slurm-hang0", "slurm-hang1", "slurm-node", "slurm-submitter")
Waiting = queue.SimpleQueue[tuple[str, int]]


class Campaign:
    """The trials that are done, and the undisturbed trainings that they are compared with."""

    def __init__(self, folder: Path, seed: int, *, keep: bool) -> None:
        self.folder, self.seed, self.keep = folder, seed, keep
        self.file = folder / "trials.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self.done = read_trials(self.file)
        self.references = References(folder)
        self.writing, self.stopping = threading.Lock(), threading.Event()

    def missing(self, ways: list[str], count: int) -> Waiting:
        """The trials that are missing, one of each way in turn, so that an interrupted campaign has some of each."""
        done = {(trial.way, trial.number) for trial in self.done if trial.seed == self.seed}
        waiting: Waiting = queue.SimpleQueue()
        for number in range(count):
            for way in ways:
                if (way, number) not in done:
                    waiting.put((way, number))
        return waiting

    def work(self, waiting: Waiting, bed: Bed | None) -> None:
        """Do one trial after the other until none is left."""
        while not self.stopping.is_set():
            try:
                way, number = waiting.get_nowait()
            except queue.Empty:
                return
            folder = self.folder / f"{way}-{self.seed}-{number}"
            try:
                trial = do_trial(self.references, folder, way, number, seed=self.seed, bed=bed, keep=self.keep)
            except Exception:
                if not self.stopping.is_set():
                    print(f"{way} {number}: the campaign itself failed\n{traceback.format_exc()}", flush=True)
                continue
            if not self.stopping.is_set():
                self.note(trial)

    def work_in_bed(self, waiting: Waiting) -> None:
        """The same, with a Slurm cluster of its own."""
        folder = Path(tempfile.mkdtemp(prefix="bed"))
        try:
            with slurm_bed(folder) as bed:
                self.work(waiting, bed)
        except Exception:
            print(f"a Slurm cluster failed\n{traceback.format_exc()}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def note(self, trial: Trial) -> None:
        """Append it, and print its line."""
        with self.writing:
            self.done.append(trial)
            with open(self.file, "ab") as file:
                file.write(msgspec.json.encode(trial) + b"\n")
            print(trial.line(), flush=True)


def read_trials(file: Path) -> list[Trial]:
    """The trials of earlier starts, less a last line that was cut short."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=Trial) for line in file.read_bytes().split(b"\n")[:-1]]


def possible(ways: list[str]) -> list[str]:
    """The ways that this machine can do; says what is left out, and why."""
    reasons = {way: lacks(way) for way in ways}
    if missing_programs():
        reasons |= {way: f"not installed: {', '.join(missing_programs())}" for way in ways if way in SLURM_WAYS}
    for way, reason in reasons.items():
        if reason:
            print(f"{way} is left out: {reason}", file=sys.stderr)
    return [way for way in ways if not reasons[way]]


def main() -> None:
    """Do the trials that are missing, and write the report if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", type=int, default=8, help="trials per way on this machine")
    parser.add_argument("--slurm", type=int, default=3, help="trials per way through Slurm")
    parser.add_argument("--only", action="append", choices=[*LOCAL_WAYS, *SLURM_WAYS], metavar="WAY")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=PROJECT / "runs" / "faults")
    parser.add_argument("--beds", type=int, default=3, help="Slurm clusters side by side")
    parser.add_argument("--keep", action="store_true", help="keep the folder of every trial")
    parser.add_argument("--report", action="store_true", help="write the report of the trials in the folder")
    arguments = parser.parse_args()
    campaign = Campaign(arguments.folder.resolve(), arguments.seed, keep=arguments.keep)
    wanted = arguments.only or [*LOCAL_WAYS, *SLURM_WAYS]
    local = campaign.missing(possible([way for way in LOCAL_WAYS if way in wanted]), arguments.local)
    slurm_ways = sorted((way for way in SLURM_WAYS if way in wanted), key=lambda way: way not in LONG_FIRST)
    slurm = campaign.missing(possible(slurm_ways), arguments.slurm)
    threads = [threading.Thread(target=campaign.work, args=(local, None), daemon=True)]
    threads += [
        threading.Thread(target=campaign.work_in_bed, args=(slurm,), daemon=True)
        for _ in range(min(arguments.beds, slurm.qsize()))
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        print("Interrupted: trials under way come to their end. The same command goes on from there.", file=sys.stderr)
        campaign.stopping.set()
        for thread in threads:
            thread.join()
        sys.exit(130)
    if arguments.report:
        write_report(campaign.done)


if __name__ == "__main__":
    main()
