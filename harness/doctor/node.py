"""All checks of one process in the short job of ``harness doctor --cluster``. torch is imported only by the checks.

    python -m harness.doctor.node TASK.json

Each process writes its results into one JSON file and rewrites it at each check, so that the file of a process that
dies or hangs shows how far it came. Each check is caught by itself: no failure hides the others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from detector.errors import RecordError
from detector.storage.files import write_json
from detector.storage.reading import read_json, read_text
from harness.doctor import node_checks
from harness.doctor.node_checks import Answer, State
from harness.doctor.node_meeting import ProcessInfo, exchange, exit_if_a_thread_hangs, sum_ranks

MARKER_SECONDS = 5.0


class Marker(Struct, frozen=True):
    """What the command writes into the folder: a nonce, which shows that the folder is the same, and the time."""

    nonce: str
    time: float  # seconds since the epoch, by the command's clock


class Check(Struct, frozen=True):
    """The result of one check in one process. A note does not stop runs from working."""

    name: str
    state: State
    text: str


class NodeReport(Struct, frozen=True, kw_only=True):
    """The results of one process.

    doing: the check under way; empty after the last one. marker_time: the time in the command's ``Marker``, 0 where it
    could not be read. time: this node's own, right after the marker was read. Both are seconds since the epoch.
    """

    rank: int
    node: str
    marker_time: float
    time: float
    versions: dict[str, str]
    doing: str = "start"
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class NodeCheckFolder:
    """The folder through which the command and the processes of its job exchange files."""

    root: Path

    @property
    def marker(self) -> Path:
        """The command's ``Marker``."""
        return self.root / "marker.json"

    @property
    def scontrol(self) -> Path:
        """What scontrol said to the batch script."""
        return self.root / "scontrol.txt"

    def lock(self, holder: int | str) -> Path:
        """A file that ``holder``, a rank or "command", keeps locked while others check that they see the lock."""
        return self.root / f"{holder}.lock"

    def report(self, rank: int) -> Path:
        """A process's ``NodeReport``."""
        return self.root / f"report-{rank}.json"


class ReportWriter:
    """Makes checks and keeps the report file of this process up to date."""

    def __init__(self, path: Path, report: NodeReport) -> None:
        self.path = path
        self.report = report

    def check(self, name: str, action: Callable[[], Answer]) -> bool:
        """Write the check's name, make it, and keep its answer. An error is a failure. Returns False for a failure."""
        self._write(replace(self.report, doing=name))
        try:
            state, text = action()
        except Exception as error:
            state, text = "fail", node_checks.error_text(error)
        self.report = replace(self.report, checks=(*self.report.checks, Check(name, state, text)))
        return state != "fail"

    def close(self) -> None:
        """Write that no check is under way."""
        self._write(replace(self.report, doing=""))

    def _write(self, report: NodeReport) -> None:
        self.report = report
        write_json(self.path, report)


class NodeCheck(Struct, frozen=True, kw_only=True):
    """Makes all checks and writes the report of its process. Paths are absolute.

    code: the copy of the packages that runs would import. requeues: whether runs may be requeued. wait: seconds to wait
    for the other processes, in each of three places.
    """

    folder: str
    nonce: str
    code: str
    on_gpus: bool
    data: str | None
    packages: tuple[str, ...]
    requeues: bool
    wait: float

    def __call__(self) -> None:
        """Make the checks; exit with 0 whatever they find, since Slurm would end the others after a failed process."""
        rank, size, local = (_number(name) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
        folder = NodeCheckFolder(Path(self.folder))
        marker = _read_marker(folder)
        report = NodeReport(
            rank=rank,
            node=node_checks.node_name(),
            marker_time=marker.time,
            time=time.time(),
            versions=node_checks.installed(self.packages),
        )
        writer = ReportWriter(folder.report(rank), report)
        check = writer.check
        check("runs folder", lambda: self._same_folder(marker))
        check("links", lambda: node_checks.links_and_renames(folder.root, str(rank)))
        check("code", lambda: node_checks.imported_from(Path(self.code)))
        check("torch", node_checks.torch_imports)
        check("operators", node_checks.operators_work)
        check("pycocotools", node_checks.coco_tools_import)
        has_cuda = self.on_gpus and check("GPUs", lambda: node_checks.gpus_work(local))
        if self.data is not None:
            data = Path(self.data)
            check("COCO data", lambda: node_checks.data_is_readable(data))
        check("scontrol", lambda: node_checks.scontrol_answered(_said(folder), needed=self.requeues))
        check("/dev/shm", node_checks.shared_memory)
        check("open files", node_checks.open_files_limit)
        self._check_together(check, folder, rank, max(size, 1), ProcessInfo(report.node, has_cuda))
        writer.close()
        exit_if_a_thread_hangs()

    def _same_folder(self, marker: Marker) -> Answer:
        if marker.nonce == self.nonce:
            return "ok", "the node reads what the command wrote"
        return "fail", f"what the command wrote cannot be read in {self.folder}; HARNESS_RUNS must be on a shared disk"

    def _check_together(
        self,
        check: Callable[[str, Callable[[], Answer]], bool],
        folder: NodeCheckFolder,
        rank: int,
        size: int,
        me: ProcessInfo,
    ) -> None:
        """The checks that need the other processes. They may take long."""
        others = dict[int, ProcessInfo]()

        def see_files() -> Answer:
            others.update(exchange(folder.root, "present", me, rank=rank, size=size, wait=self.wait))
            return "ok", f"the {size} processes see each other's files"

        with ExitStack() as stack:
            check("locks", lambda: node_checks.take_lock(folder.lock(rank), stack))
            met = size == 1 or check("files of others", see_files)
            locked = [folder.lock("command")]
            if met and size > 1:
                locked.append(folder.lock(size - 1 if rank == 0 else 0))  # of the other node, if there are two
            check("locks of others", lambda: node_checks.locks_of_others(locked))
            if size == 1:
                return
            if not met:
                check("processes", lambda: ("fail", "not tried: they do not see each other's files"))
                return
            exchange(folder.root, "tried", me, rank=rank, size=size, wait=self.wait, strict=False)
        device = "cuda" if all(other.has_cuda for other in others.values()) else "cpu"
        nodes = len({other.node for other in others.values()})
        check("processes", lambda: sum_ranks(folder.root, device, rank=rank, size=size, nodes=nodes, wait=self.wait))


def _said(folder: NodeCheckFolder) -> str:
    try:
        return read_text(folder.scontrol)
    except RecordError as error:
        return str(error)


def _number(variable: str) -> int:
    return int(os.environ.get(variable) or 0)


def _read_marker(folder: NodeCheckFolder) -> Marker:
    """The command's marker, or an empty one. The command rewrites it at times, and a node may see it late."""
    end = time.monotonic() + MARKER_SECONDS
    while time.monotonic() < end:
        with suppress(RecordError):
            return read_json(folder.marker, Marker)
        time.sleep(0.2)
    return Marker("", 0.0)


if __name__ == "__main__":
    read_json(Path(sys.argv[1]), NodeCheck)()
