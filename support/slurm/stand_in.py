"""Stand-ins for Slurm's programs, first on the PATH: they count their calls, and fail while a file is there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
echo "$(date +%s.%N) $*" >>{calls}
if [ -e {fails} ]; then
  echo "{name}: error: Unable to contact slurm controller (connect failure)" >&2
  exit 1
fi
exec {real} "$@"
"""


@dataclass(frozen=True)
class StandIn:
    """One program. calls: a line per call. While ``fails`` exists, the program has no answer."""

    name: str
    calls: Path
    fails: Path

    def count(self) -> int:
        """How often it was called."""
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


def stand_in(folder: Path, name: str) -> StandIn:
    """Put one into a folder that is to be first on the PATH."""
    real = shutil.which(name)
    assert real is not None, name
    folder.mkdir(parents=True, exist_ok=True)
    made = StandIn(name, folder / f"{name}.calls", folder / f"{name}.fails")
    script = folder / name
    script.write_text(_SCRIPT.format(calls=made.calls, fails=made.fails, name=name, real=real))
    script.chmod(0o755)
    return made
