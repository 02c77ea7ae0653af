"""The losses of a training as TensorBoard scalars, in one file per run."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

from detector.errors import RecordError
from detector.storage.reading import LARGE, regular_file

logger = logging.getLogger(__name__)

# A record of an event file (TFRecord): the length of its content, a sum of that, the content, a sum of the content.
_LENGTH: Final = struct.Struct("<Q")
_SUM: Final = struct.Struct("<I")
_HEAD: Final = _LENGTH.size + _SUM.size


class Board:
    """The event file of a training. A start after step N goes on with it, and hides what an earlier one drew after N.

    tensorboardX's SummaryWriter writes in a thread of its own, which ends with the first error; its full queue
    then blocks the training for ever. So its parts are used from the training's own thread. What
    storage refuses now is written with later values.
    """

    def __init__(self, folder: Path, *, start: int) -> None:
        self.folder, self.start = folder, start
        self._path: Path | None = None  # once it is known to hold whole records only
        self._size = 0  # of these
        self._unwritten: list[Any] = []

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Draw the values at one iteration."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            summary = scalar(f"train/{name}", value)
            self._unwritten.append(Event(step=iteration, wall_time=time.time(), summary=summary))
        try:
            self._write()
        except (OSError, RecordError) as error:  # no training ends for them
            logger.warning("TensorBoard's values were not written: %s", error)

    def _write(self) -> None:
        """Raises OSError and RecordError; then all of it is written with the next values."""
        path = self._path or self._open()
        content = b"".join(framed(event.SerializeToString()) for event in self._unwritten)
        with open(path, "r+b", buffering=0) as file:
            file.truncate(self._size)  # what an earlier attempt left half-written
            file.seek(self._size)
            written = file.write(content)
        if written != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._size += written
        self._unwritten = []

    def _open(self) -> Path:
        """The newest file of earlier starts, up to its last whole record; else a new one."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        found = sorted(self.folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        path, size = found[-1] if found else self.folder / name, 0
        if found:
            with regular_file(path, most=LARGE) as file:
                size = whole_records(file)
        head = (
            [Event(step=self.start + 1, session_log=SessionLog(status=SessionLog.START))] if size or self.start else []
        )
        if not size:
            head.insert(0, Event(wall_time=time.time(), file_version="brain.Event:2"))
            self.folder.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._path, self._size = path, size
        self._unwritten[:0] = head
        return path


def whole_records(file: BinaryIO) -> int:
    """Bytes of an event file up to the end of its last whole record: a crash cuts one short, or leaves zeros.

    The content of the last one alone is summed up: sums of a whole file would take a minute.
    """
    from tensorboardX.record_writer import masked_crc32c

    ends = [0]
    size = file.seek(0, 2)
    while True:
        file.seek(ends[-1])
        head = file.read(_HEAD)
        if len(head) < _HEAD or _SUM.unpack(head[_LENGTH.size :])[0] != masked_crc32c(head[: _LENGTH.size]):
            break
        end = ends[-1] + _HEAD + _LENGTH.unpack(head[: _LENGTH.size])[0] + _SUM.size
        if end > size:
            break
        ends.append(end)
    while len(ends) > 1:
        file.seek(ends[-2] + _HEAD)
        content = file.read(ends[-1] - ends[-2] - _HEAD)
        if _SUM.unpack(content[-_SUM.size :])[0] == masked_crc32c(content[: -_SUM.size]):
            break
        ends.pop()
    return ends[-1]


def framed(content: bytes) -> bytes:
    """One record of an event file: its content between its length and sums."""
    from tensorboardX.record_writer import masked_crc32c

    head = _LENGTH.pack(len(content))
    return b"".join([head, _SUM.pack(masked_crc32c(head)), content, _SUM.pack(masked_crc32c(content))])
