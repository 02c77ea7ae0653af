"""A Slurm as this machine reaches it: submit, look, cancel, limits. Nothing else in the project knows its programs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from detector.errors import SchedulerError
from detector.storage.outputs import path_part
from harness.slurm.backend.answers import AnswerFile, Answers, Ended, QueuedJob
from harness.slurm.backend.programs import Answer, NoAnswer, NoSlurm, ask, own_name

CONFIG_SECONDS = 600.0  # for which a process keeps what it knows of the configuration
ACCOUNTS_AT_ONCE = 500  # jobs per call of sacct: what a command line holds
CANCELLED_AT_ONCE = 1_000  # jobs per call of scancel
COMMENT = "harness-"  # and a submission's token: the comment of our jobs
# squeue's fields and their widths. Its short options (-o) cannot print restarts; its JSON changed between versions.
COLUMNS = {
    **{"JobArrayID": 48, "State": 24, "RestartCnt": 16, "UserName": 40, "Comment": 64, "exit_code": 16},
    **{"Name": 80, "Reason": 160},
}
# JobID|State|ExitCode, such as 17_1|CANCELLED by 1000|0:15. Elements of arrays that still wait (17_[2-5]) do not match.
_ACCOUNT = re.compile(r"^(?P<job>\d+(?:_\d+)?)\|(?P<state>[^|]+)\|(?P<code>\d+):(?P<signal>\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Slurm:
    """One Slurm. conf: the path of its configuration file; "" for the Slurm of this machine."""

    conf: str = ""

    @property
    def config(self) -> Mapping[str, str]:
        """``scontrol show config``, asked seldom. Raises SchedulerError where nobody answers."""
        return _config(
            self.conf,
            int(time.time() // CONFIG_SECONDS),
            *(os.environ.get(name, "") for name in ("SLURM_CONF", "PATH")),
        )

    @property
    def name(self) -> str:
        """The ClusterName: what tells this Slurm from another one."""
        return self.config.get("ClusterName", "")

    @property
    def hides_jobs(self) -> bool:
        """Whether a user may see no jobs but his own (PrivateData)."""
        return "jobs" in self.config.get("PrivateData", "") and own_name() != "root"

    def submit(self, script: str) -> str:
        """Submit a batch script; returns the job's id.

        Raises SchedulerError with Slurm's reason, NoAnswer where it may be submitted or not.
        """
        # They would go before the script's options; the cluster has those that count (``harness.slurm.clusters``).
        hidden = [name for name in os.environ if name.startswith("SBATCH_")]
        answer = ask("sbatch", "--parsable", conf=self.conf, text=script, hidden=hidden)
        found = re.search(r"^(\d+)(?:;.*)?$", answer.out, re.MULTILINE)
        if answer.code == 0 and found:
            return found[1]
        if re.search(r"Unable to contact|[Tt]imed? ?out|Socket", answer.err):
            raise NoAnswer(answer.complaint)
        raise SchedulerError(answer.complaint)

    def look(self, runs: Path, name: str, users: Iterable[str], *, fresh: bool = False, since: float = 0.0) -> Answers:
        """The users' jobs in the queue, and those that ended some minutes ago. fresh: not from an earlier answer.

        runs: the runs folder, which keeps the answer for other commands. name: of this Slurm. since: nor from an answer
        of before this time.
        """
        return _file(runs, name).jobs(sorted(set(users)), self._queue, fresh=fresh, since=since)

    def forget(self, runs: Path, name: str) -> None:
        """After a change of the queue: what it said before must not be shown as what is."""
        _file(runs, name).forget()

    def last_answer(self, runs: Path, name: str) -> Answers:
        """What the queue of the Slurm of this name said last, whenever that was."""
        return _file(runs, name).read()

    def ended(self, runs: Path, name: str, jobs: Sequence[str]) -> dict[str, Ended]:
        """How jobs ended that squeue no longer shows, as far as the accounts have them; many clusters keep none."""
        return _file(runs, name).accounts(sorted(set(jobs)), self._accounts)

    def find(self, token: str) -> list[QueuedJob]:
        """The jobs of one submission, asked now. Raises SchedulerError where the queue gives no answer."""
        return [job for job in self._queue([own_name()]) if job.token == token]

    def cancel(self, jobs: Iterable[str]) -> None:
        """Cancel jobs, arrays or elements of arrays, in one call. Raises SchedulerError."""
        wanted = sorted(jobs)
        for first in range(0, len(wanted), CANCELLED_AT_ONCE):
            asked("scancel", *wanted[first : first + CANCELLED_AT_ONCE], conf=self.conf)

    def fields(self, job: str) -> dict[str, str]:
        """What the controller knows of a job (JobState, StartTime, ...); empty where it does not answer."""
        with suppress(SchedulerError):
            answer = ask("scontrol", "show", "job", "--oneliner", job, conf=self.conf)
            if answer.code == 0:
                return dict(part.split("=", 1) for part in answer.out.split() if "=" in part)
        return {}

    def throttle(self, job: str, most: int) -> None:
        """Let at most so many elements of an array run at a time. Raises SchedulerError."""
        asked("scontrol", "update", f"JobId={job}", f"ArrayTaskThrottle={most}", conf=self.conf)

    def version(self) -> str:
        """Such as "slurm-wlm 22.05.8". Raises SchedulerError."""
        return asked("sbatch", "--version", conf=self.conf).out.strip()

    def text(self, program: str, *arguments: str) -> str:
        """What a program prints; "" where it is not there or refuses: for what need not be known."""
        with suppress(SchedulerError):
            answer = ask(program, *arguments, conf=self.conf)
            return answer.out if answer.code == 0 else ""
        return ""

    def _queue(self, users: Sequence[str]) -> list[QueuedJob]:
        fields = ",".join(f"{field}:{width}" for field, width in COLUMNS.items())
        answer = asked("squeue", "-h", "-r", "-t", "all", "-u", ",".join(users), "-O", fields, conf=self.conf)
        jobs = (_queued_job(line) for line in answer.out.splitlines())
        return [job for job in jobs if job is not None]

    def _accounts(self, jobs: Sequence[str]) -> dict[str, Ended]:
        found: dict[str, Ended] = {}
        for first in range(0, len(jobs), ACCOUNTS_AT_ONCE):
            listed = ",".join(jobs[first : first + ACCOUNTS_AT_ONCE])
            text = self.text("sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", listed)
            for match in _ACCOUNT.finditer(text):
                number = int(match["signal"])
                found[match["job"]] = Ended(match["state"], 128 + number if number else int(match["code"]))
        return found


@lru_cache(maxsize=16)
def _config(conf: str, period: int, *environment: str) -> Mapping[str, str]:
    """Of the Slurm that these variables lead to, once in each period. An error is not kept."""
    answer = asked("scontrol", "show", "config", conf=conf)
    pairs = (line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def asked(program: str, *arguments: str, conf: str = "") -> Answer:
    """Run one of Slurm's programs. Raises SchedulerError with what it says where it fails."""
    answer = ask(program, *arguments, conf=conf)
    if answer.code != 0:
        raise SchedulerError(f"{program} failed: {answer.complaint}.")
    return answer


def _file(runs: Path, name: str) -> AnswerFile:
    whose = path_part(f"{name or 'slurm'}-{os.getuid()}", "ClusterName", raises=SchedulerError)
    return AnswerFile(runs / "submissions" / "answers" / f"{whose}.json")


def _queued_job(line: str) -> QueuedJob | None:
    """One line of ``squeue``, cut at the columns; None for a line of another kind."""
    values, start = dict[str, str](), 0
    for field, width in COLUMNS.items():
        values[field] = line[start : start + width].strip()
        start += width
    if not values["RestartCnt"].isdigit() or not re.fullmatch(r"\d+(_\d+)?", values["JobArrayID"]):
        return None
    comment = values["Comment"]
    return QueuedJob(
        id=values["JobArrayID"],
        state=values["State"],
        reason="" if values["Reason"] == "None" else values["Reason"],
        token=comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else "",
        user=values["UserName"],
        name=values["Name"],
        restarts=int(values["RestartCnt"]),
        exit_code=values["exit_code"],
    )


__all__ = ["COMMENT", "Ended", "NoAnswer", "NoSlurm", "QueuedJob", "Slurm"]
