"""The losses of a training as TensorBoard scalars."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Board:
    """Event files of one start of a training; a start after step N hides what an earlier one drew after N.

    tensorboardX's SummaryWriter writes in a thread of its own, which ends with the first error; its full queue
    then blocks the training for ever. So its parts are used from the training's own thread. What
    storage refuses now is written with later values, to a new file.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        self.folder = folder
        self._file: Any = None
        self._files = 0
        self._unwritten: list[Any] = []
        if start:
            from tensorboardX.proto.event_pb2 import Event, SessionLog

            self._unwritten.append(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Draw the values at one iteration."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            summary = scalar(f"train/{name}", value)
            self._unwritten.append(Event(step=iteration, wall_time=time.time(), summary=summary))
        try:
            self._write()
        except OSError as error:
            logger.warning("TensorBoard's values were not written: %s", error)
            self.close()  # it may end with half a record

    def close(self) -> None:
        """Close the file as it is."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None

    def _write(self) -> None:
        if self._file is None:
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.record_writer import RecordWriter

            self.folder.mkdir(parents=True, exist_ok=True)
            self._files += 1  # so that two files of the same second have two names
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{self._files}"
            self._file = RecordWriter(str(self.folder / name))
            self._file.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for event in self._unwritten:
            self._file.write(event.SerializeToString())
        self._file.flush()
        self._unwritten = []
