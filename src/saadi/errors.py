"""The ways a run ends early on purpose. Everything else is a bug and may show its traceback."""

from __future__ import annotations


class BadInput(Exception):
    """What the user gave cannot be used. One line: what, where, and what to do. The command exits with code 2."""


class Diverged(BadInput):
    """A training that no longer learns. Its stage says how to begin it anew."""


class Interrupted(BaseException):
    """Stopped from outside; the same command resumes. The command exits with code 3.

    Like `KeyboardInterrupt` it is no `Exception`: nothing that forgives a damaged file may swallow it.
    """
