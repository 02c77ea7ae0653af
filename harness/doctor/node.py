"""What runs would meet on a cluster's nodes, looked at by each process of one short job. Free of torch until called.

Each process keeps one JSON file of what it found and rewrites it with each step, so that one that dies or hangs says
how far it came. The steps are caught one by one: no failure hides the others.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from detector.errors import RecordError
from detector.storage.files import read_json, write_json
from detector.worker.requeue import job_id
from harness.doctor import node_checks as checks
from harness.doctor.node_checks import Answer, State
from harness.doctor.node_meeting import Present, add_up, end_hanging_threads, exchange

WORD_SECONDS = 5.0


class Word(Struct, frozen=True):
    """What the command leaves in the folder for the processes: proof that it is the same folder, and its time."""

    nonce: str
    time: float  # seconds since the epoch, by the command's clock


class Check(Struct, frozen=True):
    """One thing looked at by one process; a note is no obstacle."""

    name: str
    state: State
    text: str


class NodeReport(Struct, frozen=True, kw_only=True):
    """What one process found. ``doing``: the step under way, empty after the last one.

    ``heard``: the time in the command's ``Word`` (0 where it could not be read), and ``time``: this node's own right
    after reading it; seconds since the epoch.
    """

    rank: int
    node: str
    heard: float
    time: float
    versions: dict[str, str]
    doing: str = "start"
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class NodeCheckFolder:
    """Where the command and the processes of its job leave files for each other."""

    root: Path

    @property
    def word(self) -> Path:
        """The command's ``Word``."""
        return self.root / "word.json"

    def lock(self, holder: int | str) -> Path:
        """Locked by a process, or by ``command``, as long as others may look."""
        return self.root / f"{holder}.lock"

    def report(self, rank: int) -> Path:
        """A process's ``NodeReport``."""
        return self.root / f"report-{rank}.json"


class Notebook:
    """The report of this process, rewritten with each step."""

    def __init__(self, path: Path, report: NodeReport) -> None:
        self.path = path
        self.report = report

    def look(self, name: str, step: Callable[[], Answer]) -> bool:
        """Note what is being done, do it, and note the answer; an error is a failure. Returns whether it was none."""
        self._write(replace(self.report, doing=name))
        try:
            state, text = step()
        except Exception as error:
            state, text = "fail", checks.error_text(error)
        self.report = replace(self.report, checks=(*self.report.checks, Check(name, state, text)))
        return state != "fail"

    def close(self) -> None:
        """Nothing more is done."""
        self._write(replace(self.report, doing=""))

    def _write(self, report: NodeReport) -> None:
        self.report = report
        write_json(self.path, report)


@dataclass(frozen=True)
class NodeCheck:
    """Callable that looks at everything and writes the report of its process. Paths are absolute.

    code: the copy of the packages that runs would import. requeues: whether runs may ask Slurm to start them again.
    patience: seconds to wait for the other processes, in each of three places.
    """

    folder: str
    nonce: str
    code: str
    on_gpus: bool
    data: str | None
    packages: tuple[str, ...]
    requeues: bool
    patience: float

    def __call__(self) -> None:
        """Look, and end well whatever was found: a process that fails would make Slurm end the others."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it; there is nothing to save here
        rank, size, local = (_number(name) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
        folder = NodeCheckFolder(Path(self.folder))
        heard = _hear(folder)
        report = NodeReport(
            rank=rank,
            node=checks.node_name(),
            heard=heard.time,
            time=time.time(),
            versions=checks.installed(self.packages),
        )
        notebook = Notebook(folder.report(rank), report)
        look = notebook.look
        look("runs folder", lambda: self._same_folder(heard))
        look("links", lambda: checks.links_and_renames(folder.root, str(rank)))
        look("code", lambda: checks.imported_from(Path(self.code)))
        look("torch", checks.torch_imports)
        look("operators", checks.operators_work)
        look("pycocotools", checks.coco_tools_import)
        has_cuda = self.on_gpus and look("GPUs", lambda: checks.gpus_work(local))
        if self.data is not None:
            data = Path(self.data)
            look("COCO data", lambda: checks.data_is_readable(data))
        look("scontrol", lambda: checks.scontrol_answers(job_id(), needed=self.requeues))
        look("/dev/shm", checks.shared_memory)
        self._look_together(look, folder, rank, max(size, 1), Present(report.node, has_cuda))
        notebook.close()
        end_hanging_threads()

    def _same_folder(self, heard: Word) -> Answer:
        if heard.nonce == self.nonce:
            return "ok", "the node reads what the command wrote"
        return "fail", f"what the command wrote cannot be read in {self.folder}; HARNESS_RUNS must be on a shared disk"

    def _look_together(
        self,
        look: Callable[[str, Callable[[], Answer]], bool],
        folder: NodeCheckFolder,
        rank: int,
        size: int,
        me: Present,
    ) -> None:
        """What needs the other processes, and may take long."""
        others = dict[int, Present]()

        def see_files() -> Answer:
            others.update(exchange(folder.root, "present", me, rank=rank, size=size, patience=self.patience))
            return "ok", f"the {size} processes see each other's files"

        with ExitStack() as stack:
            look("locks", lambda: checks.take_lock(folder.lock(rank), stack))
            met = size == 1 or look("files of others", see_files)
            locked = [folder.lock("command")]
            if met and size > 1:
                locked.append(folder.lock(size - 1 if rank == 0 else 0))  # of the other node, if there are two
            look("locks of others", lambda: checks.locks_of_others(locked))
            if size == 1:
                return
            if not met:
                look("processes", lambda: ("fail", "not tried: they do not see each other's files"))
                return
            exchange(folder.root, "tried", me, rank=rank, size=size, patience=self.patience, strict=False)
        device = "cuda" if all(other.has_cuda for other in others.values()) else "cpu"
        nodes = len({other.node for other in others.values()})
        look("processes", lambda: add_up(folder.root, device, rank=rank, size=size, nodes=nodes, wait=self.patience))


def _number(variable: str) -> int:
    return int(os.environ.get(variable) or 0)


def _hear(folder: NodeCheckFolder) -> Word:
    """The command's word; it is written anew from time to time, and may be seen late."""
    end = time.monotonic() + WORD_SECONDS
    while time.monotonic() < end:
        with suppress(RecordError):
            return read_json(folder.word, Word)
        time.sleep(0.2)
    return Word("", 0.0)
