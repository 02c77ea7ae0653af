"""Every error that a user can cause or meet, on one page. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable


class HarnessError(Exception):
    """Base: the command line prints its one message without a traceback and exits with 2.

    A message says what is wrong, the value, the valid choices and the next command.
    """


class UsageError(HarnessError):
    """A command was given something it cannot take (an unknown target, a missing option)."""


class RegistryError(HarnessError):
    """An experiment file is wrong; the message starts with ``FILE:LINE``."""


class DataError(HarnessError):
    """A data set is missing, broken, or not the one that the job names."""


class WeightsError(HarnessError):
    """Pretrained weights or a checkpoint cannot be had or do not fit."""


class RecordError(HarnessError):
    """A record or a run folder is damaged or contradicts another."""


class MissingLossError(RecordError):
    """A job's loss comes from a package that is not installed here, or cannot be used."""


class TrainingError(HarnessError):
    """A training stopped itself: a non-finite loss, or a first loss that cannot be right."""


class SchedulerError(HarnessError):
    """The cluster's scheduler is not there, does not answer, or refuses a job."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` Did you mean 'table2'?`` for the end of a message about an unknown name; nothing where none is near.

    Upper and lower case, and ``-`` against ``_``, count as near.
    """
    from difflib import get_close_matches  # not above: only errors need it

    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    near = get_close_matches(_plain(given), plain, n=1)
    return f" Did you mean {plain[near[0]]!r}?" if near else ""


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")
