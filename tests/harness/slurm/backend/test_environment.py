"""What of this process's variables sbatch sees: they would go before the options of the batch script."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.slurm.backend.slurm import Slurm

SCRIPT = "#!/bin/bash\n#SBATCH --time=5\n#SBATCH --partition=gpu\nsleep 1\n"


def test_sbatch_sees_no_variable_that_goes_before_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nenv >{tmp_path}/seen\necho 17\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("TIMELIMIT", "EXPORT", "JOB_NAME", "PARTITION", "ACCOUNT", "NO_REQUEUE"):
        monkeypatch.setenv(f"SBATCH_{name}", "mine")
    assert Slurm().submit(SCRIPT) == "17"
    seen = [line.split("=")[0] for line in (tmp_path / "seen").read_text().splitlines()]
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith("SBATCH_")]
