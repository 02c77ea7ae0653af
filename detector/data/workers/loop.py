"""The batches of loader workers, in order, and what is said where they do not come."""

from __future__ import annotations

import errno
import faulthandler
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Dataset

from detector.data.workers.handover import FromWorkers
from detector.data.workers.room import LOWER, PREFETCH, check_room, death_of_worker, needs_more_room
from detector.data.workers.said import Said
from detector.errors import HarnessError, TrainingError
from detector.storage.retry import Waiting, tell

POLL_SECONDS: Final = 1  # between two looks at whether a batch is still waited for
SHOWN_SECONDS: Final = 30  # a first batch takes a while
GIVEN_UP_SECONDS: Final = 600  # as long as the other processes of a run wait; a file is waited for half as long
_TIMED_OUT: Final = "DataLoader timed out"  # torch


def batches_of_workers(
    data: Dataset[Any], iterations: Iterable[int], *, workers: int, most_bytes: int, alone: bool
) -> Iterator[Any]:
    """``data[i]`` for each of the iterations, prepared by ``workers`` processes.

    most_bytes: of an item. alone: whether this process can stop between two items without asking others. Raises
    TrainingError where the machine has no room for the workers, or one of them died, and the errors of ``data``.
    """
    check_room(most_bytes, workers)
    before = set(multiprocessing.active_children())
    said = iterator = None
    try:
        said = Said(workers)
        iterator = iter(_loader(FromWorkers(data, workers, said), iterations, workers))
        while True:
            try:
                item = _next(iterator, said, workers, alone=alone)
            except StopIteration:
                return
            if isinstance(item, HarnessError):
                raise item
            yield _opened(item)
            del item  # its memory is free before the next one comes
    except (OSError, RuntimeError) as error:
        explained = death_of_worker(error, workers) or needs_more_room(error, workers)
        if explained is None:
            raise
        raise explained from error
    finally:
        if said is not None:
            said.end()
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
        for left in set(multiprocessing.active_children()) - before:
            left.kill()  # it waits for storage that does not answer, and would keep this process from ending


def _opened(item: Any) -> Any:
    """The value. Raises OSError where the worker had no file left to hand its memory over with.

    That fails in a thread of the worker, which only closes the connection.
    """
    try:
        return item.open()
    except EOFError as error:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error


def _loader(data: Dataset[Any], iterations: Iterable[int], workers: int) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_size=None,
        sampler=list(iterations),
        num_workers=workers,
        prefetch_factor=PREFETCH,
        timeout=POLL_SECONDS,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_stacks_on_quit,
        # The loader's own generator: else it would draw from torch's global state, and a resumed training would differ.
        generator=torch.Generator(),
    )


def _stacks_on_quit(worker: int) -> None:
    """In a worker: SIGQUIT prints where each thread is, whether or not the worker was forked from who does so."""
    faulthandler.register(signal.SIGQUIT, file=2)


def _next(iterator: Iterator[Any], said: Said, workers: int, *, alone: bool) -> Any:
    """The next item; meanwhile it is told that the training waits."""
    waited = 0  # counted, not taken from a clock: a process that was halted for an hour did not wait
    while True:
        try:
            item = next(iterator)
        except RuntimeError as error:
            if _TIMED_OUT not in str(error):
                raise
        else:
            if waited:
                tell(None)
            return item
        waited += POLL_SECONDS
        waiting = said.longest()
        if waiting is None and waited >= GIVEN_UP_SECONDS:
            raise TrainingError(_silent(workers, waited))
        if waiting is None and (alone or waited >= SHOWN_SECONDS):
            why = "no loader worker has them ready"
            waiting = Waiting("the next images", why, waited, noteworthy=waited >= SHOWN_SECONDS)
        if waiting is not None:
            tell(waiting)


def _silent(workers: int, seconds: int) -> str:
    return (
        f"None of {workers} loader workers gave a batch for {seconds // 60} minutes, and all of them live: they wait "
        f"for storage that does not answer, or are halted. See whether the images can be read ('harness data verify "
        f"DIR'), then run again; or {LOWER} (0: the training reads them itself)."
    )
