"""The one tree of errors. Each class is a kind of failure and carries its exit code.

A message says what was found, where, what is allowed and what to do; a traceback that reaches a
user is a bug of this package, never an answer.
"""

from __future__ import annotations


class RetrievalFTError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(RetrievalFTError):
    """The command line or the configuration asks for something that cannot be."""

    exit_code = 2


class DataError(RetrievalFTError):
    """A corpus, queries, qrels, an index or a run directory is not what it should be."""

    exit_code = 3


class GateNotPassed(RetrievalFTError):
    """The tuned model did not beat its base, so the base was kept."""

    exit_code = 4


class DependencyError(RetrievalFTError):
    """A model, a package or a program that the work needs is not to be had here."""

    exit_code = 5
