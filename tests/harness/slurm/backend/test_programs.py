"""How Slurm's programs are called, with small scripts in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import SchedulerError
from harness.slurm.backend import programs as module
from harness.slurm.backend.programs import Answer, NoAnswer, NoSlurm, ask, own_name


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is the PATH, with a program that says what it was given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    put(folder, "tool", 'echo "$@"; cat; echo to stderr >&2; exit 3')
    put(folder, "variables", "env")
    return folder


def put(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def variables(**options: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in ask("variables", **options).out.splitlines() if "=" in line)


def test_the_answer_has_the_code_and_both_texts(tools: Path) -> None:
    assert ask("tool", "a b", "*") == Answer(3, "a b *\n", "to stderr\n")
    assert ask("tool", text="a script\n").out == "\na script\n"


def test_what_is_no_text_is_replaced(tools: Path) -> None:
    put(tools, "tool", r"printf 'a\377b'")
    assert ask("tool").out == "a�b"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(1, "", "sbatch: error: no account\nsbatch: error: Batch job submission failed.\n\n"), None),
        (Answer(1, "said to stdout\n", ""), "said to stdout"),
        (Answer(7, "\n", " \n"), "exit code 7"),
    ],
)
def test_a_complaint_is_one_line(answer: Answer, expected: str | None) -> None:
    assert answer.complaint == (expected or "sbatch: error: Batch job submission failed")


def test_a_job_does_not_hand_its_own_options_to_what_it_submits(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SBATCH_PARTITION", "SLURMD_NODENAME", "SRUN_DEBUG", "PMIX_RANK", "PMI_SIZE", "MINE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/the.conf")
    kept = variables()
    assert {"SLURM_NTASKS", "SBATCH_PARTITION", "MINE"} <= kept.keys()  # outside of a job they are the user's
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    kept = variables()
    assert {name for name in kept if name.startswith(("SLURM", "SBATCH", "SRUN", "PMI"))} == {"SLURM_CONF"}
    assert kept["SLURM_CONF"] == "/etc/the.conf"
    assert kept["MINE"] == "x"


def test_a_persons_habits_hide_no_jobs(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    habits = ("SQUEUE_PARTITION", "SQUEUE_FORMAT", "SACCT_FORMAT", "SINFO_PARTITION", "SCANCEL_INTERACTIVE")
    for name in (*habits, "SLURM_TIME_FORMAT"):
        monkeypatch.setenv(name, "x")
    assert not {*habits, "SLURM_TIME_FORMAT"} & variables().keys()


def test_the_configuration_file_that_is_named_counts(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "SLURM_CONF" not in variables()
    monkeypatch.setenv("SLURM_CONF", "/etc/the.conf")
    assert variables()["SLURM_CONF"] == "/etc/the.conf"
    assert variables(conf="/etc/other.conf")["SLURM_CONF"] == "/etc/other.conf"
    monkeypatch.chdir(tools)
    assert variables(conf="mine.conf")["SLURM_CONF"] == str(tools / "mine.conf")


def test_a_program_that_is_not_there_is_told(tools: Path) -> None:
    with pytest.raises(NoSlurm, match="There is no Slurm here: sbatch_ is not on the PATH"):
        ask("sbatch_")
    put(tools, "broken", "true")
    (tools / "broken").write_text("#!/no/such/shell\n")
    with pytest.raises(SchedulerError, match="broken"):
        ask("broken")


def test_a_program_that_does_not_answer_is_not_waited_for(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    put(tools, "tool", "exec sleep 60")
    with pytest.raises(NoAnswer, match="tool did not answer within 0 s"):
        ask("tool")


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert own_name() == "4711"
