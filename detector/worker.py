"""One run from start to record, in each of its processes. Free of torch until it is called.

The launcher pickles a ``Worker``: tiny, so that signals arrive late in the imports at worst.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from detector.errors import HarnessError, RecordError
from detector.job import EvalJob, TrainJob
from detector.patience import patiently
from detector.record import Code
from detector.requeue import after_stop, slurm_job
from detector.rundir import Phase, RunDir, Status, read_json, write_atomic, write_json
from detector.stop import STOP_SIGNALS, StopFlag, StopRequested

if TYPE_CHECKING:
    from detector.world import World

logger = logging.getLogger(__name__)


class AnchorRanges(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a batch's mean number of anchors an image can be on a data set, [low, high] (``detector.canary``).

    ``borderline``: those with an IoU between 0.4 and the positives'.
    """

    positives: tuple[float, float]
    borderline: tuple[float, float]


class Assignment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a worker is to do, and how; paths are this machine's and in no identity."""

    train: TrainJob
    evals: tuple[EvalJob, ...]
    run_dir: str
    data_root: str
    profile: str
    device: Literal["cpu", "cuda"]
    threads: int
    loader_workers: int
    checkpoint_every: int
    groups_per_forward: int
    weights_file: str | None
    code: Code
    code_diff: str = ""  # what its ``diff_sha256`` is of
    notes: tuple[str, ...]
    anchor_ranges: AnchorRanges | None = None
    max_requeues: int = 0  # how often a scheduler is asked to start the run again after its signal to stop
    evaluate_every: int = 0  # iterations; what the run has learned so far, for those who wait; 0: never
    compile: bool = False  # the network that is trained, by torch.compile


@dataclass
class Worker:
    """Callable that trains what is missing, evaluates what is missing, and writes the records."""

    assignment: Assignment

    def __call__(self) -> None:
        """Run to the end. A stop by a signal saves and exits with 130; any error is in status.json and log.txt.

        Where a scheduler said that the time is up, rank 0 asks it to start the job again before it goes; the others
        go with 0, for a process that fails makes Slurm end all of them. Where another command already runs this
        training, wait for it: what it leaves undone is done here.
        """
        stop = StopFlag()
        os.environ["OMP_NUM_THREADS"] = str(self.assignment.threads)
        run = RunDir(Path(self.assignment.run_dir))
        export_distributed()
        rank = int(os.environ.get("RANK", "0"))
        heartbeat = Heartbeat(run.failure(rank) if rank else run.status, self.assignment.train.schedule.iterations)
        with ExitStack() as stack:
            if rank == 0:
                try:
                    stack.enter_context(run.lock(wait=lambda: not stop()))
                except BlockingIOError:  # asked to stop while waiting
                    after_stop(stop, self.assignment.max_requeues)
                    sys.exit(130)
                patiently(partial(_begin, run, self.assignment), "the run's folder")
                heartbeat.beat("starting", force=True, ap=_ap_so_far(run))
            try:
                self._run(run, heartbeat if rank == 0 else None, stop, stack)
            except StopRequested as stopped:
                if rank and self.assignment.max_requeues:
                    sys.exit(0)
                if rank == 0:
                    # Said before, since a scheduler that starts a job again ends it first.
                    heartbeat.beat("stopped", message=str(stopped), force=True)
                    message = f"{stopped}{after_stop(stop, self.assignment.max_requeues)}"
                    logger.info("%s", message)
                    heartbeat.beat("stopped", message=message, force=True)
                sys.exit(130)
            except BaseException as error:
                _report_failure(run, rank, heartbeat, error)
                raise

    def _run(self, run: RunDir, heartbeat: Heartbeat | None, stop: StopFlag, stack: ExitStack) -> None:
        import torch

        from detector.finish import evaluate_and_record, train_to_final
        from detector.world import join_world

        assignment = self.assignment
        torch.set_num_threads(assignment.threads)
        # Left with the stack, after a failure was reported: the others notice it by our leaving.
        world = stack.enter_context(join_world(assignment.device, meeting_file(run.root)))
        if world.is_main:
            patiently(partial(_describe_start, run, world, assignment), "the run's environment")
        # What is there, rank 0 says for all: files appear at different times to different nodes.
        if not world.from_main(world.is_main and _is_there(run.final)):
            train_to_final(assignment, run, world=world, heartbeat=heartbeat, stop=stop)
        with stop.at_once(signals_at_once(assignment, world)):
            for job in assignment.evals:
                if not world.from_main(world.is_main and _is_there(run.record(job.id))):
                    evaluate_and_record(assignment, job, run, world=world, heartbeat=heartbeat)
        if heartbeat is not None:
            heartbeat.beat("done", force=True)


def _begin(run: RunDir, assignment: Assignment) -> None:
    """What a person finds of a run that has just begun; nothing of an earlier start's failures."""
    run.forget_failures()
    log_to(run.log)
    write_json(run.job, assignment.train)


def _describe_start(run: RunDir, world: World, assignment: Assignment) -> None:
    write_json(run.environment, describe_environment(world))
    run.code_diff.unlink(missing_ok=True)
    if assignment.code_diff:
        write_atomic(run.code_diff, assignment.code_diff.encode())


def _is_there(path: Path) -> bool:
    """Once the file server answers at all."""
    return patiently(path.exists, f"looking for {path}")


def signals_at_once(assignment: Assignment, world: World) -> tuple[Signals, ...]:
    """Those that stop this process where nothing needs saving.

    A job that will start again is ended by its rank 0; the others would leave it waiting in a collective.
    """
    return (SIGINT, SIGTERM) if not world.is_main and assignment.max_requeues else STOP_SIGNALS


class Heartbeat:
    """Rewrites a ``Status`` file about once a second, so that a launcher, or a person, sees what the run does."""

    INTERVAL = 1.0  # seconds

    def __init__(self, path: Path, iterations: int) -> None:
        self.path = path
        self.state = Status(phase="starting", time=0.0, pid=os.getpid(), iterations=iterations, job=slurm_job())

    def beat(self, phase: Phase, *, force: bool = False, **values: Any) -> None:
        """Note the phase and any of Status's fields; written when due or when forced."""
        import time

        from msgspec.structs import replace

        news = force or phase != self.state.phase
        due = news or time.time() - self.state.time >= self.INTERVAL
        fresh = replace(self.state, phase=phase, **values)
        if due:
            fresh = replace(fresh, time=time.time())
            try:
                # To wait for the disk every second takes longer than all else that the loop does beside its work.
                write_json(self.path, fresh, flush=news)
            except OSError as error:  # a full disk or a file server that is away ends no training
                logger.warning("the heartbeat was not written: %s", error)
        self.state = fresh


def describe_environment(world: World) -> dict[str, str]:
    """Versions and hardware, without the names of hosts, users or folders."""
    import platform
    from importlib.metadata import version

    import torch

    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("torchvision", "pycocotools", "numpy", "pillow")},
        "device": f"{world.device.type} ({device})",
        "processes": str(world.size),
        "threads": str(torch.get_num_threads()),
    }


def _ap_so_far(run: RunDir) -> float | None:
    """What an earlier start of the training had found."""
    with suppress(RecordError):
        status = run.read_status()
        return status.ap if status is not None else None
    return None


def export_distributed() -> None:
    """Let submitit describe the processes to torch, where it started more than one."""
    import submitit

    try:
        environment = submitit.JobEnvironment()
    except RuntimeError:  # not started by submitit: one process
        return
    if environment.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if environment.num_nodes == 1:  # not every machine can resolve its own name
            os.environ["MASTER_ADDR"] = "127.0.0.1"


def meeting_file(folder: Path) -> Path | None:
    """The file through which the processes of this start of this Slurm job meet; None without Slurm."""
    if slurm_job() is None:
        return None
    return folder / f".meeting-{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT') or 0}.json"


def log_to(path: Path) -> None:
    """Write what loggers say to the end of a run's log."""
    logging.basicConfig(
        filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )


def _report_failure(run: RunDir, rank: int, heartbeat: Heartbeat, error: BaseException) -> None:
    """Log the error and say it in the heartbeat; rank 0 says what failed first, be it in another process.

    One process that goes makes the others fail in a collective; only the first error says why.
    """
    with suppress(OSError):  # a full disk must not hide the error itself
        if rank:
            log_to(run.log)
        _log_failure(error)
        earlier = run.first_failure() if rank == 0 else None
        heartbeat.beat("failed", message=_describe(error) if earlier is None else earlier.message, force=True)


def _log_failure(error: BaseException) -> None:
    if isinstance(error, HarnessError):
        logger.error("%s: %s", type(error).__name__, error)
    else:
        logger.error("%s", "".join(traceback.format_exception(error)))


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    return text[:2000]


def read_train_job(run: RunDir) -> TrainJob:
    """The job of a run folder. Raises RecordError where there is none."""
    if not run.job.exists():
        raise RecordError(f"{run.root} is not a run folder: it has no job.json.")
    return read_json(run.job, TrainJob)
