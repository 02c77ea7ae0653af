"""One run from start to record, in each of its processes. Free of torch until it is called.

On one machine the launcher pickles a ``Worker``; Slurm starts ``python -m detector.worker``. Both import little before
the handlers of signals are set.
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Container
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from detector.device.environment import CUBLAS_WORKSPACE, describe_environment
from detector.errors import RecordError
from detector.runs.assignment import WORKER_LOG, Assignment
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.log_lines import stopped_waiting
from detector.runs.origin.loss_package import check_loss_package
from detector.runs.starts import check_starts
from detector.runs.wanted import forget_evaluated, wanted
from detector.storage.files import write_atomic, write_json
from detector.storage.reading import LARGE, read_bytes
from detector.storage.retry import Waiting, retry, watched_by
from detector.storage.staging import remove_leftovers
from detector.training.stop import StopFlag, StopRequested
from detector.worker import missing_loss
from detector.worker.leaving import exit_code, signals_at_once, why_left
from detector.worker.processes import SlurmTask, export_distributed, meeting_file
from detector.worker.reports import Heartbeat, log_to, report_failure

if TYPE_CHECKING:
    from detector.device.world import World

logger = logging.getLogger(WORKER_LOG)


@dataclass
class Worker:
    """Callable that trains what is missing, evaluates what is missing, and writes the records.

    task: of Slurm that this process is; None for any other process.
    """

    assignment: Assignment
    task: SlurmTask | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the assignment as bytes, which any machine can read."""
        return self.__dict__ | {"assignment": missing_loss.encode(self.assignment)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"assignment": missing_loss.decode(state["assignment"])})

    def __call__(self) -> None:
        """Run to the end. A stop by a signal saves and exits with 130; any error is in status.json and log.txt.

        Of a Slurm job's processes only rank 0 exits with 130, since Slurm ends all of them after one that fails. Where
        another command already runs this training, wait for it: what it leaves undone is done here.
        """
        unpickled: object = self.assignment
        if isinstance(unpickled, missing_loss.MissingLoss):
            unpickled(None if self.task is None else self.task.job)
        stop = StopFlag()
        faulthandler.register(signal.SIGQUIT, file=2)  # a hung process is asked where it is before it is killed
        os.environ["OMP_NUM_THREADS"] = str(self.assignment.threads)
        if self.assignment.deterministic:
            os.environ.setdefault(*CUBLAS_WORKSPACE)
        run = RunDir(Path(self.assignment.run_dir))
        under_slurm = self.task is not None
        export_distributed(under_slurm=under_slurm)
        rank = int(os.environ.get("RANK", "0"))
        heartbeat = Heartbeat(
            run.failure(rank) if rank else run.status,
            self.assignment.train.schedule.iterations,
            job=None if self.task is None else self.task.job,
        )
        with ExitStack() as stack:
            if rank == 0:
                try:
                    stack.enter_context(run.lock(wait=lambda: not stop()))
                except BlockingIOError:  # asked to stop while waiting
                    sys.exit(exit_code(rank, under_slurm=under_slurm))
            try:
                if rank == 0:
                    stack.enter_context(watched_by(heartbeat.look))
                    stack.enter_context(watched_by(partial(end_wait, stop)))
                    retry(partial(_begin, run, self.assignment), f"writing {run.root}")
                    heartbeat.beat("starting", force=True, ap=_ap_so_far(run))
                    if self.task is not None:
                        self._check_starts(run, self.task)
                self._run(run, heartbeat if rank == 0 else None, stop, stack)
            except StopRequested as stopped:
                if rank == 0:
                    _say_stopped(heartbeat, stop, str(stopped), under_slurm=under_slurm)
                sys.exit(exit_code(rank, under_slurm=under_slurm))
            except BaseException as error:
                report_failure(run, rank, heartbeat, error)
                raise

    def _check_starts(self, run: RunDir, task: SlurmTask) -> None:
        """Raises TrainingError where the job's starts are too short for the training ever to end."""
        check_starts(
            run,
            task.starts,
            task.ends,
            iterations=self.assignment.train.schedule.iterations,
            restarts=task.restarts,
            max_requeues=self.assignment.max_requeues,
        )

    def _run(self, run: RunDir, heartbeat: Heartbeat | None, stop: StopFlag, stack: ExitStack) -> None:
        check_loss_package(self.assignment.train)
        import torch

        from detector.device.world import join_world
        from detector.worker.run import evaluate_and_record, train_to_final

        assignment = self.assignment
        torch.set_num_threads(assignment.threads)
        # Left only after a failure was reported: the other processes fail as soon as this one leaves.
        world = stack.enter_context(join_world(assignment.device, meeting_file(run.root, self.task)))
        if world.is_main:
            retry(partial(_describe_start, run, world, assignment), f"writing {run.environment}")
        # Rank 0 decides for all what is there: a file appears on different nodes at different times.
        if not world.from_main(world.is_main and _is_there(run.final)):
            train_to_final(assignment, run, world=world, heartbeat=heartbeat, stop=stop)
        with stop.at_once(signals_at_once(world)):
            for job in assignment.evals:
                if not world.from_main(world.is_main and _is_there(run.record(job.id))):
                    evaluate_and_record(assignment, job, run, world=world, heartbeat=heartbeat)
            evaluated = set[str]()  # each once, whatever becomes of its record
            while (wanted_job := _next_wanted(run, world, evaluated)) is not None:
                evaluate_and_record(assignment, wanted_job, run, world=world, heartbeat=heartbeat)
                evaluated.add(wanted_job.id)
        if world.is_main:
            retry(partial(_tidy, run), f"tidying {run.root}")
        if heartbeat is not None:
            heartbeat.beat("done", force=True)


def _say_stopped(heartbeat: Heartbeat, stop: StopFlag, message: str, *, under_slurm: bool) -> None:
    """Say that the run has stopped, and why: at once, since a scheduler kills soon, and again once the reason is known.

    Of a Slurm job every process gets the signal, this one perhaps a little later.
    """
    logger.info("%s", message)
    left = why_left(stop, wait=False)
    heartbeat.beat("stopped", message=message, left=left, force=True)
    if not left and under_slurm:
        heartbeat.beat("stopped", left=why_left(stop, wait=True), force=True)


def _next_wanted(run: RunDir, world: World, evaluated: Container[str]) -> EvalJob | None:
    """The next evaluation that somebody asked for meanwhile, in all processes; None where there is none.

    It is sent as bytes: a loss of another package may be of a class that cannot be pickled.
    """
    sent = None
    if world.is_main:
        jobs = retry(partial(wanted, run), f"looking into {run.root}")
        sent = next((msgspec.json.encode(job) for job in jobs if job.id not in evaluated), None)
    received = world.from_main(sent)
    return None if received is None else msgspec.json.decode(received, type=EvalJob)


def end_wait(stop: Callable[[], bool], waiting: Waiting | None) -> None:
    """Raise StopRequested where the run was asked to stop and waits for its storage."""
    if waiting is not None and stop():
        raise StopRequested(stopped_waiting(waiting.what))


def _begin(run: RunDir, assignment: Assignment) -> None:
    """Start the run's log, name its job, and remove what earlier starts left of their failures and of their files."""
    run.forget_failures()
    for folder in (run.root, run.checkpoints, *(run.evaluation(job.id) for job in assignment.evals)):
        remove_leftovers(folder)
    log_to(run.log)
    write_json(run.job, assignment.train)


def _describe_start(run: RunDir, world: World, assignment: Assignment) -> None:
    write_json(run.environment, describe_environment(world))
    if run.code_diff.exists():
        sha256 = hashlib.sha256(read_bytes(run.code_diff, most=LARGE)).hexdigest()
        run.code_diff.replace(run.earlier_code_diff(sha256))
    if assignment.code_diff:
        write_atomic(run.code_diff, assignment.code_diff.encode())


def _tidy(run: RunDir) -> None:
    """Of a run that is done."""
    forget_evaluated(run)
    run.tidy()


def _is_there(path: Path) -> bool:
    """Whether the file exists; waits for a file server that is away."""
    return retry(path.exists, f"looking for {path}")


def _ap_so_far(run: RunDir) -> float | None:
    """The AP that an earlier start of the training found."""
    with suppress(RecordError):
        status = run.read_status()
        return status.ap if status is not None else None
    return None
