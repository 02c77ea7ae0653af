"""One process of a run under Slurm: ``python -u -m detector.worker TASK.json``.

TASK.json: the run's assignment (``missing_loss.encode``). Exit codes: 0 done, 130 stopped and saved (rank 0), else
failed.
"""

from __future__ import annotations

import faulthandler
import signal
import sys


def main(arguments: list[str]) -> int:
    """Run the assignment of the one file that is named. Returns 1 where there is none that can be run."""
    # A signal to stop that comes during the imports arrives when the worker can handle it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2))
    faulthandler.register(signal.SIGQUIT, file=2)

    from pathlib import Path

    import msgspec

    from detector.errors import HarnessError, TrainingError
    from detector.storage.reading import read_bytes
    from detector.storage.retry import RETRY_SECONDS
    from detector.worker.missing_loss import MissingLoss, decode
    from detector.worker.processes import slurm_task
    from detector.worker.worker import Worker

    try:
        if len(arguments) != 1:
            raise TrainingError(f"python -m detector.worker takes one file, a task; it was given {len(arguments)}.")
        file = Path(arguments[0])
        try:
            assignment = decode(read_bytes(file, retry_seconds=RETRY_SECONDS))
        except msgspec.DecodeError as error:
            raise TrainingError(f"{file} is not the task of a run: {error}. Submit the run again.") from error
    except HarnessError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    task = slurm_task(file)
    if isinstance(assignment, MissingLoss):
        assignment(None if task is None else task.job)
    else:
        Worker(assignment, task)()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
