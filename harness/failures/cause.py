"""Which of a run's processes says why the run failed."""

from __future__ import annotations

from detector.runs.folder import RunDir
from detector.runs.status import Status
from harness.failures.classes import classify


def cause(run: RunDir, own: Status | None) -> Status | None:
    """Of the failures of all processes in this start, the one that the others came from; None where none failed.

    own: of rank 0, which tells an earlier failure of another process where it sees one. A lost connection is how the
    end of one process looks to the others, also where their words come first: the one that fails has more to write.
    """
    found = [own] if own is not None and own.phase == "failed" else []
    found += sorted(run.failures(), key=lambda status: status.time)
    return min(found, key=lambda status: classify(status.message) == "network", default=None)
