"""What goes wrong, in one line."""

from __future__ import annotations


class XaikitError(Exception):
    """A run failed. The message is one line that says what to do.

    Attributes
    ----------
    exit_code : int
        What the command line returns.
    """

    exit_code = 1


class UsageError(XaikitError):
    """An option or an input is wrong: it names it, what was expected and what to do."""

    exit_code = 2
