"""A batch on its way from a loader worker: one piece of shared memory, packed before it is sent.

torch's loader packs in a thread of the worker; where shared memory or open files run out there, the batch is lost and
the training waits for it for ever. Here the worker packs it itself, so that what goes wrong is sent in its place. One
piece per batch also needs one open file, where torch needs one for each tensor.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

import torch
from torch.utils.data import Dataset

from detector.data.workers.room import needs_more_room
from detector.data.workers.said import Said
from detector.errors import HarnessError
from detector.storage.retry import watched_by

ALIGNMENT: Final = 64  # bytes; every type of number can begin there
SPARE_FILES: Final = 4  # that sending a batch opens for a moment


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the block. stride: as it was, where its elements fill one stretch of memory."""

    offset: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """A value whose tensors lie in one block. rest: the pickled value without them."""

    block: torch.Tensor  # uint8
    places: tuple[Place, ...]
    rest: bytes

    def open(self) -> Any:
        """The value; its tensors are views of the block."""
        return _Unpickler(io.BytesIO(self.rest), self.block, self.places).load()


@dataclass(frozen=True)
class Sent:
    """A packed value as bytes, which name its shared memory: opened once, while the worker lives."""

    content: bytes

    def pin_memory(self) -> Packed:
        """In page-locked memory; torch's loader calls this method by its name."""
        packed = self._received()
        return Packed(packed.block.pin_memory(), packed.places, packed.rest)

    def open(self) -> Any:
        """The value."""
        return self._received().open()

    def _received(self) -> Packed:
        packed = pickle.loads(self.content)
        assert isinstance(packed, Packed)
        return packed


class FromWorkers(Dataset[Any]):
    """The items of ``data``, packed to be sent; an error that the user can mend is sent in the place of an item."""

    def __init__(self, data: Dataset[Any], workers: int, said: Said) -> None:
        self.data, self.workers, self.said = data, workers, said

    def __getitem__(self, index: int) -> Sent | HarnessError:
        try:
            with watched_by(self.said.note):
                return send(self.data[index])
        except HarnessError as error:
            cause = error.__cause__
            return (needs_more_room(cause, self.workers) if isinstance(cause, OSError) else None) or error
        except (OSError, RuntimeError) as error:
            lacking = needs_more_room(error, self.workers)
            if lacking is None:
                raise
            return lacking


def send(value: Any) -> Sent:
    """Pack a value for another process. Raises OSError or RuntimeError where the machine has no room for it."""
    packed = pack(value)
    for number in [os.dup(0) for _ in range(SPARE_FILES)]:  # else the thread that answers would fail, unheard
        os.close(number)
    return Sent(bytes(ForkingPickler.dumps(packed)))


def pack(value: Any) -> Packed:
    """Copy all tensors of a value (on the CPU) into one block of shared memory."""
    rest = io.BytesIO()
    pickler = _Pickler(rest)
    pickler.dump(value)
    places, end = _places(pickler.tensors)
    block = torch.empty(0, dtype=torch.uint8)
    if end:
        storage = torch.UntypedStorage._new_shared(end)  # type: ignore[no-untyped-call]
        block = torch.empty(0, dtype=torch.uint8).set_(storage)
    for place, tensor in zip(places, pickler.tensors, strict=True):
        _view(block, place).copy_(tensor)
    return Packed(block, tuple(places), rest.getvalue())


def _places(tensors: Sequence[torch.Tensor]) -> tuple[list[Place], int]:
    """A place for each tensor, and the bytes of them all."""
    places, end = [], 0
    for tensor in tensors:
        span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        kept = tensor if span == tensor.numel() else torch.empty(tensor.shape, device="meta")
        places.append(Place(end, tensor.dtype, tuple(tensor.shape), kept.stride()))
        end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
    return places, end


def _view(block: torch.Tensor, place: Place) -> torch.Tensor:
    if 0 in place.size:
        return torch.empty(place.size, dtype=place.dtype)
    start = place.offset // place.dtype.itemsize
    # The block's length is a multiple of every element's size.
    return block.view(place.dtype).as_strided(place.size, place.stride, start)


class _Pickler(pickle.Pickler):
    """Pickles a value without its tensors, which it keeps."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        """For pickle: the number of a tensor."""
        if not isinstance(value, torch.Tensor):
            return None
        self.tensors.append(value.detach())
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    """Puts the tensors back."""

    def __init__(self, file: io.BytesIO, block: torch.Tensor, places: Sequence[Place]) -> None:
        super().__init__(file)
        self.block, self.places = block, places

    def persistent_load(self, number: int) -> torch.Tensor:
        """For pickle: the tensor of a number."""
        return _view(self.block, self.places[number])
