"""Errors with exit codes.

Every error a user can cause says what was wrong, where, and what to do. The exit
code of the command line is the code of the error's class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedaltError(Exception):
    """Base of all errors that fedalt raises on purpose. Exit code 1."""

    exit_code = 1


class ConfigError(FedaltError):
    """A setting, an override or a name that does not exist or does not fit. Exit code 2."""

    exit_code = 2


class ScheduleError(ConfigError):
    """An entry of a schedule is wrong; the message names its place. Exit code 2."""


class DataError(FedaltError):
    """A data folder, file or row cannot be used. Exit code 3."""

    exit_code = 3


class WireError(FedaltError):
    """A message does not follow the wire contract of proto/fedalt/v1. Exit code 4."""

    exit_code = 4


class AdmissionError(FedaltError):
    """A client's reply breaks a rule and is not let near the model. Exit code 5."""

    exit_code = 5


class QuorumError(FedaltError):
    """Too few usable replies came back for a round to count. Exit code 6."""

    exit_code = 6


class BudgetError(FedaltError):
    """A privacy budget would be exceeded. Exit code 7."""

    exit_code = 7


class LedgerError(FedaltError):
    """A privacy ledger is damaged, or does not say what its run says. Exit code 9."""

    exit_code = 9


class CheckpointError(FedaltError):
    """A checkpoint is missing, damaged or belongs to another run. Exit code 8."""

    exit_code = 8


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest of ``known``, or the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
